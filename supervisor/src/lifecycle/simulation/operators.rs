//! Operators of the pretended world, and bad luck: what is asked for at random times.

use std::time::Duration;

use super::super::asked::{Client, Origin, Scale, Stop};
use super::super::cause::{Cause, Oom, Stage, Status};
use super::super::event::{Damaged, Event, SlotNumber};
use super::{Due, Nature, World};

impl World {
    /// An operator, or bad luck.
    pub(super) fn operate(&mut self) {
        let from = self.somebody();
        match self.below(64) {
            0 => {
                self.asked += u64::from(self.most_slots) + 20;
                self.tell(Event::Reload(from));
            }
            15 | 16 => {
                self.asked += 2 * u64::from(self.most_slots) + 40;
                self.tell(Event::Upgrade(None, from));
            }
            17 => {
                self.unask(from);
                self.asked += u64::from(self.most_slots) + 20;
                self.tell(Event::Damaged(Damaged::Slot(SlotNumber(0))));
            }
            1 => self.scale(Scale::More, from),
            2 => self.scale(Scale::Fewer, from),
            14 => {
                let number = u32::try_from(self.below(9)).unwrap();
                self.asked += 9;
                self.scale(Scale::To(number), from);
            }
            12 => {
                let slot = SlotNumber(u32::try_from(self.below(9)).unwrap());
                self.asked += 8;
                self.tell(Event::Retire(slot, from));
            }
            13 => {
                self.unask(from);
                self.wish_for_recycling();
            }
            3 => self.tell(Event::Pause(from)),
            4 => self.tell(Event::Resume(from)),
            5 if self.below(12) == 0 => self.ask_to_stop(from),
            6..=9 => {
                self.unask(from);
                self.kill_somebody();
            }
            10 => {
                self.unask(from);
                self.retire_somebody();
            }
            11 => {
                self.unask(from);
                let (slot, stage) =
                    (SlotNumber(u32::try_from(self.below(9)).unwrap()), Stage::Load);
                // Words of the dead, and of slots that never were, mean nothing.
                if !self.workers.contains_key(&slot.0) {
                    self.tell(Event::Ready(slot));
                    self.tell(Event::BootFailed { slot, stage, text: String::new() });
                    self.tell(Event::Stopped(slot));
                    self.tell(Event::Drained { slot, forced: 0 });
                    self.tell(Event::Exited { slot, status: Status::Exited(3), oom: Oom::No });
                }
            }
            _ => self.unask(from),
        }
    }

    /// It came to nothing: nobody is to be answered.
    pub(super) fn unask(&mut self, from: Origin) {
        self.unanswered.retain(|client| Some(*client) != from.client);
    }

    /// Every second one asks by the control socket, and waits.
    pub(super) fn somebody(&mut self) -> Origin {
        if self.below(2) == 0 {
            return Origin::default();
        }
        self.asked_for += 1;
        let client = Client(self.asked_for);
        self.unanswered.push(client);
        Origin { client: Some(client), ..Origin::default() }
    }

    pub(super) fn wish_for_recycling(&mut self) {
        let nth = usize::try_from(self.below(8)).unwrap();
        if let Some(&slot) = self.workers.keys().nth(nth) {
            self.asked += 8;
            self.tell(Event::RecycleWanted { slot: SlotNumber(slot), why: Cause::Requests });
        }
    }

    pub(super) fn scale(&mut self, scale: Scale, from: Origin) {
        self.asked += 2;
        self.tell(Event::Scale(scale, from));
    }

    pub(super) fn kill_somebody(&mut self) {
        let nth = usize::try_from(self.below(8)).unwrap();
        if let Some(&slot) = self.workers.keys().nth(nth) {
            self.die(slot, Status::Signaled { signal: 9, core: false });
        }
    }

    /// Somebody sends TERM to a worker: it says that it closes, and leaves.
    pub(super) fn retire_somebody(&mut self) {
        let leaver = self
            .workers
            .iter()
            .find(|(_, w)| w.is_ready && !w.is_leaving && w.nature == Nature::Healthy);
        if let Some((&slot, _)) = leaver {
            self.asked += 1;
            let worker = self.workers.get_mut(&slot).expect("it was found");
            worker.is_leaving = true;
            worker.is_ready = false;
            self.tell(Event::Stopped(SlotNumber(slot)));
            self.later(500, |birth| Due::Dies(slot, birth, Status::Exited(0)), slot);
        }
    }

    pub(super) fn ask_to_stop(&mut self, from: Origin) {
        let how = if self.below(4) == 0 { Stop::Quick } else { Stop::Graceful };
        self.stopped_at.get_or_insert(self.now);
        self.tell(Event::Stop(how, from));
    }

    /// With events ended, the count converges to the configured number.
    pub(super) fn settle_down(&mut self) {
        self.is_calm = true;
        let from = Origin::default();
        self.asked += u64::from(self.most_slots);
        self.tell(Event::Resume(from));
        // Those that misbehave are found or are ended by hand; the dead of the past are replaced by healthy ones.
        while let Some(slot) =
            self.workers.iter().find(|(_, w)| w.nature != Nature::Healthy).map(|(&s, _)| s)
        {
            self.die(slot, Status::Signaled { signal: 9, core: false });
            if self.exit.is_some() || self.is_stopping() {
                return;
            }
        }
        let until = self.now + Duration::from_mins(10);
        while self.now < until && self.exit.is_none() && !self.is_stopping() {
            self.step();
        }
        if self.exit.is_none() && !self.is_stopping() {
            assert_eq!(
                self.life.ready_workers(),
                self.life.workers(),
                "the count does not converge"
            );
            assert_eq!(self.reloads, 0, "a reload has no end");
            assert_eq!(self.upgrades, 0, "an upgrade has no end");
            assert!(!self.is_degraded, "all are ready and it is still degraded");
            assert!(self.unanswered.is_empty(), "nobody answered {:?}", self.unanswered);
        }
    }
}

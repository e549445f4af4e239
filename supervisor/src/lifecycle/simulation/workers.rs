//! Pretended workers: what becomes of a fork, and how each kind obeys.

use std::time::Duration;

use super::super::Phase;
use super::super::cause::{Cause, Oom, Stage, Status};
use super::super::event::{Blow, Event, ForkFailure, SlotNumber};
use super::super::place::State;
use super::{Due, Nature, Worker, World};

impl World {
    pub(super) fn die(&mut self, slot: u32, status: Status) {
        let worker = self.workers.remove(&slot).expect("only the living die");
        if !worker.was_ready && self.below(2) == 0 {
            let (stage, text) = (Stage::Boot, "no database".to_owned());
            self.workers.insert(slot, worker);
            self.tell(Event::BootFailed { slot: SlotNumber(slot), stage, text });
            self.workers.remove(&slot);
        }
        self.bury = vec![slot];
        self.tell(Event::Exited { slot: SlotNumber(slot), status, oom: Oom::No });
    }

    pub(super) fn fork(&mut self, slot: u32, generation: u64, follow: &mut Vec<Event>) {
        assert!(!self.is_closed, "a fork after the listeners were closed");
        assert!(slot < self.most_slots, "slot {slot} is beyond the bound");
        self.forks.push(self.now);
        if !self.is_calm && self.below(40) == 0 {
            let slot = SlotNumber(slot);
            let why = if self.below(4) == 0 {
                ForkFailure::Threads
            } else {
                ForkFailure::System("EAGAIN".into())
            };
            self.stillborn.push(slot.0);
            follow.push(Event::ForkFailed { slot, why });
            return;
        }
        // The first generation is mostly good: else most lives would end at once.
        let nature = match self.below(if generation == 1 { 60 } else { 12 }) {
            _ if self.is_calm => Nature::Healthy,
            _ if self.is_stormy && matches!(self.life.phase, Phase::Running) => Nature::BadBoot,
            0 => Nature::BadBoot,
            1 => Nature::Mute,
            2 => Nature::Hangs,
            3 => Nature::Frozen,
            4 => Nature::Clings,
            5..=8 => Nature::Crashes,
            _ => Nature::Healthy,
        };
        let beat = self.now;
        let worker = Worker {
            generation,
            nature,
            is_ready: false,
            was_ready: false,
            accepts: true,
            is_leaving: false,
            is_killed: false,
            beat,
        };
        assert!(self.workers.insert(slot, worker).is_none(), "two living owners of slot {slot}");
        *self.births.entry(slot).or_default() += 1;
        match nature {
            Nature::BadBoot if self.is_stormy => {
                self.later(20, |b| Due::Dies(slot, b, Status::Exited(3)), slot);
            }
            Nature::BadBoot => self.later(3_000, |b| Due::Dies(slot, b, Status::Exited(3)), slot),
            Nature::Mute => {}
            Nature::Healthy | Nature::Clings => self.later(2_500, |b| Due::Ready(slot, b), slot),
            Nature::Crashes => {
                self.later(500, |b| Due::Ready(slot, b), slot);
                let status = Status::Signaled { signal: 11, core: true };
                self.later(20_000, |b| Due::Dies(slot, b, status), slot);
            }
            Nature::Hangs | Nature::Frozen => {
                self.later(500, |b| Due::Ready(slot, b), slot);
                self.later(20_000, |b| Due::Freezes(slot, b), slot);
            }
        }
    }

    pub(super) fn drain(&mut self, slot: u32, deadline: Duration) {
        assert!(deadline <= self.limits.graceful_timeout, "a drain longer than its bound");
        let worker = self.workers.get_mut(&slot).expect("an order for nobody");
        worker.is_leaving = true;
        worker.is_ready = false;
        let nature = worker.nature;
        let state = self.life.places[usize::try_from(slot).unwrap()].state;
        let is_planned = |why| {
            matches!(
                why,
                Cause::Reload
                    | Cause::Upgrade
                    | Cause::Requests
                    | Cause::Lifetime
                    | Cause::MaxMemory
            )
        };
        if let State::Draining { why: Cause::Requests | Cause::Lifetime | Cause::MaxMemory, .. } =
            state
            && matches!(self.life.phase, Phase::Running)
        {
            let places = &self.life.places;
            self.recycled.retain(|&old| {
                let place = places.get(usize::try_from(old).unwrap());
                let is_recycled = matches!(
                    place.map(|place| place.state),
                    Some(State::Draining {
                        why: Cause::Requests | Cause::Lifetime | Cause::MaxMemory,
                        has_stopped: false,
                        ..
                    })
                );
                old != slot && is_recycled
            });
            assert!(self.recycled.is_empty(), "two tokens: {:?} and {slot}", self.recycled);
            self.recycled.push(slot);
        }
        if matches!(state, State::Draining { why, .. } if is_planned(why)) && !self.is_stopping() {
            let serving = self.workers.values().filter(|w| w.is_ready && !w.is_leaving).count();
            // Those that crashed just then are no fault of who leaves now; their places are not ready.
            let missing = match state {
                State::Draining { why: Cause::Reload | Cause::Upgrade, .. } => 0,
                _ => self.life.workers().saturating_sub(self.life.ready_workers()),
            };
            let wanted = self.life.workers() - missing;
            assert!(
                serving >= usize::try_from(wanted).unwrap(),
                "drained before its successors serve: {serving} of {wanted}, {state:?}"
            );
        }
        if nature == Nature::Healthy || nature == Nature::Crashes {
            let longest = u64::try_from(deadline.as_millis()).unwrap().max(1);
            self.later(longest, |b| Due::Dies(slot, b, Status::Exited(0)), slot);
            self.later(longest, |b| Due::Closes(slot, b), slot);
        }
    }

    pub(super) fn quit(&mut self, slot: u32) {
        let worker = self.workers.get_mut(&slot).expect("an order for nobody");
        worker.is_leaving = true;
        worker.is_ready = false;
        worker.is_killed = true;
        if worker.nature == Nature::Healthy {
            self.later(50, |b| Due::Dies(slot, b, Status::Exited(0)), slot);
        }
    }

    pub(super) fn strike(&mut self, slot: u32, how: Blow) {
        let Some(worker) = self.workers.get_mut(&slot) else {
            assert!(self.stillborn.contains(&slot), "a blow for nobody");
            return;
        };
        worker.is_leaving = true;
        worker.is_ready = false;
        worker.is_killed = true;
        let is_frozen = worker.nature == Nature::Frozen;
        let signal = match how {
            Blow::Abort if is_frozen => return,
            Blow::Abort => 6,
            Blow::Kill => 9,
        };
        let status = Status::Signaled { signal, core: false };
        self.later(5, |b| Due::Dies(slot, b, status), slot);
    }

    pub(super) fn look(&mut self, follow: &mut Vec<Event>) {
        for (&slot, worker) in &self.workers {
            let is_hung = matches!(worker.nature, Nature::Hangs | Nature::Frozen);
            let beat_age = if is_hung { self.now - worker.beat } else { self.slept };
            let private_bytes = Some(self.sizes.next() % 150).filter(|_| !self.is_calm);
            follow.push(Event::Seen {
                slot: SlotNumber(slot),
                beat_age,
                private_bytes,
                is_idle_acceptor: false,
                is_stopped: worker.nature == Nature::Frozen,
            });
        }
        if self.observer.is_some() {
            follow.push(Event::ObserverSeen { beat_age: self.slept });
        }
        self.slept = Duration::ZERO;
    }
}

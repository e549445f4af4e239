//! What the pretended world does with commands, and how it changes its program.

use std::time::Duration;

use super::super::event::{Command, Event, Image, SlotNumber};
use super::super::{Lifecycle, Phase};
use super::{Due, Worker, World};
use crate::Exit;

impl World {
    /// Hands an event over, carries the answer out, and checks every rule.
    pub(super) fn tell(&mut self, event: Event) {
        let commands = self.life.on(event, self.now);
        let mut follow = Vec::new();
        for command in commands {
            assert!(self.exit.is_none(), "something is said after the end: {command:?}");
            self.obey(command, &mut follow);
        }
        assert!(self.bury.is_empty(), "a death without a report");
        self.check();
        for event in follow {
            if self.exit.is_none() {
                self.tell(event);
            }
        }
        self.change_program();
    }

    /// Runs another program in the place of this one, as the supervisor does before it waits again. Its whole life is what
    /// was written down for it.
    pub(super) fn change_program(&mut self) {
        let Some(image) = self.life.leaves_for() else { return };
        if self.below(8) == 0 && !self.is_calm {
            return self.tell(Event::ExecFailed("no such file".to_owned()));
        }
        let handover = self.life.hand_over(self.now).expect("it is leaving");
        let text = serde_json::to_string(&handover).expect("it can be written");
        let handover = serde_json::from_str(&text).expect("and read");
        let limits = match image {
            Image::New => {
                self.limits_before = self.limits.clone();
                self.limits.clone()
            }
            Image::Old => self.limits_before.clone(),
        };
        self.life = Lifecycle::adopt(limits, handover, self.seed.next(), self.now);
        self.is_replacing = true;
        self.tell(Event::Adopted);
        self.is_replacing = false;
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    pub(super) fn obey(&mut self, command: Command, follow: &mut Vec<Event>) {
        match command {
            Command::Fork { slot, generation } => self.fork(slot.0, generation, follow),
            Command::Bury { slot, report } => {
                assert_eq!(self.bury.pop(), Some(slot.0), "a report without a death: {report:?}");
            }
            Command::Drain { slot, deadline, .. } | Command::Stop { slot, deadline, .. } => {
                self.drain(slot.0, deadline);
            }
            Command::Quit(slot) => self.quit(slot.0),
            Command::Kill { slot, how } => self.strike(slot.0, how),
            Command::ForkObserver => {
                assert!(self.observer.is_none(), "two observers");
                self.observer = Some(self.now);
                self.observer_births += 1;
                let birth = self.observer_births;
                if self.below(3) == 0 && !self.is_calm {
                    let at = self.now + Duration::from_millis(self.seed.next() % 90_000);
                    self.due.push((at, Due::ObserverDies(birth)));
                }
            }
            Command::StopObserver => {
                assert!(
                    self.workers.is_empty() || self.is_replacing,
                    "the observer leaves before the workers"
                );
                // A stubborn one does not go.
                if self.below(3) > 0 {
                    let at = self.now + Duration::from_millis(self.seed.next() % 2_000);
                    self.due.push((at, Due::ObserverDies(self.observer_births)));
                }
            }
            Command::KillObserver => {
                assert!(
                    self.is_stopping()
                        || self.life.observer.is_running()
                        || matches!(self.life.phase, Phase::Stopping(_)),
                    "an observer that beats is killed"
                );
                let at = self.now + Duration::from_millis(5);
                self.due.push((at, Due::ObserverDies(self.observer_births)));
            }
            Command::Look => self.look(follow),
            Command::CloseListeners => {
                assert!(!self.is_closed, "listeners are closed twice");
                self.is_closed = true;
            }
            Command::Rehearse { .. } => {
                self.rehearsals += 1;
                self.is_rehearsing = true;
                // Some never answer.
                if self.is_calm || self.below(6) > 0 {
                    let at = self.now + Duration::from_millis(1 + self.seed.next() % 4_000);
                    self.due.push((at, Due::Rehearsed(self.rehearsals)));
                }
            }
            Command::CancelRehearsal => self.is_rehearsing = false,
            Command::Configure { generation } => self.configure(generation, follow),
            Command::Promote { .. } => {
                self.limits = self.life.limits.clone();
            }
            Command::Discard { .. } => {}
            Command::Reply { client, answer } => {
                assert!(self.unanswered.contains(&client), "answered twice: {client:?} {answer:?}");
                if answer.is_final() {
                    self.unanswered.retain(|waiting| *waiting != client);
                }
            }
            Command::Emit(notice) => self.hear(&notice),
            Command::Exit(_) => self.exit = Some(self.now),
            Command::Release(slot) => {
                self.stillborn.retain(|&stillborn| stillborn != slot.0);
                assert!(!self.workers.contains_key(&slot.0), "a living owner is released");
            }
            Command::Pause(slot) => self.worker_told(slot).accepts = false,
            Command::Resume(slot) => self.worker_told(slot).accepts = true,
        }
    }

    fn worker_told(&mut self, slot: SlotNumber) -> &mut Worker {
        self.workers.get_mut(&slot.0).expect("an order for nobody")
    }

    /// Some settings are wrong, some change the number of workers, some the bounds.
    pub(super) fn configure(&mut self, generation: u64, follow: &mut Vec<Event>) {
        if !self.is_calm && self.below(5) == 0 {
            let text = "workers: \"many\" is no number".to_owned();
            follow.push(Event::Misconfigured { generation, exit: Exit::Usage, text });
            return;
        }
        let mut limits = self.limits.clone();
        if !self.is_calm && self.below(2) == 0 {
            limits.workers = 1 + u32::try_from(self.below(6)).unwrap();
            limits.max_workers = limits.workers + u32::try_from(self.below(3)).unwrap();
        }
        self.most_slots = self.most_slots.max(limits.slots());
        self.most_workers = self.most_workers.max(limits.max_workers);
        self.asked += u64::from(limits.slots());
        follow.push(Event::Configured { generation, limits });
    }
}

//! Operators' orders that are carried out at once: more or fewer workers, pause, resume.

use std::time::{Duration, Instant};

use super::asked::{Client, Origin, Scale};
use super::cause::Cause;
use super::event::{Answer, Command, Notice};
use super::{Lifecycle, Phase};
use crate::Exit;

impl Lifecycle {
    pub(super) fn scale(
        &mut self,
        scale: Scale,
        from: Origin,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        // During a reload the number that is to come counts, which may be another one: 2 workers that become 6, and one
        // fewer, are 5.
        let coming = self.reload.as_ref().and_then(|reload| reload.plan.as_ref());
        let (old, most) = coming.map_or((self.target, self.limits.max_workers), |plan| {
            (plan.target, plan.limits.max_workers)
        });
        let new = scale.of(old);
        match self.phase {
            Phase::Running if self.upgrade.is_some() => {
                self.refuse("workers", UPGRADING, Exit::Busy, from, now, out);
            }
            Phase::Starting { .. } | Phase::Running if new >= 1 && new <= most => {
                // Should the reload fail, it has changed those that serve all the same.
                self.target = scale.of(self.target).clamp(1, self.limits.max_workers);
                self.scale_cause = match scale {
                    Scale::More | Scale::Fewer => Cause::Ttou,
                    Scale::By(_) | Scale::To(_) => Cause::Scale,
                };
                if let Some(plan) = self.reload.as_mut().and_then(|reload| reload.plan.as_mut()) {
                    plan.target = new;
                }
                if old != new {
                    out.push(Command::Emit(Notice::WorkersChanged { old, new, from }));
                }
                tell(from.client.as_slice(), &Answer::Workers { old, new }, out);
            }
            Phase::Starting { .. } | Phase::Running => {
                let why =
                    if new < 1 { "one worker is the least" } else { "max_workers is reached" };
                self.refuse("workers", why, Exit::Usage, from, now, out);
            }
            Phase::Stopping(_) => {
                self.refuse("workers", "the server stops", Exit::Busy, from, now, out);
            }
            Phase::New | Phase::Ended => {}
        }
    }

    /// One line a second, with the number of those before it that got none.
    pub(super) fn refuse(
        &mut self,
        what: &'static str,
        why: &'static str,
        exit: Exit,
        from: Origin,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        tell(from.client.as_slice(), &Answer::Refused { exit, why: why.to_owned() }, out);
        if self.last_refusal.is_some_and(|last| now - last < Duration::from_secs(1)) {
            self.refusals += 1;
            return;
        }
        self.last_refusal = Some(now);
        let suppressed = std::mem::take(&mut self.refusals);
        out.push(Command::Emit(Notice::ChangeRefused { what, why, from, suppressed }));
    }

    pub(super) fn pause(&mut self, from: Origin, now: Instant, out: &mut Vec<Command>) {
        if !self.answer_order("pause", from, now, out) {
            return;
        }
        match self.phase {
            Phase::Starting { .. } | Phase::Running if !self.is_paused => {
                self.is_paused = true;
                out.push(Command::Emit(Notice::Paused(from)));
                out.extend(self.ready_members(self.generation).map(Command::Pause));
            }
            Phase::New
            | Phase::Starting { .. }
            | Phase::Running
            | Phase::Stopping(_)
            | Phase::Ended => {}
        }
    }

    pub(super) fn resume(&mut self, from: Origin, now: Instant, out: &mut Vec<Command>) {
        if !self.answer_order("resume", from, now, out) {
            return;
        }
        match self.phase {
            Phase::Starting { .. } | Phase::Running if self.is_paused => {
                self.is_paused = false;
                out.push(Command::Emit(Notice::Resumed(from)));
                out.extend(self.ready_members(self.generation).map(Command::Resume));
            }
            Phase::New
            | Phase::Starting { .. }
            | Phase::Running
            | Phase::Stopping(_)
            | Phase::Ended => {}
        }
    }

    /// Answers an order that is carried out at once, if it is; else it comes too late.
    fn answer_order(
        &mut self,
        what: &'static str,
        from: Origin,
        now: Instant,
        out: &mut Vec<Command>,
    ) -> bool {
        let why = match self.phase {
            Phase::Starting { .. } | Phase::Running if self.upgrade.is_none() => {
                tell(from.client.as_slice(), &Answer::Done, out);
                return true;
            }
            Phase::Starting { .. } | Phase::Running => UPGRADING,
            Phase::New | Phase::Stopping(_) | Phase::Ended => "the server stops",
        };
        self.refuse(what, why, Exit::Busy, from, now, out);
        false
    }
}

/// Says the same to all of them.
pub(super) fn tell(clients: &[Client], answer: &Answer, out: &mut Vec<Command>) {
    out.extend(clients.iter().map(|&client| Command::Reply { client, answer: answer.clone() }));
}

/// Why other changes are refused meanwhile.
pub(super) const UPGRADING: &str = "an upgrade is under way";

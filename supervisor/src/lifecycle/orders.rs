//! Operators' orders that are carried out at once: more or fewer workers, pause, resume.

use std::time::{Duration, Instant};

use super::event::{Command, Notice, Origin, Scale};
use super::{Lifecycle, Phase};

impl Lifecycle {
    pub(super) fn scale(
        &mut self,
        scale: Scale,
        from: Origin,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let (new, why) = match scale {
            Scale::More => (self.target + 1, "max_workers is reached"),
            Scale::Fewer => (self.target - 1, "one worker is the least"),
        };
        match self.phase {
            Phase::Starting { .. } | Phase::Running
                if new >= 1 && new <= self.limits.max_workers =>
            {
                let old = std::mem::replace(&mut self.target, new);
                out.push(Command::Emit(Notice::WorkersChanged { old, new, from }));
            }
            Phase::Starting { .. } | Phase::Running => self.refuse("workers", why, from, now, out),
            Phase::Stopping(_) => self.refuse("workers", "the server stops", from, now, out),
            Phase::New | Phase::Ended => {}
        }
    }

    /// One line a second, with the number of those before it that got none.
    pub(super) fn refuse(
        &mut self,
        what: &'static str,
        why: &'static str,
        from: Origin,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        if self.last_refusal.is_some_and(|last| now - last < Duration::from_secs(1)) {
            self.refusals += 1;
            return;
        }
        self.last_refusal = Some(now);
        let suppressed = std::mem::take(&mut self.refusals);
        out.push(Command::Emit(Notice::ChangeRefused { what, why, from, suppressed }));
    }

    pub(super) fn pause(&mut self, from: Origin, out: &mut Vec<Command>) {
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

    pub(super) fn resume(&mut self, from: Origin, out: &mut Vec<Command>) {
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
}

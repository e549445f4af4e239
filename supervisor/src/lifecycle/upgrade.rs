//! Upgrade to another program in place (S50-S54): tried beside the server, then run instead of this one; its workers
//! serve before the old ones leave, and for a while the old ones stand by.
//!
//! The first half is decided by the old image, the second by the new one, which got the [`Handover`] of the first.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::asked::{Client, Origin};
use super::cause::Cause;
use super::event::{Answer, Command, Image, Notice};
use super::failure::Failure;
use super::orders::{UPGRADING, tell};
use super::place::State;
use super::{Lifecycle, Phase, dismiss, numbered};
use crate::Exit;

/// One that is under way.
#[derive(Clone, Debug)]
pub(super) struct Upgrade {
    pub(super) since: Instant,
    /// Who waits for its end.
    pub(super) clients: Vec<Client>,
    pub(super) step: Step,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The new program is tried beside the running server.
    Rehearsing { until: Instant },
    /// The new program is about to run in the place of this one.
    Leaving,
    /// This is the new program: its generation is the one that `reload` waits for.
    Booting,
    /// Its generation serves; the one before stands by.
    Probation { until: Instant, old: Past },
    /// It has failed: the old program is about to run in the place of this one.
    Returning(Failure),
}

/// What a rollback goes back to.
#[derive(Copy, Clone, Debug)]
pub(super) struct Past {
    pub(super) generation: u64,
    pub(super) target: u32,
}

impl Lifecycle {
    pub(super) fn upgrade(
        &mut self,
        path: Option<std::path::PathBuf>,
        from: Origin,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let why = match self.phase {
            Phase::New | Phase::Ended => return,
            Phase::Starting { .. } => "the server starts",
            Phase::Stopping(_) => "the server stops",
            Phase::Running if self.upgrade.is_some() => UPGRADING,
            Phase::Running if self.reload.is_some() || self.again.is_some() => {
                "a reload is under way"
            }
            Phase::Running => {
                let clients: Vec<_> = from.client.into_iter().collect();
                tell(&clients, &Answer::Begun("upgrading"), out);
                // It watches its worker itself, and says what it has seen.
                let until = now + self.limits.boot_timeout + LAST_WORD;
                let step = Step::Rehearsing { until };
                self.upgrade = Some(Upgrade { since: now, clients, step });
                self.interrupt_recycle(out);
                self.cut_oldest(out);
                out.push(Command::Emit(Notice::Upgrading { from }));
                out.push(Command::Rehearse { path });
                return;
            }
        };
        self.refuse("upgrade", why, Exit::Busy, from, now, out);
    }

    /// The new program has shown that it can take over, or has not.
    pub(super) fn rehearsed(
        &mut self,
        result: Result<(), (Exit, String)>,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let Some(Upgrade { step, .. }) = &mut self.upgrade else { return };
        if !matches!(step, Step::Rehearsing { .. }) {
            return;
        }
        match result {
            Ok(()) => *step = Step::Leaving,
            Err((exit, text)) => {
                self.fail_upgrade(&Failure::new("rehearsal", exit, Some(text)), now, out);
            }
        }
    }

    /// This program is still the one that runs.
    pub(super) fn exec_failed(&mut self, text: &str, now: Instant, out: &mut Vec<Command>) {
        let Some(Upgrade { step, .. }) = &self.upgrade else { return };
        match step.clone() {
            Step::Leaving => {
                let text = Some(text.to_owned());
                self.fail_upgrade(&Failure::new("exec", Exit::Usage, text), now, out);
            }
            Step::Returning(mut failure) => {
                let lost = format!("{}; the old program cannot be run: {text}", failure.why());
                failure.text = Some(lost);
                self.has_returned(&failure, now, out);
            }
            Step::Rehearsing { .. } | Step::Booting | Step::Probation { .. } => {}
        }
    }

    /// Whether another program is about to run in the place of this one, and which.
    pub(crate) fn leaves_for(&self) -> Option<Image> {
        match self.upgrade.as_ref()?.step {
            Step::Leaving => Some(Image::New),
            Step::Returning(_) => Some(Image::Old),
            Step::Rehearsing { .. } | Step::Booting | Step::Probation { .. } => None,
        }
    }

    /// Takes the step of the upgrade that is due.
    pub(super) fn advance_upgrade(&mut self, now: Instant, out: &mut Vec<Command>) {
        let is_full = self.ready_workers() >= self.target;
        match self.upgrade.as_mut().map(|upgrade| &mut upgrade.step) {
            Some(Step::Rehearsing { until }) if *until <= now => {
                out.push(Command::CancelRehearsal);
                let text = Some("no answer within boot_timeout".to_owned());
                self.fail_upgrade(&Failure::new("rehearsal", Exit::Boot, text), now, out);
            }
            Some(Step::Probation { until, .. }) if *until <= now && !is_full => {
                // Somebody has retired one: its successor is to serve before the old ones leave.
                *until = now + BETWEEN_LOOKS;
            }
            Some(Step::Probation { until, .. }) if *until <= now => self.conclude(now, out),
            Some(_) | None => {}
        }
    }

    pub(super) fn upgrade_deadline(&self) -> Option<Instant> {
        match self.upgrade.as_ref()?.step {
            Step::Rehearsing { until } | Step::Probation { until, .. } => Some(until),
            Step::Leaving | Step::Booting | Step::Returning(_) => None,
        }
    }

    /// The new generation serves: the old one stands by, should it fail soon.
    pub(super) fn begin_probation(
        &mut self,
        old: Past,
        workers: u32,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let queues = self.places.iter().map(|place| place.queue);
        let left_over: BTreeSet<_> = queues.filter(|&queue| self.is_left_over(queue)).collect();
        for (slot, place) in numbered(&mut self.places) {
            if !place.is_member_of(old.generation) {
                continue;
            }
            place.is_member = false;
            match place.state {
                State::Ready { .. } => {
                    place.state = State::Standby;
                    // There are fewer new ones: whom the kernel deals to it would wait for the end of the probation.
                    let accepts_on = left_over.contains(&place.queue);
                    out.push(if accepts_on { Command::Resume(slot) } else { Command::Pause(slot) });
                }
                State::Empty | State::Waiting { .. } => place.vacate(),
                State::Booting { .. } => super::kill(slot, place, Cause::Upgrade, out),
                State::Standby | State::Draining { .. } | State::Aborting { .. } => {}
            }
        }
        let until = now + self.limits.upgrade_probation;
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.step = Step::Probation { until, old };
        }
        let generation = self.generation;
        out.push(Command::Emit(Notice::Probation { generation, workers }));
        self.advance_upgrade(now, out);
    }

    /// Whether the unplanned death of a member of `generation` brings the old program back.
    pub(super) fn is_on_probation(&self, generation: u64) -> bool {
        generation == self.generation
            && self.upgrade.as_ref().is_some_and(|up| matches!(up.step, Step::Probation { .. }))
    }

    /// The old workers serve again, the new ones leave, and the old program is run.
    pub(super) fn roll_back(
        &mut self,
        cause: Cause,
        text: Option<String>,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let Some(Upgrade { step: Step::Probation { old, .. }, .. }) = self.upgrade else { return };
        let new = std::mem::replace(&mut self.generation, old.generation);
        self.target = old.target;
        let bounds = self.drain_bounds();
        for (slot, place) in numbered(&mut self.places) {
            if place.state == State::Standby {
                place.state = State::Ready { is_slow: false };
                place.is_member = true;
                out.push(Command::Resume(slot));
            }
        }
        for (slot, place) in numbered(&mut self.places) {
            if place.is_member_of(new) {
                dismiss(slot, place, Cause::Rollback, bounds, now, out);
            }
        }
        let exit = if cause == Cause::Load { Exit::Load } else { Exit::Boot };
        self.go_back(Failure::new(cause.as_str(), exit, text));
    }

    /// Whether whoever is forked now would run another program than the generation that serves.
    pub(super) fn is_between_images(&self) -> bool {
        let step = self.upgrade.as_ref().map(|upgrade| &upgrade.step);
        matches!(step, Some(Step::Leaving | Step::Booting | Step::Returning(_)))
    }

    /// The dead of the serving generation are followed by the next one, or when the old program is back.
    pub(super) fn hold_vacancies(&mut self, now: Instant) {
        for place in self.places.iter_mut().filter(|place| place.is_member_of(self.generation)) {
            if let State::Waiting { until } = &mut place.state
                && *until <= now
            {
                *until = now + BETWEEN_LOOKS;
            }
        }
    }

    /// Its generation could not boot.
    pub(super) fn fail_booting(&mut self, stage: &str, exit: Exit, text: Option<String>) {
        self.go_back(Failure::new(stage, exit, text));
    }

    fn go_back(&mut self, failure: Failure) {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.step = Step::Returning(failure);
        }
    }

    /// The old program runs again, or the new one had to stay: the old generation serves either way.
    pub(super) fn has_returned(&mut self, failure: &Failure, now: Instant, out: &mut Vec<Command>) {
        let Some(Upgrade { since, clients, .. }) = self.upgrade.take() else { return };
        let (duration, failure) = (now - since, failure.clone());
        let answer = Answer::Refused { exit: failure.exit, why: failure.why() };
        out.push(Command::Emit(Notice::UpgradeRolledBack { failure, duration }));
        tell(&clients, &answer, out);
    }

    /// The server stops: nobody waits for the new program any more.
    pub(super) fn abandon_upgrade(&mut self, now: Instant, out: &mut Vec<Command>) {
        match self.upgrade.as_ref().map(|upgrade| &upgrade.step) {
            None => return,
            Some(Step::Rehearsing { .. }) => out.push(Command::CancelRehearsal),
            Some(Step::Booting) => {
                if let Some(reload) = self.reload.take() {
                    self.kill_coming(reload.generation, out);
                    out.push(Command::Discard { generation: reload.generation });
                }
            }
            Some(Step::Leaving | Step::Probation { .. } | Step::Returning(_)) => {}
        }
        self.fail_upgrade(&Failure::new("stop", Exit::Busy, None), now, out);
    }

    fn fail_upgrade(&mut self, failure: &Failure, now: Instant, out: &mut Vec<Command>) {
        let Some(Upgrade { since, clients, .. }) = self.upgrade.take() else { return };
        let (duration, failure) = (now - since, failure.clone());
        let answer = Answer::Refused { exit: failure.exit, why: failure.why() };
        out.push(Command::Emit(Notice::UpgradeFailed { failure, duration }));
        tell(&clients, &answer, out);
    }

    /// The new generation has proved itself: the old one leaves.
    fn conclude(&mut self, now: Instant, out: &mut Vec<Command>) {
        let Some(Upgrade { since, clients, .. }) = self.upgrade.take() else { return };
        let (generation, workers, duration) = (self.generation, self.ready_workers(), now - since);
        out.push(Command::Promote { generation });
        let bounds = self.drain_bounds();
        for (slot, place) in numbered(&mut self.places) {
            if place.state == State::Standby {
                dismiss(slot, place, Cause::Upgrade, bounds, now, out);
            }
        }
        out.push(Command::Emit(Notice::Upgraded { generation, workers, duration }));
        tell(&clients, &Answer::Serves { generation, workers, duration }, out);
    }
}

const LAST_WORD: Duration = Duration::from_secs(1);
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

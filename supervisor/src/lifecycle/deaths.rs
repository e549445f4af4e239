//! Workers that end, or never came to be: what is reported, and who follows.

use std::time::{Duration, Instant};

use super::cause::{Cause, Oom, Stage, Status};
use super::event::QueueNumber;
use super::event::{Command, Ending, ForkFailure, Notice, Report, SlotNumber};
use super::pace::{self, LONGEST_PAUSE, WINDOW};
use super::place::{Place, State};
use super::{Lifecycle, Phase};

impl Lifecycle {
    /// Remembered until the worker is reaped, which is when it counts.
    pub(super) fn boot_failed(&mut self, slot: SlotNumber, stage: Stage, text: String) {
        if let Some(place) = self.place(slot)
            && place.is_alive()
            && place.ready_since.is_none()
        {
            place.failure = Some((stage, text));
        }
    }

    /// A worker that nobody told to stop has been asked to leave by its TERM: a successor comes.
    pub(super) fn stopped(&mut self, slot: SlotNumber, now: Instant) {
        let fuse = self.limits.graceful_timeout + self.limits.abort_grace;
        let is_serving = self.is_serving();
        let Some(place) = self.place(slot) else { return };
        match &mut place.state {
            State::Draining { has_stopped, .. } => *has_stopped = true,
            State::Ready { .. } | State::Standby => {
                let why = Cause::Retired;
                place.state =
                    State::Draining { since: now, kill_at: now + fuse, why, has_stopped: true };
                let is_young = place.ready_since.is_some_and(|since| now - since < WINDOW);
                let failures = if is_young { place.failures } else { 0 };
                let (generation, queue) = (place.generation, place.queue);
                let was_member = std::mem::replace(&mut place.is_member, false);
                if was_member && is_serving {
                    self.succeed(generation, queue, failures, now);
                }
            }
            State::Empty
            | State::Waiting { .. }
            | State::Booting { .. }
            | State::Aborting { .. } => {}
        }
    }

    pub(super) fn drained(&mut self, slot: SlotNumber, forced: u64, now: Instant) {
        // Said without `stopped` before it: then it has stopped as well.
        self.stopped(slot, now);
        if let Some(place) = self.place(slot)
            && place.is_alive()
        {
            place.forced = forced;
        }
    }

    pub(super) fn exited(
        &mut self,
        slot: SlotNumber,
        (status, oom): (Status, Oom),
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let Some(place) = self.place(slot).filter(|place| place.is_alive()) else { return };
        let cause = cause_of(place, status, oom);
        let drained = match place.state {
            State::Draining { since, why, .. } if why == cause => Some(now - since),
            State::Empty
            | State::Waiting { .. }
            | State::Booting { .. }
            | State::Ready { .. }
            | State::Standby
            | State::Draining { .. }
            | State::Aborting { .. } => None,
        };
        let in_boot = place.ready_since.is_none();
        let (generation, age, forced) = (place.generation, now - place.born, place.forced);
        let text = place.failure.take().map(|(_, text)| text);
        let is_member = place.is_member;
        self.add_forced(forced);
        let decision = self.decide(generation, is_member, in_boot, cause);
        let next_try = match decision {
            Decision::Replace => Some(self.wait(slot, now)),
            Decision::FailStart | Decision::FailReload | Decision::RollBack | Decision::Leave => {
                if let Some(place) = self.place(slot) {
                    place.vacate();
                }
                None
            }
        };
        let first_cause = text.clone();
        let report = Report {
            cause,
            status,
            generation,
            age,
            drained,
            forced,
            next_try,
            text,
            in_boot,
            oom,
        };
        out.push(Command::Bury { slot, report });
        self.charge(cause, now, out);
        match decision {
            Decision::FailStart => self.fail_start(ending_of(cause), now, out),
            Decision::FailReload => self.fail_reload(cause, first_cause, now, out),
            Decision::RollBack => {
                let how = first_cause.unwrap_or_else(|| {
                    format!("the worker of slot {} ended with {status}", slot.0)
                });
                self.roll_back(cause, Some(how), now, out);
            }
            Decision::Replace | Decision::Leave => {}
        }
    }

    pub(super) fn fork_failed(
        &mut self,
        slot: SlotNumber,
        why: ForkFailure,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let Some(place) = self.place(slot).filter(|place| place.is_alive()) else { return };
        let (generation, is_member) = (place.generation, place.is_member);
        let decision = self.decide(generation, is_member, true, Cause::Fork);
        out.push(Command::Release(slot));
        let next_try = self.wait(slot, now);
        if !matches!(decision, Decision::Replace)
            && let Some(place) = self.place(slot)
        {
            place.vacate();
        }
        let has_threads = why == ForkFailure::Threads;
        let text = match &why {
            ForkFailure::Threads => "another thread runs in the supervisor".to_owned(),
            ForkFailure::System(text) => text.clone(),
        };
        out.push(Command::Emit(Notice::ForkFailed { slot, why, next_try }));
        self.charge(Cause::Fork, now, out);
        match decision {
            Decision::FailStart => self.fail_start(Ending::Fork, now, out),
            Decision::FailReload => self.fail_reload(Cause::Fork, Some(text), now, out),
            Decision::RollBack => self.roll_back(Cause::Fork, Some(text), now, out),
            Decision::Replace | Decision::Leave => {}
        }
        if has_threads && self.is_serving() {
            self.degrade(now, out);
        }
    }

    fn decide(&self, generation: u64, is_member: bool, in_boot: bool, cause: Cause) -> Decision {
        if !is_member || !self.is_serving() {
            return Decision::Leave;
        }
        if matches!(self.phase, Phase::Starting { .. }) && in_boot && cause.is_unplanned() {
            return Decision::FailStart;
        }
        if self.reload.as_ref().is_some_and(|reload| reload.generation == generation) {
            return Decision::FailReload;
        }
        if self.is_on_probation(generation) && cause.is_unplanned() {
            return Decision::RollBack;
        }
        Decision::Replace
    }

    /// Puts the slot on its backoff (S27) and says how long.
    fn wait(&mut self, slot: SlotNumber, now: Instant) -> Duration {
        let is_degraded = self.is_degraded;
        let mut jitter = self.jitter.clone();
        let Some(place) = self.place(slot) else { return Duration::ZERO };
        if place.ready_since.take().is_some_and(|since| now - since >= WINDOW) {
            place.failures = 0;
        }
        let next_try = if is_degraded {
            pace::slowest(&mut jitter)
        } else {
            pace::pause(place.failures, &mut jitter)
        };
        place.failures = place.failures.saturating_add(1);
        place.down_since.get_or_insert(now);
        place.state = State::Waiting { until: now + next_try };
        self.jitter = jitter;
        next_try
    }

    /// A member for one that left by itself: at once at first, slower when it happens again and again.
    fn succeed(&mut self, generation: u64, queue: QueueNumber, failures: u32, now: Instant) {
        let pause = pace::pause(failures, &mut self.jitter);
        if let Some(place) = self.places.iter_mut().find(|place| place.state == State::Empty) {
            place.is_member = true;
            place.generation = generation;
            place.queue = queue;
            place.failures = failures + 1;
            place.state = State::Waiting { until: now + pause };
        }
    }

    /// Counts an unplanned death against the budget (S28).
    fn charge(&mut self, cause: Cause, now: Instant, out: &mut Vec<Command>) {
        if !cause.is_unplanned() {
            return;
        }
        self.budget.spend(now);
        if self.is_serving() && self.budget.spent(now) > pace::Budget::limit(self.target) {
            self.degrade(now, out);
        }
    }

    /// Every empty slot goes to the slowest step; the living serve on.
    pub(super) fn degrade(&mut self, now: Instant, out: &mut Vec<Command>) {
        if std::mem::replace(&mut self.is_degraded, true) {
            return;
        }
        self.full_since = None;
        for place in &mut self.places {
            if let State::Waiting { until } = &mut place.state {
                *until = (*until).max(now + LONGEST_PAUSE);
            }
        }
        out.push(Command::Emit(Notice::Degraded { deaths: self.budget.spent(now) }));
    }
}

enum Decision {
    /// The next one in the same slot, after its pause.
    Replace,
    /// The server has nothing to serve with (S11).
    FailStart,
    /// The old generation serves on (S46).
    FailReload,
    /// The old program comes back (S53).
    RollBack,
    /// Nobody follows.
    Leave,
}

fn cause_of(place: &Place, status: Status, oom: Oom) -> Cause {
    match place.state {
        State::Aborting { why, .. } => why,
        State::Draining { why, .. } if status == Status::Exited(0) => why,
        // Not by us: then it would be aborting.
        _ if oom == Oom::Yes && matches!(status, Status::Signaled { signal: 9, .. }) => Cause::Oom,
        State::Booting { .. } => match place.failure {
            Some((Stage::Load, _)) => Cause::Load,
            Some((Stage::Boot, _)) => Cause::Boot,
            None => Cause::of_boot(status),
        },
        State::Empty
        | State::Waiting { .. }
        | State::Ready { .. }
        | State::Standby
        | State::Draining { .. } => Cause::of(status),
    }
}

fn ending_of(cause: Cause) -> Ending {
    if cause == Cause::Load { Ending::Load } else { Ending::Boot }
}

//! Beats and their ladder (S36), the supervisor's own gaps (S39), and the way back from degraded (S28).

use std::time::{Duration, Instant};

use super::cause::Cause;
use super::event::{Blow, Command, Notice, SlotNumber};
use super::place::State;
use super::recycle::Size;
use super::{Lifecycle, Phase};

impl Lifecycle {
    /// The supervisor itself was stopped, or the machine slept: no worker pays for it.
    pub(super) fn forgive_own_gap(&mut self, now: Instant) {
        let Some(due) = self.deadline() else { return };
        let gap = now.saturating_duration_since(due);
        if gap <= LATEST_TICK {
            return;
        }
        self.forgiven = now;
        for place in &mut self.places {
            if let State::Booting { since } = &mut place.state {
                *since += gap;
            }
        }
    }

    /// Judges a beat. Only of a worker that is READY: a long boot is no hang (S39a).
    pub(super) fn seen(
        &mut self,
        slot: SlotNumber,
        (beat_age, is_stopped): (Duration, bool),
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let (timeout, abort_grace, forgiven) =
            (self.limits.timeout, self.limits.abort_grace, self.forgiven);
        let Some(place) = self.place(slot) else { return };
        let State::Ready { is_slow } = place.state else { return };
        let since = place.ready_since.map_or(forgiven, |ready| ready.max(forgiven));
        let beat_age = beat_age.min(now - since);
        if timeout.is_zero() {
            return;
        }
        if beat_age >= timeout {
            let why = if is_stopped { Cause::Stopped } else { Cause::Heartbeat };
            place.state = State::Aborting { kill_at: Some(now + abort_grace), why };
            out.push(Command::Emit(Notice::WorkerStuck { slot, beat_age, why }));
            out.push(Command::Kill { slot, how: Blow::Abort });
            return;
        }
        let was_slow = is_slow;
        let is_slow = beat_age >= timeout / 2;
        place.state = State::Ready { is_slow };
        if is_slow && !was_slow {
            out.push(Command::Emit(Notice::WorkerSlow { slot, beat_age }));
        }
    }

    /// Judges whether a worker takes the connections that wait (S38): the same ladder as for its beat.
    pub(super) fn seen_idle(
        &mut self,
        slot: SlotNumber,
        is_idle_acceptor: bool,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let (timeout, abort_grace) = (self.limits.timeout, self.limits.abort_grace);
        let (forgiven, is_paused) = (self.forgiven, self.is_paused);
        let Some(place) = self.place(slot) else { return };
        if !is_idle_acceptor || is_paused || timeout.is_zero() || !place.is_ready() {
            place.stalled_since = None;
            return;
        }
        let since = (*place.stalled_since.get_or_insert(now)).max(forgiven);
        let age = now.saturating_duration_since(since);
        if age >= timeout {
            let why = Cause::AcceptStalled;
            place.state = State::Aborting { kill_at: Some(now + abort_grace), why };
            out.push(Command::Emit(Notice::WorkerStuck { slot, beat_age: age, why }));
            out.push(Command::Kill { slot, how: Blow::Abort });
        }
    }

    /// Judges what a worker has become: too big or too old (S31, S33).
    pub(super) fn seen_grown(
        &mut self,
        slot: SlotNumber,
        private_bytes: Option<u64>,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let size = private_bytes.map(|bytes| self.limits.judge_size(bytes));
        let lifetime = self.limits.lifetime_of(slot);
        let bounds = self.drain_bounds();
        let Some(place) = self.place(slot) else { return };
        let (State::Ready { .. }, true, Some(ready)) =
            (place.state, place.is_member, place.ready_since)
        else {
            return;
        };
        match size {
            Some(Size::Hard) => {
                return super::dismiss(slot, place, Cause::MaxMemoryHard, bounds, now, out);
            }
            Some(Size::Soft) => place.oversize += 1,
            Some(Size::Fine) => place.oversize = 0,
            None => {}
        }
        if place.oversize >= 2 {
            self.want_recycle(slot, Cause::MaxMemory, now, out);
        } else if lifetime.is_some_and(|lifetime| now - ready >= lifetime) {
            self.want_recycle(slot, Cause::Lifetime, now, out);
        }
    }

    /// When the server is not degraded any more, if all stay.
    pub(super) fn recovery(&self) -> Option<Instant> {
        self.full_since.filter(|_| self.is_degraded).map(|since| since + RECOVERY)
    }

    /// When the server gives up if no worker comes to serve.
    pub(super) fn surrender(&self) -> Option<Instant> {
        self.empty_since.map(|since| since + self.limits.give_up)
    }

    fn judge_emptiness(&mut self, now: Instant, out: &mut Vec<Command>) {
        let give_up = self.limits.give_up;
        if give_up.is_zero()
            || self.places.iter().any(|place| place.ready_since.is_some() && place.is_alive())
        {
            self.empty_since = None;
            return;
        }
        let since = *self.empty_since.get_or_insert(now);
        if now - since >= give_up {
            self.empty_since = None;
            self.give_up(give_up, now, out);
        }
    }

    /// Whether all are there, for how long, and what that means.
    pub(super) fn judge_fullness(&mut self, now: Instant, out: &mut Vec<Command>) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        self.judge_emptiness(now, out);
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        if self.ready_workers() < self.target {
            self.full_since = None;
            let is_overdue = self.places.iter().any(|place| {
                matches!(place.state, State::Waiting { .. })
                    && place.down_since.is_some_and(|since| now - since > LONGEST_VACANCY)
            });
            if is_overdue {
                self.degrade(now, out);
            }
            return;
        }
        let since = *self.full_since.get_or_insert(now);
        if self.is_degraded && now - since >= RECOVERY {
            self.is_degraded = false;
            self.budget.clear();
            out.push(Command::Emit(Notice::Recovered { ready: self.target }));
        }
    }
}

/// How long all must be ready together for the server not to be degraded any more.
const RECOVERY: Duration = Duration::from_secs(10);
const LATEST_TICK: Duration = Duration::from_secs(1);
const LONGEST_VACANCY: Duration = Duration::from_secs(10);

//! Beats and their ladder (S36), the supervisor's own gaps (S39), and the way back from degraded (S28).

use std::time::{Duration, Instant};

use super::cause::Cause;
use super::event::{Blow, Command, Notice, SlotNumber};
use super::place::State;
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
        beat_age: Duration,
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
            place.state =
                State::Aborting { kill_at: Some(now + abort_grace), why: Cause::Heartbeat };
            out.push(Command::Emit(Notice::WorkerStuck { slot, beat_age }));
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

    /// When the server is not degraded any more, if all stay.
    pub(super) fn recovery(&self) -> Option<Instant> {
        self.full_since.filter(|_| self.is_degraded).map(|since| since + RECOVERY)
    }

    /// Whether all are there, for how long, and what that means.
    pub(super) fn judge_fullness(&mut self, now: Instant, out: &mut Vec<Command>) {
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

//! One slot as the life cycle sees it.

use std::time::{Duration, Instant};

use super::cause::{Cause, Stage};
use super::event::QueueNumber;

/// Where the worker of a slot is in its life.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum State {
    /// Nobody lives here and nobody is to come.
    Empty,
    /// The worker died; the next one comes at `until`.
    Waiting { until: Instant },
    /// Forked, not READY.
    Booting { since: Instant },
    /// Serves. `is_slow`: it was warned about and has not beaten since.
    Ready { is_slow: bool },
    /// Serves the connections it has, in case those that follow it fail (S53). It accepts none, but from a queue of its own that
    /// none of them has.
    Standby,
    /// Was asked to go, and is killed at `kill_at`. `has_stopped`: it accepts nobody any more.
    Draining { since: Instant, kill_at: Instant, why: Cause, has_stopped: bool },
    /// Was told to end at once; `kill_at` is when it is killed, none when it was.
    Aborting { kill_at: Option<Instant>, why: Cause },
}

#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) state: State,
    pub(crate) generation: u64,
    /// Its worker counts among the configured ones, and is replaced here when it dies.
    pub(crate) is_member: bool,
    /// Which accept queue is its own, where each worker has one (`queues.rs`).
    pub(crate) queue: QueueNumber,
    pub(crate) born: Instant,
    /// When it said READY; none while it boots.
    pub(crate) ready_since: Option<Instant>,
    /// Deaths in a row, for the backoff.
    pub(crate) failures: u32,
    /// Since when an unplanned death has left this place without a ready worker.
    pub(crate) down_since: Option<Instant>,
    /// What the worker said on failing to boot.
    pub(crate) failure: Option<(Stage, String)>,
    /// Connections it cut, as it said.
    pub(crate) forced: u64,
    /// Samples in a row that were over `max_memory`.
    pub(crate) oversize: u32,
    /// Since when connections wait that it does not take.
    pub(crate) stalled_since: Option<Instant>,
}

impl Place {
    pub(crate) fn empty(now: Instant) -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            is_member: false,
            queue: QueueNumber(0),
            born: now,
            ready_since: None,
            failures: 0,
            down_since: None,
            failure: None,
            forced: 0,
            oversize: 0,
            stalled_since: None,
        }
    }

    /// A process lives here.
    pub(crate) fn is_alive(&self) -> bool {
        match self.state {
            State::Empty | State::Waiting { .. } => false,
            State::Booting { .. }
            | State::Ready { .. }
            | State::Standby
            | State::Draining { .. }
            | State::Aborting { .. } => true,
        }
    }

    /// A process of `generation` is forked here now.
    pub(crate) fn be_born(&mut self, generation: u64, now: Instant) {
        self.generation = generation;
        self.state = State::Booting { since: now };
        self.born = now;
        self.ready_since = None;
        self.failure = None;
        self.forced = 0;
        self.oversize = 0;
        self.stalled_since = None;
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// It belongs to the workers of `generation` that are wanted.
    pub(crate) fn is_member_of(&self, generation: u64) -> bool {
        self.is_member && self.generation == generation
    }

    pub(crate) fn vacate(&mut self) {
        self.state = State::Empty;
        self.is_member = false;
        self.failures = 0;
        self.down_since = None;
    }

    /// When something must happen here if nothing else does.
    pub(crate) fn deadline(&self, boot_timeout: Duration) -> Option<Instant> {
        match self.state {
            State::Empty | State::Ready { .. } | State::Standby => None,
            State::Waiting { until } => Some(until),
            State::Booting { since } => Some(since + boot_timeout),
            State::Draining { kill_at, .. } => Some(kill_at),
            State::Aborting { kill_at, .. } => kill_at,
        }
    }
}

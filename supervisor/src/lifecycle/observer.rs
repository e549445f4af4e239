//! The observer's life: one at a time, replaced without end, never a reason to stop serving (S35, O4-O7).

use std::time::{Duration, Instant};

use super::cause::Status;
use super::event::{Command, Notice};

#[derive(Clone, Debug)]
pub(crate) struct ObserverLife {
    state: State,
    failures: u32,
}

#[derive(Copy, Clone, Debug)]
enum State {
    Absent,
    Waiting {
        until: Instant,
    },
    Running {
        since: Instant,
    },
    /// Told to end, for another that is configured otherwise.
    Replacing {
        kill_at: Option<Instant>,
    },
    /// Told to end; `kill_at` is none once it was killed.
    Stopping {
        kill_at: Option<Instant>,
    },
}

impl ObserverLife {
    pub(crate) fn absent() -> Self {
        Self { state: State::Absent, failures: 0 }
    }

    pub(crate) fn start(&mut self, now: Instant, out: &mut Vec<Command>) {
        self.state = State::Running { since: now };
        out.push(Command::ForkObserver);
    }

    pub(crate) fn is_running(&self) -> bool {
        match self.state {
            State::Absent | State::Waiting { .. } => false,
            State::Running { .. } | State::Replacing { .. } | State::Stopping { .. } => true,
        }
    }

    /// As the image before has left it: alive, or to be forked.
    pub(crate) fn adopt(&mut self, is_running: bool, now: Instant) {
        self.state =
            if is_running { State::Running { since: now } } else { State::Waiting { until: now } };
    }

    pub(crate) fn tick(&mut self, now: Instant, out: &mut Vec<Command>) {
        match self.state {
            State::Waiting { until } if until <= now => self.start(now, out),
            State::Stopping { kill_at: Some(kill_at) } if kill_at <= now => self.kill(out),
            State::Replacing { kill_at: Some(kill_at) } if kill_at <= now => {
                self.state = State::Replacing { kill_at: None };
                out.push(Command::KillObserver);
            }
            State::Absent
            | State::Waiting { .. }
            | State::Running { .. }
            | State::Replacing { .. }
            | State::Stopping { .. } => {}
        }
    }

    pub(crate) fn seen(&mut self, beat_age: Duration, out: &mut Vec<Command>) {
        match self.state {
            State::Running { .. } if beat_age >= LONGEST_SILENCE => self.kill(out),
            State::Absent
            | State::Waiting { .. }
            | State::Running { .. }
            | State::Replacing { .. }
            | State::Stopping { .. } => {}
        }
    }

    /// It was reaped. A silent one that was killed is replaced like one that died.
    pub(crate) fn exited(
        &mut self,
        status: Status,
        end: ServerEnd,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        match end {
            ServerEnd::Near => self.state = State::Absent,
            ServerEnd::Far if matches!(self.state, State::Replacing { .. }) => self.start(now, out),
            ServerEnd::Far => {
                let next_try = self.wait(now);
                out.push(Command::Emit(Notice::ObserverDied { status, next_try }));
            }
        }
    }

    pub(crate) fn fork_failed(&mut self, end: ServerEnd, now: Instant, out: &mut Vec<Command>) {
        match end {
            ServerEnd::Near => self.state = State::Absent,
            ServerEnd::Far => {
                let next_try = self.wait(now);
                out.push(Command::Emit(Notice::ObserverForkFailed { next_try }));
            }
        }
    }

    /// Another one is to run, with other settings: the rings hold what happens in between.
    pub(crate) fn replace(&mut self, now: Instant, out: &mut Vec<Command>) {
        if matches!(self.state, State::Running { .. }) {
            self.state = State::Replacing { kill_at: Some(now + STOP_TIME) };
            out.push(Command::StopObserver);
        }
    }

    /// The workers are gone: let it read what they left, and end.
    pub(crate) fn stop(&mut self, now: Instant, out: &mut Vec<Command>) {
        match self.state {
            State::Waiting { .. } => self.state = State::Absent,
            State::Running { .. } => {
                self.state = State::Stopping { kill_at: Some(now + STOP_TIME) };
                out.push(Command::StopObserver);
            }
            State::Replacing { kill_at } => self.state = State::Stopping { kill_at },
            // Or it was killed for its silence and is about to be reaped.
            State::Absent | State::Stopping { .. } => {}
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.state, State::Absent)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Absent | State::Running { .. } => None,
            State::Waiting { until } => Some(until),
            State::Stopping { kill_at } | State::Replacing { kill_at } => kill_at,
        }
    }

    fn kill(&mut self, out: &mut Vec<Command>) {
        self.state = State::Stopping { kill_at: None };
        out.push(Command::KillObserver);
    }

    fn wait(&mut self, now: Instant) -> Duration {
        if let State::Running { since } = self.state
            && now - since >= Duration::from_mins(1)
        {
            self.failures = 0;
        }
        let next_try =
            (FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(10))).min(LONGEST_PAUSE);
        self.failures += 1;
        self.state = State::Waiting { until: now + next_try };
        next_try
    }
}

/// Whether the server has come to the step of its stop at which the observer leaves.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum ServerEnd {
    Near,
    Far,
}

const LONGEST_SILENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The observer ends itself 2.0 s after `q` (O4).
pub(crate) const STOP_TIME: Duration = Duration::from_secs(3);

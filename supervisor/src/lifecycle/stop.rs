//! The end of the server (S40): a delay, the drain, the observer, the exit.

use std::time::{Duration, Instant};

use super::asked::{Origin, Stop};
use super::cause::Cause;
use super::event::{Answer, Command, Ending, Notice};
use super::observer::ServerEnd;
use super::orders::tell;
use super::place::State;
use super::{Lifecycle, Phase, kill, numbered};
use crate::Exit;

#[derive(Clone, Debug)]
pub(super) struct Stopping {
    since: Instant,
    ending: Ending,
    step: Step,
    /// Connections cut so far.
    forced: u64,
}

#[derive(Copy, Clone, Debug)]
enum Step {
    /// Full service, so that whoever sends traffic here can look elsewhere.
    Delay { until: Instant },
    /// Workers finish; `is_closed`: the supervisor's copies of the listeners are closed.
    Drain { is_closed: bool },
    /// No worker lives; the observer reads what they left.
    Observer,
}

impl Stopping {
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.step {
            Step::Delay { until } => Some(until),
            Step::Drain { .. } | Step::Observer => None,
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.step, Step::Delay { .. })
    }
}

impl Lifecycle {
    pub(super) fn stop(&mut self, how: Stop, from: Origin, now: Instant, out: &mut Vec<Command>) {
        tell(from.client.as_slice(), &Answer::Done, out);
        match &self.phase {
            Phase::New => {
                self.phase = Phase::Ended;
                out.push(Command::Exit(Ending::Asked));
            }
            Phase::Starting { .. } | Phase::Running => {
                out.push(Command::Emit(Notice::Stopping { how, from }));
                let delay = match how {
                    Stop::Graceful => self.limits.pre_stop_delay,
                    Stop::Quick => Duration::ZERO,
                };
                self.begin_stop(Ending::Asked, Step::Delay { until: now + delay }, now, out);
                match how {
                    Stop::Graceful => self.advance_stop(now, out),
                    Stop::Quick => self.quit(now, out),
                }
            }
            // The second request is quick, whatever it was.
            Phase::Stopping(Stopping { step: Step::Delay { .. } | Step::Drain { .. }, .. }) => {
                out.push(Command::Emit(Notice::Stopping { how: Stop::Quick, from }));
                self.quit(now, out);
            }
            Phase::Stopping(Stopping { step: Step::Observer, .. }) | Phase::Ended => {}
        }
    }

    /// Nothing is served yet: all go at once, and the first cause is the only one reported (S11).
    pub(super) fn fail_start(&mut self, ending: Ending, now: Instant, out: &mut Vec<Command>) {
        self.begin_stop(ending, Step::Drain { is_closed: false }, now, out);
        for (slot, place) in numbered(&mut self.places) {
            place.is_member = false;
            match place.state {
                State::Booting { .. }
                | State::Ready { .. }
                | State::Standby
                | State::Draining { .. } => {
                    kill(slot, place, Cause::Stop, out);
                }
                State::Empty | State::Waiting { .. } => place.vacate(),
                State::Aborting { .. } => {}
            }
        }
    }

    /// Takes the next step of the stop if the present one is done.
    pub(super) fn advance_stop(&mut self, now: Instant, out: &mut Vec<Command>) {
        if let Phase::Stopping(Stopping { step: Step::Delay { until }, .. }) = self.phase
            && until <= now
        {
            self.set_step(Step::Drain { is_closed: false });
            self.drain_all(now, out);
        }
        if let Phase::Stopping(Stopping { step: Step::Drain { is_closed: false }, .. }) = self.phase
            && !self.places.iter().any(|place| accepts(place.state))
        {
            self.set_step(Step::Drain { is_closed: true });
            out.push(Command::CloseListeners);
        }
        if let Phase::Stopping(Stopping {
            step: Step::Drain { is_closed: true },
            since,
            forced,
            ..
        }) = self.phase
            && !self.places.iter().any(super::place::Place::is_alive)
        {
            self.set_step(Step::Observer);
            out.push(Command::Emit(Notice::Stopped { forced, duration: now - since }));
            self.observer.stop(now, out);
        }
        if let Phase::Stopping(Stopping { step: Step::Observer, ending, .. }) = self.phase
            && self.observer.is_absent()
        {
            self.phase = Phase::Ended;
            out.push(Command::Exit(ending));
        }
    }

    pub(super) fn add_forced(&mut self, cut: u64) {
        if let Phase::Stopping(stopping) = &mut self.phase {
            stopping.forced += cut;
        }
    }

    /// Where the observer's death leads.
    pub(super) fn end(&self) -> ServerEnd {
        match &self.phase {
            Phase::Stopping(Stopping { step: Step::Observer, .. }) | Phase::Ended => {
                ServerEnd::Near
            }
            Phase::New | Phase::Starting { .. } | Phase::Running | Phase::Stopping(_) => {
                ServerEnd::Far
            }
        }
    }

    /// No worker has lived for longer than the operator wants to wait (S29).
    pub(super) fn give_up(&mut self, after: Duration, now: Instant, out: &mut Vec<Command>) {
        out.push(Command::Emit(Notice::GivenUp { after }));
        self.fail_start(Ending::Boot, now, out);
    }

    fn begin_stop(&mut self, ending: Ending, step: Step, now: Instant, out: &mut Vec<Command>) {
        self.phase = Phase::Stopping(Stopping { since: now, ending, step, forced: 0 });
        if let Some(again) = self.again.take() {
            let why = "the server stops".to_owned();
            tell(&again.clients, &Answer::Refused { exit: Exit::Busy, why }, out);
        }
        self.abandon_upgrade(now, out);
        self.fail_reload(Cause::Stop, None, now, out);
        self.recycling.forget();
    }

    fn set_step(&mut self, next: Step) {
        if let Phase::Stopping(Stopping { step, .. }) = &mut self.phase {
            *step = next;
        }
    }

    fn drain_all(&mut self, now: Instant, out: &mut Vec<Command>) {
        let patience = self.limits.graceful_timeout;
        let fuse = now + patience + self.limits.abort_grace;
        for (slot, place) in numbered(&mut self.places) {
            place.is_member = false;
            let why = Cause::Stop;
            match &mut place.state {
                State::Empty | State::Waiting { .. } => place.vacate(),
                State::Booting { .. } => kill(slot, place, why, out),
                State::Ready { .. } | State::Standby => {
                    place.state =
                        State::Draining { since: now, kill_at: fuse, why, has_stopped: false };
                    out.push(Command::Stop { slot, deadline: patience, idle: LINGER });
                }
                // It drains for a reload and would wait for its idle connections: not any more.
                State::Draining { kill_at, .. } => {
                    *kill_at = fuse.min(*kill_at);
                    let deadline = kill_at.saturating_duration_since(now + self.limits.abort_grace);
                    out.push(Command::Stop { slot, deadline, idle: LINGER });
                }
                State::Aborting { .. } => {}
            }
        }
    }

    fn quit(&mut self, now: Instant, out: &mut Vec<Command>) {
        if !matches!(
            self.phase,
            Phase::Stopping(Stopping { step: Step::Drain { is_closed: true }, .. })
        ) {
            out.push(Command::CloseListeners);
        }
        self.set_step(Step::Drain { is_closed: true });
        let fuse = now + QUIT_TIME;
        for (slot, place) in numbered(&mut self.places) {
            place.is_member = false;
            match &mut place.state {
                State::Empty | State::Waiting { .. } => place.vacate(),
                State::Booting { .. } => kill(slot, place, Cause::Quit, out),
                State::Ready { .. } | State::Standby | State::Draining { .. } => {
                    place.state = State::Aborting { kill_at: Some(fuse), why: Cause::Quit };
                    out.push(Command::Quit(slot));
                }
                State::Aborting { kill_at: Some(kill_at), .. } => *kill_at = fuse.min(*kill_at),
                State::Aborting { kill_at: None, .. } => {}
            }
        }
    }
}

/// Whether a worker in this state may still take a new connection.
fn accepts(state: State) -> bool {
    match state {
        State::Booting { .. } | State::Ready { .. } | State::Standby => true,
        State::Draining { has_stopped, .. } => !has_stopped,
        State::Empty | State::Waiting { .. } | State::Aborting { .. } => false,
    }
}

/// How long a connection may idle in a draining server before it is closed.
const LINGER: Duration = Duration::from_millis(300);
const QUIT_TIME: Duration = Duration::from_secs(2);

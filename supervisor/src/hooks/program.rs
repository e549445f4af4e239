//! The hook program (S69): told of each event by a run of its own, never waited for, never more than four at once.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Something that a hook hears of.
#[derive(Clone, Default, Debug)]
pub(crate) struct Call {
    pub(crate) event: &'static str,
    pub(crate) worker: Option<u32>,
    pub(crate) pid: Option<u32>,
    pub(crate) cause: Option<&'static str>,
    pub(crate) status: Option<String>,
    pub(crate) generation: Option<u64>,
}

/// Those that run, and those that wait.
#[derive(Debug)]
pub(crate) struct Program {
    path: Option<PathBuf>,
    running: Vec<Running>,
    waiting: VecDeque<Call>,
    dropped: u64,
}

#[derive(Debug)]
struct Running {
    pid: u32,
    event: &'static str,
    since: Instant,
}

/// What a reaped child was.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum Whose {
    /// No hook.
    Stranger,
    Done,
    Failed(Failure),
}

/// A run that did not go well: the event, and why.
pub(crate) type Failure = (&'static str, String);

impl Program {
    pub(crate) fn new(program: Option<PathBuf>) -> Self {
        Self { path: program, running: Vec::new(), waiting: VecDeque::new(), dropped: 0 }
    }

    /// Another program from now on.
    pub(crate) fn change(&mut self, program: Option<PathBuf>) {
        self.path = program;
    }

    /// Runs it now or soon; beyond 64 that wait it is dropped and counted.
    pub(crate) fn call(&mut self, call: Call) {
        if self.path.is_none() {
            return;
        }
        if self.waiting.len() >= MOST_WAITING {
            self.dropped += 1;
        } else {
            self.waiting.push_back(call);
        }
    }

    /// A child was reaped: says whether it was one of these, and what went wrong with it.
    pub(crate) fn reaped(&mut self, pid: u32, is_success: bool) -> Whose {
        let Some(at) = self.running.iter().position(|running| running.pid == pid) else {
            return Whose::Stranger;
        };
        let Running { event, .. } = self.running.swap_remove(at);
        if is_success { Whose::Done } else { Whose::Failed((event, "it has failed".to_owned())) }
    }

    /// Starts what may start, and ends what takes too long.
    pub(crate) fn turn(&mut self, now: Instant) -> Vec<Failure> {
        let mut failures = Vec::new();
        for running in &self.running {
            if now.saturating_duration_since(running.since) > LONGEST_RUN
                && let Ok(pid) = i32::try_from(running.pid)
            {
                // It was not reaped, so the pid is its own.
                let _dead = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        while self.running.len() < MOST_RUNNING
            && let (Some(program), Some(call)) = (&self.path, self.waiting.pop_front())
        {
            match command(program, &call).spawn() {
                Ok(child) => {
                    self.running.push(Running { pid: child.id(), event: call.event, since: now });
                }
                Err(error) => failures.push((call.event, error.to_string())),
            }
        }
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            failures.push(("queue", format!("{dropped} events were dropped")));
        }
        failures
    }
}

/// With an environment of its own. The standard library gives it an empty signal mask and the default SIGPIPE.
fn command(program: &PathBuf, call: &Call) -> Command {
    let mut command = Command::new(program);
    command.arg(call.event).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("SAOLA_EVENT", call.event);
    let text = |number: Option<u64>| number.map(|number| number.to_string());
    let variables = [
        ("SAOLA_WORKER", text(call.worker.map(u64::from))),
        ("SAOLA_PID", text(call.pid.map(u64::from))),
        ("SAOLA_CAUSE", call.cause.map(str::to_owned)),
        ("SAOLA_STATUS", call.status.clone()),
        ("SAOLA_GENERATION", text(call.generation)),
    ];
    for (name, value) in variables {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

const MOST_RUNNING: usize = 4;
const MOST_WAITING: usize = 64;
const LONGEST_RUN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_missing_is_a_failure_and_a_flood_is_counted() {
        let mut hooks = Program::new(Some(PathBuf::from("/nowhere/hook")));
        for _ in 0..100 {
            hooks.call(Call { event: "worker_ready", ..Call::default() });
        }
        let failures = hooks.turn(Instant::now());
        assert_eq!(failures.len(), MOST_WAITING + 1);
        assert_eq!(failures.last().map(|(_, why)| why.as_str()), Some("36 events were dropped"));
        assert_eq!(hooks.reaped(1, true), Whose::Stranger);
    }

    #[test]
    fn without_a_program_nothing_is_kept() {
        let mut hooks = Program::new(None);
        hooks.call(Call { event: "on_exit", ..Call::default() });
        assert!(hooks.turn(Instant::now()).is_empty() && hooks.waiting.is_empty());
    }
}

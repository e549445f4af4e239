//! What an application may do when something happens to its server (S68): called in the supervisor's loop, watched, and
//! never able to stop it. The program of `hook` is in `program.rs`.

mod program;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

pub(crate) use program::{Call, Program, Whose};

/// Hears of what happens to the server. Every method does nothing unless it is written.
///
/// All but [`Hooks::post_fork`] run in the supervisor, between two of its decisions: they must be quick (10 ms; a slower one is
/// warned about by name) and may start no thread, for a process with two threads cannot fork. A panic is logged and changes
/// nothing else.
pub trait Hooks {
    /// Everything is bound; nothing is forked.
    fn on_starting(&mut self) {}

    /// All workers of the first generation serve.
    fn when_ready(&mut self) {}

    /// A worker is about to be forked into a slot.
    fn pre_fork(&mut self, slot: u32) {
        let _ = slot;
    }

    /// In the worker, before the application is made. A panic is a boot failure.
    fn post_fork(&mut self, slot: u32) {
        let _ = slot;
    }

    /// A worker serves.
    fn worker_ready(&mut self, slot: u32) {
        let _ = slot;
    }

    /// A worker has ended, however that came.
    fn child_exit(&mut self, exit: &WorkerExit) {
        let _ = exit;
    }

    /// A reload has begun.
    fn on_reload(&mut self) {}

    /// Another program is about to run in the place of this one; this object ends with it.
    fn pre_exec(&mut self) {}

    /// There are to be more or fewer workers.
    fn workers_changed(&mut self, old: u32, new: u32) {
        let _ = (old, new);
    }

    /// The server has stopped; no worker lives.
    fn on_exit(&mut self) {}
}

/// How a worker has ended.
#[derive(Clone, Debug)]
pub struct WorkerExit {
    /// The slot it lived in.
    pub slot: u32,
    /// Its pid, which is free now.
    pub pid: u32,
    /// The generation it belonged to.
    pub generation: u64,
    /// Why, as the line `worker died` or `worker drained` says it: `signal`, `heartbeat`, `oom`, `reload` …
    pub cause: &'static str,
    /// What the system says.
    pub status: Ended,
    /// The most memory it had, in bytes.
    pub max_rss_bytes: u64,
    /// Time on a processor, in its own code and in the kernel's.
    pub cpu_time: Duration,
}

/// How a process has ended.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Ended {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// What was wrong with a call.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum Trouble {
    Panicked,
    Slow(Duration),
}

/// Calls a hook, and says what was wrong with it.
pub(crate) fn call(
    hooks: &mut (dyn Hooks + 'static),
    hook: impl FnOnce(&mut (dyn Hooks + 'static)),
) -> Option<Trouble> {
    let begun = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| hook(hooks)));
    let took = begun.elapsed();
    match result {
        Err(_its_message_is_on_stderr) => Some(Trouble::Panicked),
        Ok(()) if took > LONGEST => Some(Trouble::Slow(took)),
        Ok(()) => None,
    }
}

/// The loop blocks for no longer (S1).
const LONGEST: Duration = Duration::from_millis(10);

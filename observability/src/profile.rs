//! The sampling profiler of a worker: each thread has a timer on its own CPU clock, and the handler of its signal writes
//! where the thread is, and for which request, into the sample ring of the slot.
//!
//! An idle thread costs nothing, because its clock stands still. A thread that burns CPU is interrupted `hz` times a
//! second of it, for a few microseconds. What a sample is good for is decided later, by whoever reads the ring.

mod handler;
pub mod stack;

use std::cell::RefCell;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::{Pid, getpid, gettid};

pub use crate::in_flight::label::{Entered, Label, OwnLabel, enter_none};
use crate::slot::Slot;

/// The most samples a second of CPU time: a CPU clock's timer fires once a kernel tick at most, 250 a second on most
/// systems, so that more would only be counted as overruns.
pub const MOST_HZ: u32 = 250;

/// Samples a second of CPU time; 0 is off.
static HZ: AtomicU32 = AtomicU32::new(0);

/// Makes samples of this process go into its slot from now on; call it in a worker that was just forked. Each thread
/// then has to be watched: [`watch_thread`].
///
/// `hz` is samples a second of CPU time, at most [`MOST_HZ`]; 0 does nothing. On machines other than x86-64 and aarch64,
/// whose stacks nobody here can walk, it does nothing either.
///
/// # Errors
///
/// What the kernel said to the signal handler.
pub fn start(slot: &'static Slot, hz: u32) -> io::Result<()> {
    if hz == 0 || !stack::IS_KNOWN {
        return Ok(());
    }
    handler::install(slot)?;
    HZ.store(hz.min(MOST_HZ), Relaxed);
    Ok(())
}

/// Has this thread sampled until it ends. Does nothing unless the profiler was started; a thread that cannot have a timer
/// is not sampled.
pub fn watch_thread() {
    let hz = HZ.load(Relaxed);
    if hz == 0 {
        return;
    }
    handler::know_thread();
    // What the kernel refuses (too many timers, RLIMIT_SIGPENDING) costs samples, never a thread.
    let watched = timer(hz).ok().map(|timer| Watched { timer: Some(timer), process: getpid() });
    WATCHED.with(|kept| *kept.borrow_mut() = watched);
}

/// Ends sampling in this thread, and has late signals ignored: their default would end the process. For the way to the
/// exit.
pub fn stop() {
    HZ.store(0, Relaxed);
    WATCHED.with(|kept| kept.borrow_mut().take());
    handler::ignore();
}

thread_local! {
    static WATCHED: RefCell<Option<Watched>> = const { RefCell::new(None) };
}

/// A thread's timer, deleted when the thread ends.
struct Watched {
    timer: Option<Timer>,
    process: Pid,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A forked child has no timers (timer_create(2)); deleting one that is not there is a bug to `Timer`.
        if getpid() != self.process {
            let _not_ours = self.timer.take().map(ManuallyDrop::new);
        }
    }
}

fn timer(hz: u32) -> nix::Result<Timer> {
    let event = SigEvent::new(SigevNotify::SigevThreadId {
        signal: Signal::SIGPROF,
        thread_id: gettid().as_raw(),
        si_value: 0,
    });
    let mut timer = Timer::new(ClockId::CLOCK_THREAD_CPUTIME_ID, event)?;
    let period = TimeSpec::from(Duration::from_secs(1) / hz);
    timer.set(Expiration::Interval(period), TimerSetTimeFlags::empty())?;
    Ok(timer)
}

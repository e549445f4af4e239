//! The reaping of the dead.

use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use crate::lifecycle::cause::Status;

/// A child that was reaped.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Reaped {
    pub(crate) pid: u32,
    pub(crate) status: Status,
    pub(crate) max_rss_bytes: u64,
    /// Of its own code and of the kernel for it.
    pub(crate) cpu_time: Duration,
}

/// Reaps one dead child, known or not; none if nobody is dead. Call until none is left: one CHLD may stand for many.
pub(crate) fn reap() -> Option<Reaped> {
    loop {
        match wait_for_any() {
            Ok((0, ..)) => return None,
            Ok((pid, status, usage)) => {
                let Some(status) = decode(status) else { continue };
                let max_rss_bytes = u64::try_from(usage.ru_maxrss).unwrap_or_default() * 1024;
                let cpu_time = time(usage.ru_utime) + time(usage.ru_stime);
                return Some(Reaped { pid: pid.unsigned_abs(), status, max_rss_bytes, cpu_time });
            }
            Err(Errno::EINTR) => {}
            Err(_no_children) => return None,
        }
    }
}

/// Not nix's `waitpid`: it cannot say that a real-time signal ended a child, and would lose the child for it.
#[expect(unsafe_code, reason = "nix has no wait4")]
fn wait_for_any() -> nix::Result<(i32, i32, libc::rusage)> {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: wait4(2) writes to the two places, which are ours and live until it returns.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    // SAFETY: assume_init wants a valid value: all zeros are one for a struct of integers, and wait4 wrote another or none.
    let usage = unsafe { usage.assume_init() };
    Errno::result(pid).map(|pid| (pid, status, usage))
}

fn time(time: libc::timeval) -> Duration {
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_micros(part(time.tv_usec))
}

/// None for a child that was only stopped or continued.
fn decode(status: i32) -> Option<Status> {
    if libc::WIFEXITED(status) {
        Some(Status::Exited(libc::WEXITSTATUS(status)))
    } else if libc::WIFSIGNALED(status) {
        Some(Status::Signaled { signal: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) })
    } else {
        None
    }
}

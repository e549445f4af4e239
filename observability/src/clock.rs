//! The two clocks of every record: monotonic for durations and ages, wall for what people read.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`: since boot, never stepped, equal in every process of the machine.
pub fn monotonic_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Nanoseconds of `CLOCK_REALTIME` since 1970-01-01 UTC. May step; never subtract two of them.
pub fn wall_ns() -> u64 {
    read(ClockId::CLOCK_REALTIME)
}

/// The wall clock as this process last looked at it: at its last heartbeat or request. For what must not cost a look.
#[inline]
pub(crate) fn recent_wall_ns() -> u64 {
    match RECENT_WALL_NS.load(Relaxed) {
        0 => first_wall_ns(),
        recent => recent,
    }
}

/// The look of a process that has no heartbeat and no requests: a test, a tool.
#[cold]
#[inline(never)]
fn first_wall_ns() -> u64 {
    wall_ns()
}

/// Keeps a look at the wall clock for [`recent_wall_ns`].
pub(crate) fn keep_wall_ns(now_ns: u64) {
    RECENT_WALL_NS.store(now_ns, Relaxed);
}

static RECENT_WALL_NS: AtomicU64 = AtomicU64::new(0);

fn read(clock: ClockId) -> u64 {
    // The two clocks exist on every Linux; a failing read would mean a broken kernel, and 0 is "unknown" to readers.
    clock_gettime(clock).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
        seconds * 1_000_000_000 + nanoseconds
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_does_not_go_back() {
        let first = monotonic_ns();
        assert!(first > 0 && monotonic_ns() >= first);
        assert!(wall_ns() > 1_700_000_000_000_000_000);
    }
}

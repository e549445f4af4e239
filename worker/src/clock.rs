//! One look at the clock for everything that happens at once: tokio's instant, which the deadlines are kept by, and the
//! same moment in the nanoseconds of the records.

use std::cell::Cell;

use saola_observability::clock::{monotonic_ns, wall_ns};
use tokio::time::Instant;

/// Turns instants into the two clocks of a record.
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    origin_ns: u64,
    /// The wall clock less the monotonic one, when last compared.
    wall_ahead_ns: Cell<u64>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let origin_ns = monotonic_ns();
        let wall_ahead_ns = Cell::new(wall_ns().wrapping_sub(origin_ns));
        Self { origin: Instant::now(), origin_ns, wall_ahead_ns }
    }

    /// Compares the clocks again: the wall clock may have been set. To be called now and then.
    pub(crate) fn compare(&self) {
        self.wall_ahead_ns.set(wall_ns().wrapping_sub(monotonic_ns()));
    }

    pub(crate) fn monotonic_ns(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.origin).as_nanos();
        self.origin_ns.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// As [`Clock::monotonic_ns`]'s result is on the wall clock.
    pub(crate) fn wall_ns(&self, monotonic_ns: u64) -> u64 {
        monotonic_ns.wrapping_add(self.wall_ahead_ns.get())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_instant_is_the_same_moment_on_all_clocks() {
        let begin = monotonic_ns();
        let clock = Clock::new();
        let apart = monotonic_ns() - begin;
        let (before, at, after) = (monotonic_ns(), Instant::now(), monotonic_ns());
        let ns = clock.monotonic_ns(at);
        assert!((before - apart..=after).contains(&ns), "{before} {ns} {after}");
        assert_eq!(clock.monotonic_ns(at + Duration::from_secs(7)) - ns, 7_000_000_000);
        clock.compare();
        let before = wall_ns();
        assert!(clock.wall_ns(monotonic_ns()) >= before - apart);
    }
}

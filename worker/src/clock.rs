//! One look at the clock for everything that happens at once: tokio's instant, which the deadlines are kept by, and the
//! same moment in the nanoseconds of the records.

use std::cell::Cell;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use saola_observability::Detail;
use saola_observability::clock::{monotonic_ns, wall_ns};
use tokio::time::Instant;

/// Turns instants into the two clocks of a record.
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    origin_ns: u64,
    is_exact: bool,
    /// The wall clock less the monotonic one, when last compared.
    wall_ahead_ns: Cell<u64>,
}

impl Clock {
    /// Where requests leave nothing behind, nobody is told how long one took, and a quarter of the price buys enough.
    pub(crate) fn new(detail: Detail) -> Self {
        let origin_ns = monotonic_ns();
        let wall_ahead_ns = Cell::new(wall_ns().wrapping_sub(origin_ns));
        let is_exact = detail != Detail::Nothing;
        Self { origin: Instant::now(), origin_ns, is_exact, wall_ahead_ns }
    }

    /// When a request begins or ends: exact if anybody is told, else less than [`TICK`] ago. A paused clock is exact only.
    pub(crate) fn now(&self) -> Instant {
        if self.is_exact { Instant::now() } else { self.coarse() }
    }

    /// The present to a few milliseconds, for 6 ns; an exact look costs 28.
    pub(crate) fn coarse(&self) -> Instant {
        // The clock exists on every Linux, and is a late copy of the monotonic one.
        let Ok(coarse) = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE) else { return self.origin };
        let (seconds, below) = (coarse.tv_sec().cast_unsigned(), coarse.tv_nsec().cast_unsigned());
        // As one number of nanoseconds, which is faster than two durations.
        let coarse_ns = seconds.wrapping_mul(1_000_000_000).wrapping_add(below);
        self.origin + Duration::from_nanos(coarse_ns.saturating_sub(self.origin_ns))
    }

    /// Compares the clocks again: the wall clock may have been set. To be called now and then.
    pub(crate) fn compare(&self) {
        self.wall_ahead_ns.set(wall_ns().wrapping_sub(monotonic_ns()));
    }

    pub(crate) fn monotonic_ns(&self, at: Instant) -> u64 {
        self.origin_ns.saturating_add(nanoseconds(at.saturating_duration_since(self.origin)))
    }

    /// As [`Clock::monotonic_ns`]'s result is on the wall clock.
    pub(crate) fn wall_ns(&self, monotonic_ns: u64) -> u64 {
        monotonic_ns.wrapping_add(self.wall_ahead_ns.get())
    }
}

/// A duration as records have it; the longest that 64 bits can say is 584 years.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The coarse clock goes by the kernel's tick, which is 10 ms at the longest.
pub(crate) const TICK: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_the_same_moment_on_all_clocks() {
        let begin = monotonic_ns();
        let clock = Clock::new(Detail::Full);
        let apart = monotonic_ns() - begin;
        let (before, at, after) = (monotonic_ns(), Instant::now(), monotonic_ns());
        let ns = clock.monotonic_ns(at);
        assert!((before - apart..=after).contains(&ns), "{before} {ns} {after}");
        assert_eq!(clock.monotonic_ns(at + Duration::from_secs(7)) - ns, 7_000_000_000);
        clock.compare();
        let before = wall_ns();
        assert!(clock.wall_ns(monotonic_ns()) >= before - apart);
    }

    #[test]
    fn a_coarse_look_is_late_by_a_tick_at_most() {
        let clock = Clock::new(Detail::Nothing);
        let begin = Instant::now();
        let mut looks = 0;
        // Over several ticks, so that the two are compared at every distance from one.
        while begin.elapsed() < TICK * 5 {
            let (before, coarse, after) = (Instant::now(), clock.now(), Instant::now());
            assert!(coarse + TICK >= before && coarse <= after + TICK, "{before:?} {coarse:?}");
            looks += 1;
        }
        assert!(looks > 0);
    }
}

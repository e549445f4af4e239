//! How fast the dead are replaced: backoff with jitter (S27) and the budget of deaths (S28).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A seeded source for jitter: `splitmix64`. Not for ids; two servers that share a seed only share their pauses.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// `duration` ± 20 %.
    fn around(&mut self, duration: Duration) -> Duration {
        let percent = 80 + u32::try_from(self.next() % 41).unwrap_or_default();
        duration * percent / 100
    }
}

/// The pause before a place is filled for the `failures`-th time in a row: none for the first.
pub(crate) fn pause(failures: u32, jitter: &mut Jitter) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => jitter.around((FIRST_PAUSE * 2u32.saturating_pow((n - 1).min(10))).min(LONGEST_PAUSE)),
    }
}

/// The pause while degraded.
pub(crate) fn slowest(jitter: &mut Jitter) -> Duration {
    jitter.around(LONGEST_PAUSE)
}

/// Unplanned deaths in the last minute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget {
    deaths: VecDeque<Instant>,
}

impl Budget {
    pub(crate) fn spend(&mut self, now: Instant) {
        self.deaths.push_back(now);
    }

    /// How many deaths the last minute saw.
    pub(crate) fn spent(&mut self, now: Instant) -> usize {
        while self.deaths.front().is_some_and(|&death| now - death >= WINDOW) {
            self.deaths.pop_front();
        }
        self.deaths.len()
    }

    pub(crate) fn limit(workers: u32) -> usize {
        usize::try_from(workers).unwrap_or(usize::MAX).saturating_mul(DEATHS_PER_WORKER)
    }

    /// Starts anew after a recovery: the deaths before it are paid for.
    pub(crate) fn clear(&mut self) {
        self.deaths.clear();
    }
}

/// Where the window of the budget and the reset of a slot's backoff agree: a minute.
pub(crate) const WINDOW: Duration = Duration::from_mins(1);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(crate) const DEATHS_PER_WORKER: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_nothing_to_ten_seconds_within_twenty_percent() {
        let mut jitter = Jitter::new(1);
        assert_eq!(pause(0, &mut jitter), Duration::ZERO);
        for (failures, ideal_ms) in
            [(1, 100), (2, 200), (3, 400), (7, 6_400), (8, 10_000), (900, 10_000)]
        {
            for _ in 0..100 {
                let ms = pause(failures, &mut jitter).as_millis();
                assert!(ms >= ideal_ms * 8 / 10 && ms <= ideal_ms * 12 / 10, "{failures}: {ms} ms");
            }
        }
    }

    #[test]
    fn deaths_older_than_a_minute_are_forgotten() {
        let start = Instant::now();
        let mut budget = Budget::default();
        budget.spend(start);
        budget.spend(start + Duration::from_secs(30));
        assert_eq!(budget.spent(start + Duration::from_secs(59)), 2);
        assert_eq!(budget.spent(start + Duration::from_mins(1)), 1);
        assert_eq!(budget.spent(start + Duration::from_secs(90)), 0);
    }
}

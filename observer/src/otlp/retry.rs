//! When a batch is sent again: only after a refusal that may pass, at most three times, and each time later. What still fails
//! then goes back to the queue (O50).

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// Why an attempt failed, and what that means for the next one.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) advice: Advice,
    pub(super) error: String,
}

/// Whether another attempt is of use.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Advice {
    /// The same again will be refused again.
    Never,
    /// It may pass.
    Soon,
    /// The collector asks for so much time.
    After(Duration),
}

/// Why a batch was not taken.
#[derive(Debug)]
pub(super) struct Failure {
    /// Sending it again is of no use.
    pub(super) is_final: bool,
    pub(super) error: String,
}

/// Attempts until one succeeds or no other is due; none begins after `within`.
pub(super) async fn send<T, F>(within: Duration, attempt: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Refusal>>,
{
    let begin = Instant::now();
    let mut patience = Patience::default();
    loop {
        let refusal = match attempt().await {
            Ok(taken) => return Ok(taken),
            Err(refusal) => refusal,
        };
        let left = within.saturating_sub(begin.elapsed());
        let jitter = Duration::from_millis(random_to(100).into());
        let pause = patience.pause(refusal.advice, jitter).filter(|pause| *pause < left);
        let Some(pause) = pause else {
            let is_final = refusal.advice == Advice::Never;
            return Err(Failure { is_final, error: refusal.error });
        };
        sleep(pause).await;
    }
}

/// A number from 0 to `most`, for pauses that are not to be the same everywhere.
pub(super) fn random_to(most: u32) -> u32 {
    let random = RandomState::new().hash_one(0) % (u64::from(most) + 1);
    u32::try_from(random).unwrap_or(most)
}

/// What is left of the attempts of one batch.
struct Patience {
    retries: u32,
    delay: Duration,
    longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            retries: 3,
            delay: Duration::from_millis(100),
            longest: Duration::from_millis(1_600),
        }
    }
}

impl Patience {
    /// How long to wait before the next attempt; `None` if there is none.
    fn pause(&mut self, advice: Advice, jitter: Duration) -> Option<Duration> {
        self.retries = self.retries.checked_sub(1)?;
        match advice {
            Advice::Never => return None,
            Advice::Soon => {}
            Advice::After(asked) => {
                // Sooner than asked would be of no use; but nobody holds up the spans for longer.
                let asked = asked.min(LONGEST_ASKED);
                if asked > self.longest {
                    self.longest = LONGEST_ASKED;
                }
                self.delay = self.delay.max(asked);
            }
        }
        let pause = (self.delay + jitter).min(self.longest);
        self.delay = (self.delay * 2).min(self.longest);
        Some(pause)
    }
}

const LONGEST_ASKED: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(advice: &[Advice]) -> Vec<Option<u128>> {
        let mut patience = Patience::default();
        let pauses = advice.iter().map(|advice| patience.pause(*advice, Duration::ZERO));
        pauses.map(|pause| Some(pause?.as_millis())).collect()
    }

    const SECONDS_7: Advice = Advice::After(Duration::from_secs(7));

    #[test]
    fn each_pause_is_longer_and_after_three_it_is_enough() {
        assert_eq!(pauses(&[Advice::Soon; 4]), [Some(100), Some(200), Some(400), None]);
    }

    #[test]
    fn what_will_not_pass_is_not_sent_again() {
        assert_eq!(pauses(&[Advice::Never]), [None]);
        assert_eq!(pauses(&[Advice::Soon, Advice::Never]), [Some(100), None]);
    }

    #[test]
    fn a_collector_is_given_the_time_that_it_asks_for_and_more_each_time() {
        assert_eq!(pauses(&[SECONDS_7; 3]), [Some(7_000), Some(14_000), Some(28_000)]);
        assert_eq!(pauses(&[SECONDS_7, Advice::Soon]), [Some(7_000), Some(14_000)]);
        let zero = Advice::After(Duration::ZERO);
        assert_eq!(pauses(&[zero, zero]), [Some(100), Some(200)]);
        let hour = Advice::After(Duration::from_hours(1));
        assert_eq!(pauses(&[hour, hour]), [Some(30_000), Some(30_000)]);
    }

    #[test]
    fn jitter_makes_a_pause_longer_within_its_bound() {
        let jitter = Duration::from_millis(99);
        let first = Patience::default().pause(Advice::Soon, jitter).unwrap();
        assert_eq!(first.as_millis(), 199);
        assert!((0..1_000).all(|_| random_to(100) <= 100));
    }

    #[test]
    fn no_attempt_begins_after_the_time_is_over() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let tried = std::cell::Cell::new(0);
        let refuse = || async {
            tried.set(tried.get() + 1);
            Err::<(), _>(Refusal { advice: Advice::Soon, error: "no".into() })
        };
        let failure = runtime.block_on(send(Duration::from_millis(50), refuse)).unwrap_err();
        assert_eq!((tried.get(), failure.is_final), (1, false));
    }
}

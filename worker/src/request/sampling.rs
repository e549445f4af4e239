//! Which traces are kept: decided at the head, overruled at the end for errors and slow requests. Pure.

use std::time::Duration;

use saola_observability::closed::{Outcome, Sampling};
use saola_observability::ids::TraceId;
use tokio::time::Instant;

use crate::config::Sampler;
use crate::request::ids::Parent;

impl Sampler {
    fn decide(&self, trace: TraceId, parent: Option<&Parent>) -> Sampling {
        match (self, parent) {
            (Self::AlwaysOn, _) => Sampling::Ratio,
            (Self::TraceIdRatio(ratio), _) if is_within(trace, *ratio) => Sampling::Ratio,
            (Self::ParentBased(_), Some(parent)) if parent.sampled => Sampling::Parent,
            (Self::ParentBased(root), None) => root.decide(trace, None),
            (Self::AlwaysOff | Self::TraceIdRatio(_), _) | (Self::ParentBased(_), Some(_)) => {
                Sampling::Dropped
            }
        }
    }
}

/// The sampler of one worker: its head decision under a bucket, and what the end overrules, under another.
#[derive(Debug)]
pub(crate) struct Decider {
    sampler: Sampler,
    slow: Duration,
    head: Bucket,
    end: Bucket,
}

/// What is known of a request when it ends.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<u16>,
    pub(crate) outcome: Outcome,
    pub(crate) duration: Duration,
}

impl Decider {
    /// `head_rate` and `end_rate` are traces a second that the head decision and the end may keep; 0 is unlimited.
    pub(crate) fn new(sampler: Sampler, head_rate: u32, end_rate: u32, slow: Duration) -> Self {
        Self { sampler, slow, head: Bucket::new(head_rate), end: Bucket::new(end_rate) }
    }

    pub(crate) fn at_head(
        &mut self,
        trace: TraceId,
        parent: Option<&Parent>,
        now: Instant,
    ) -> Sampling {
        let decision = self.sampler.decide(trace, parent);
        if decision.is_sampled() && !self.head.take(now) { Sampling::Limited } else { decision }
    }

    pub(crate) fn at_end(&mut self, head: Sampling, ended: Ended, now: Instant) -> Sampling {
        let failed = ended.status.is_some_and(|status| status >= 500)
            || matches!(ended.outcome, Outcome::Panic | Outcome::Timeout | Outcome::Lost);
        let late = match (head.is_sampled(), failed, ended.duration >= self.slow) {
            (true, _, _) | (false, false, false) => return head,
            (false, true, _) => Sampling::Error,
            (false, false, true) => Sampling::Slow,
        };
        if self.end.take(now) { late } else { Sampling::Limited }
    }
}

/// A token bucket of one second's tokens; a rate of 0 is no limit.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    /// Tokens in billionths, so that a nanosecond adds exactly `rate` of them.
    filled: u64,
    at: Option<Instant>,
}

const TOKEN: u64 = 1_000_000_000;

impl Bucket {
    fn new(rate: u32) -> Self {
        let rate = u64::from(rate);
        Self { rate, filled: rate * TOKEN, at: None }
    }

    fn take(&mut self, now: Instant) -> bool {
        if self.rate == 0 {
            return true;
        }
        let passed = self.at.replace(now).map(|at| now.saturating_duration_since(at).as_nanos());
        let passed = u64::try_from(passed.unwrap_or(0)).unwrap_or(TOKEN).min(TOKEN);
        self.filled = (self.filled + passed * self.rate).min(self.rate * TOKEN);
        if self.filled < TOKEN {
            return false;
        }
        self.filled -= TOKEN;
        true
    }
}

/// The low 56 bits decide (W3C Trace Context level 2, random flag; OpenTelemetry consistent sampling).
fn is_within(trace: TraceId, ratio: f64) -> bool {
    const SCALE: f64 = 72_057_594_037_927_936.0; // 2^56, exact in a double
    let low = trace.0.iter().skip(9).fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte));
    // The top of the range is kept, as the specification's rejection threshold does.
    low >= (1.0 - ratio) * SCALE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ids::Ids;
    use saola_observability::ids::SpanId;

    #[test]
    fn the_ratio_holds_within_three_sigma() {
        let mut ids = Ids::new(Some(1)).unwrap();
        let kept = (0..20_000)
            .filter(|_| Sampler::TraceIdRatio(0.05).decide(ids.trace(), None).is_sampled())
            .count();
        assert!((1000 - 93..=1000 + 93).contains(&kept), "{kept}");
        assert!(Sampler::TraceIdRatio(1.0).decide(ids.trace(), None).is_sampled());
        assert!(!Sampler::TraceIdRatio(0.0).decide(ids.trace(), None).is_sampled());
    }

    #[test]
    fn the_parent_is_honoured_in_both_directions() {
        let trace = TraceId([1; 16]);
        let parent = |sampled| Parent { trace, span: SpanId([1; 8]), sampled };
        let off = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        assert_eq!(off.decide(trace, Some(&parent(true))), Sampling::Parent);
        assert_eq!(Sampler::default().decide(trace, Some(&parent(false))), Sampling::Dropped);
        assert_eq!(Sampler::default().decide(trace, None), Sampling::Ratio);
    }

    #[test]
    fn the_bucket_holds_against_a_flood() {
        let mut decider = Decider::new(Sampler::AlwaysOn, 100, 100, Duration::from_secs(1));
        let trace = TraceId([1; 16]);
        let begin = Instant::now();
        let kept = (0..10_000)
            .map(|n| begin + Duration::from_millis(n))
            .filter(|at| decider.at_head(trace, None, *at).is_sampled())
            .count();
        assert!(
            (1_050..=1_101).contains(&kept),
            "ten seconds at 100 a second and one burst: {kept}"
        );
        // Each that was not is known as such, unless it fails: then another bucket decides.
        let at = begin + Duration::from_secs(10);
        while decider.at_head(trace, None, at).is_sampled() {}
        assert_eq!(decider.at_head(trace, None, at), Sampling::Limited);
        let mut end = |status| {
            let ended =
                Ended { status: Some(status), outcome: Outcome::Ok, duration: Duration::ZERO };
            decider.at_end(Sampling::Limited, ended, at)
        };
        assert_eq!((end(200), end(500)), (Sampling::Limited, Sampling::Error));
        assert_eq!((0..100).map(|_| end(500)).last(), Some(Sampling::Limited));
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let mut decider = Decider::new(Sampler::AlwaysOn, 0, 0, Duration::from_secs(1));
        let at = Instant::now();
        assert!((0..1_000).all(|_| decider.at_head(TraceId([1; 16]), None, at).is_sampled()));
        let failed = Ended { status: Some(500), outcome: Outcome::Ok, duration: Duration::ZERO };
        let mut kept = |_| decider.at_end(Sampling::Dropped, failed, at) == Sampling::Error;
        assert!((0..1_000).all(&mut kept));
    }

    #[test]
    fn errors_and_slow_requests_are_kept_at_ratio_zero() {
        let mut decider = Decider::new(Sampler::AlwaysOff, 100, 100, Duration::from_secs(1));
        let mut end = |status, outcome, millis| {
            let ended =
                Ended { status: Some(status), outcome, duration: Duration::from_millis(millis) };
            decider.at_end(Sampling::Dropped, ended, Instant::now())
        };
        assert_eq!(end(200, Outcome::Ok, 1), Sampling::Dropped);
        assert_eq!(end(404, Outcome::Aborted, 1), Sampling::Dropped);
        assert_eq!(end(500, Outcome::Ok, 1), Sampling::Error);
        assert_eq!(end(200, Outcome::Panic, 1), Sampling::Error);
        assert_eq!(end(200, Outcome::Timeout, 1), Sampling::Error);
        assert_eq!(end(200, Outcome::Ok, 1_000), Sampling::Slow);
    }
}

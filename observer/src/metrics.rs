//! The observer's own metrics. They live in its slot file, so they survive its death.

use saola_observability::closed::Level;
use saola_observability::metrics::{Counter, CounterVec, register};
use saola_observability::names;

use crate::lost::{LostLines, LostSamples, LostSpans};

static LINES: CounterVec<1> =
    CounterVec::new(names::SAOLA_LOG_LINES, "Log lines written to stdout.", ["level"]);
static LINES_DROPPED: CounterVec<1> =
    CounterVec::new(names::SAOLA_LOG_LINES_DROPPED, "Log lines not written.", ["reason"]);
static SPANS: Counter =
    Counter::new(names::SAOLA_SPANS_EXPORTED, "Spans that the collector acknowledged.");
static SPANS_DROPPED: CounterVec<1> =
    CounterVec::new(names::SAOLA_SPANS_DROPPED, "Spans not exported.", ["reason"]);

static SAMPLES: Counter =
    Counter::new(names::SAOLA_PROFILE_SAMPLES, "Profile samples read, by their weights.");
static SAMPLES_DROPPED: CounterVec<1> = CounterVec::new(
    names::SAOLA_PROFILE_SAMPLES_DROPPED,
    "Profile samples that are in no profile, by their weights.",
    ["reason"],
);
static PUSHES: CounterVec<1> =
    CounterVec::new(names::SAOLA_PROFILE_PUSHES, "Profiles pushed.", ["result"]);

/// Makes every series appear at 0: a counter that begins at 1 hides its first event from a rate.
pub(crate) fn init() {
    register(&[
        &LINES,
        &LINES_DROPPED,
        &SPANS,
        &SPANS_DROPPED,
        &SAMPLES,
        &SAMPLES_DROPPED,
        &PUSHES,
    ]);
    for level in Level::ALL {
        LINES.with([level.as_str()]).add(0);
    }
    for reason in LostLines::ALL {
        LINES_DROPPED.with([reason.as_str()]).add(0);
    }
    for reason in LostSpans::ALL {
        SPANS_DROPPED.with([reason.as_str()]).add(0);
    }
    for reason in LostSamples::ALL {
        SAMPLES_DROPPED.with([reason.as_str()]).add(0);
    }
    for result in [OK, FAILED] {
        PUSHES.with([result]).add(0);
    }
}

pub(crate) fn lines_written(level: Level, count: usize) {
    LINES.with([level.as_str()]).add(u64::try_from(count).unwrap_or(0));
}

pub(crate) fn lines_dropped(reason: LostLines, count: usize) {
    LINES_DROPPED.with([reason.as_str()]).add(u64::try_from(count).unwrap_or(0));
}

pub(crate) fn spans_exported(count: u64) {
    SPANS.add(count);
}

pub(crate) fn spans_dropped(reason: LostSpans, count: u64) {
    SPANS_DROPPED.with([reason.as_str()]).add(count);
}

pub(crate) fn samples(weight: u64) {
    SAMPLES.add(weight);
}

pub(crate) fn samples_dropped(reason: LostSamples, weight: u64) {
    SAMPLES_DROPPED.with([reason.as_str()]).add(weight);
}

pub(crate) fn profile_pushed(is_taken: bool) {
    PUSHES.with([if is_taken { OK } else { FAILED }]).inc();
}

const OK: &str = "ok";
const FAILED: &str = "failed";

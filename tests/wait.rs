//! The only place where a test waits: for a condition, under a deadline.

use std::time::{Duration, Instant};

/// Longest wait for anything. A bound for a machine that is busy, never a measurement.
pub(crate) const DEADLINE: Duration = Duration::from_secs(25);

/// Polls until `condition` holds; fails with `what` after the deadline.
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    until_or(what, condition, String::new);
}

/// As [`until`], for what takes its time by design.
pub(crate) fn until_within(limit: Duration, what: &str, condition: impl FnMut() -> bool) {
    until_or_within(limit, what, condition, String::new);
}

/// As [`until`], and the failure shows `context`.
pub(crate) fn until_or(
    what: &str,
    condition: impl FnMut() -> bool,
    context: impl FnOnce() -> String,
) {
    until_or_within(DEADLINE, what, condition, context);
}

/// As [`until_or`], for what takes its time by design.
pub(crate) fn until_or_within(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
    context: impl FnOnce() -> String,
) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}\n{}", context());
        pause(Duration::from_millis(5));
    }
}

/// Polls until `find` finds something.
pub(crate) fn until_some<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    until(what, || {
        found = find();
        found.is_some()
    });
    found.unwrap()
}

/// Lets others run between two looks, and paces a load.
#[expect(
    clippy::disallowed_methods,
    reason = "the one sleep of the suite: between two looks at a condition"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

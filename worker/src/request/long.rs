//! A poll of a request that holds the event loop is named: while it lasts, every other request of the worker waits.

use std::rc::Rc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use saola_observability::closed::Level;

use super::scope::Running;

/// One poll. Its end is looked at when this is dropped, also by unwinding.
pub(super) struct Watched<'r> {
    running: &'r Rc<Running>,
    begin: Duration,
}

/// What is longer is work for the blocking pool.
const LONG: Duration = Duration::from_millis(10);
/// A worker says it no oftener.
const SELDOM: Duration = Duration::from_secs(1);

impl<'r> Watched<'r> {
    pub(super) fn begin(running: &'r Rc<Running>) -> Self {
        Self { running, begin: coarse() }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let now = coarse();
        let (worker, lasted) = (&self.running.worker, now.saturating_sub(self.begin));
        if lasted < LONG || now.saturating_sub(worker.last_long_poll.get()) < SELDOM {
            return;
        }
        worker.last_long_poll.set(now);
        let milliseconds = lasted.as_millis().to_string();
        let fields = [("held_ms", milliseconds.as_str())];
        let message = "a request held the event loop";
        worker.event_of(Level::Warn, message, Some(self.running), &fields);
    }
}

/// To a few milliseconds, for a tenth of what an exact look costs.
fn coarse() -> Duration {
    // The clock exists on every Linux; without it no poll is long.
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from).unwrap_or_default()
}

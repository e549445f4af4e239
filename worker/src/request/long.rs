//! A request that holds the event loop is named: while it does, every other request of the worker waits.
//!
//! A look at the clock costs as much as everything else here. One that is answered in one go, as most are, needs none:
//! it began when its head was complete, and ends when its record does, which are looked up anyway.

use std::time::Duration;

use saola_observability::closed::Level;
use tokio::time::Instant;

use super::scope::Running;
use crate::branch::unlikely;

/// What is longer is work for the blocking pool.
const LONG: Duration = Duration::from_millis(10);
/// A worker says it no oftener.
const SELDOM: Duration = Duration::from_secs(1);

impl Running {
    /// Its code is about to run. What ran before it without a pause counts too.
    pub(super) fn takes_loop(&self) {
        if self.holds_since.get().is_none() {
            self.holds_since.set(Some(self.worker.clock.coarse()));
        }
    }

    /// Its code has returned, and waits for something: others have their turn.
    pub(super) fn leaves_loop(&self) {
        if self.holds_since.get().is_some() {
            self.leaves_loop_at(self.worker.clock.coarse());
        }
    }

    /// As [`Running::leaves_loop`], of one whose connection goes on with it at once. Streams go on in their own turns.
    #[inline]
    pub(super) fn keeps_loop(&self) {
        if self.is_stream() {
            self.leaves_loop();
        }
    }

    /// As [`Running::leaves_loop`], by a look at the clock that is there already.
    #[inline]
    pub(super) fn leaves_loop_at(&self, now: Instant) {
        if let Some(since) = self.holds_since.take()
            && unlikely(now >= since + LONG)
        {
            self.held_loop(since, now);
        }
    }

    #[cold]
    fn held_loop(&self, since: Instant, now: Instant) {
        let said = &self.worker.last_long_poll;
        if said.get().is_some_and(|said| now < said + SELDOM) {
            return;
        }
        said.set(Some(now));
        let milliseconds = (now - since).as_millis().to_string();
        let fields = [("held_ms", milliseconds.as_str())];
        self.worker.event_of(Level::Warn, "a request held the event loop", Some(self), &fields);
    }

    /// Its client takes no more for now. The pause is nobody's fault here.
    pub(crate) fn forgets_loop(&self) {
        self.holds_since.set(None);
    }
}

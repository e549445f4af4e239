//! Whether a client takes what is written for it. Taken is what it acknowledged: a full buffer of the kernel says nothing,
//! neither that it is full nor that it has room again.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Bytes a second that a client must acknowledge while more wait for it.
const LEAST_RATE: u64 = 500;

/// What waits for the client of one connection.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    /// Bytes that the kernel has taken, in all.
    written: Cell<u64>,
    /// Those of them that the client has, when last asked.
    acknowledged: Cell<u64>,
    window: Cell<Option<Window>>,
    /// The least that the client acknowledges at once.
    segment: Cell<u64>,
}

/// A time in which the client must take enough.
#[derive(Copy, Clone, Debug)]
struct Window {
    since: Instant,
    acknowledged: u64,
}

impl Unsent {
    pub(super) fn takes(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.written.set(self.written.get().saturating_add(bytes));
    }

    pub(super) fn blocks(&self, now: Instant, unacknowledged: u64, segment: impl Fn() -> u64) {
        let acknowledged = self.written.get().saturating_sub(unacknowledged);
        self.acknowledged.set(acknowledged);
        if self.window.get().is_none() {
            self.segment.set(segment());
            self.window.set(Some(Window { since: now, acknowledged }));
        }
    }

    /// Everything was taken; says whether something had waited.
    pub(super) fn ends(&self) -> bool {
        self.window.take().is_some()
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.window.get().is_some()
    }

    /// When the window ends; not later than now only if the client took too little in it.
    pub(super) fn deadline(&self, now: Instant, length: Duration) -> Option<Instant> {
        let window = self.window.get()?;
        let rate = |length: Duration| LEAST_RATE.saturating_mul(length.as_secs()).max(1);
        // On the machine itself a segment is 64 KiB, and a slow client has room for one only now and then.
        let length = if self.segment.get() > rate(length) { length * 2 } else { length };
        let end = window.since + length;
        if end > now {
            return Some(end);
        }
        let acknowledged = self.acknowledged.get();
        if acknowledged.saturating_sub(window.acknowledged) < rate(length) {
            return Some(end);
        }
        self.window.set(Some(Window { since: now, acknowledged }));
        Some(now + length)
    }
}

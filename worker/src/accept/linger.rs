//! The last look into an accept queue is not the first that finds it empty: handshakes that had begun when the server
//! stopped listening complete within a round trip, and their clients are to be answered too.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// When to look into the queues again, and until when.
pub(super) struct Linger {
    until: Instant,
    look: Pin<Box<Sleep>>,
}

impl Linger {
    /// Begins now; the first look is at once.
    pub(super) fn begin() -> Self {
        Self { until: Instant::now() + LINGER, look: Box::pin(sleep(Duration::ZERO)) }
    }

    /// Ready when it is time for a look.
    pub(super) fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.look.as_mut().poll(cx)
    }

    /// After a look that found the queues empty: says whether there is to be another, and sets its time.
    pub(super) fn wants_another(&mut self) -> bool {
        let now = Instant::now();
        self.look.as_mut().reset(now + LOOK);
        now < self.until
    }
}

/// A supervisor that was killed must leave a free port within 200 ms, so this is less: enough for a round trip of 100 ms.
const LINGER: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(10);

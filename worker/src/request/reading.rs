//! How far a request body has been read, and how long its reader has waited for the client. Any thread may read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::config::Config;

/// What the request's scope knows of its body, which may be read on another thread.
#[derive(Debug)]
pub(crate) struct Reading {
    limit: AtomicU64,
    /// What the head says, at least.
    declared: u64,
    bytes: AtomicU64,
    is_read: AtomicBool,
    is_too_large: AtomicBool,
    /// The service has dropped the body: nobody waits for the rest.
    is_given_up: AtomicBool,
    start: Instant,
    /// When the service last got something, in milliseconds since the start; likewise below.
    last_ms: AtomicU64,
    /// Since when the service waits for the client; [`NOT`] while it does not.
    waits_since_ms: AtomicU64,
    /// How long it has waited before that, in all.
    waited_ms: AtomicU64,
}

const NOT: u64 = u64::MAX;

/// 0 is no limit.
fn bound(limit: u64) -> u64 {
    if limit == 0 { u64::MAX } else { limit }
}

impl Reading {
    /// `None` for a body without a byte.
    pub(crate) fn of(body: &Incoming, limit: u64) -> Option<Arc<Self>> {
        let is_empty = body.is_end_stream();
        (!is_empty).then(|| Arc::new(Self::new(limit, body.size_hint().lower())))
    }

    fn new(limit: u64, declared: u64) -> Self {
        Self {
            limit: AtomicU64::new(bound(limit)),
            declared,
            bytes: AtomicU64::new(0),
            is_read: AtomicBool::new(false),
            is_too_large: AtomicBool::new(false),
            is_given_up: AtomicBool::new(false),
            start: Instant::now(),
            last_ms: AtomicU64::new(0),
            waits_since_ms: AtomicU64::new(NOT),
            waited_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(bound(limit), Ordering::Relaxed);
    }

    /// Says whether the body may be read on, by what has come of it and by what the head says of it.
    pub(crate) fn is_allowed(&self) -> bool {
        if self.declared > self.limit() {
            self.is_too_large.store(true, Ordering::Relaxed);
        }
        !self.is_too_large()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    pub(crate) fn is_too_large(&self) -> bool {
        self.is_too_large.load(Ordering::Relaxed)
    }

    /// The service asked, and there was nothing.
    pub(crate) fn waits(&self) {
        if self.waits_since_ms.load(Ordering::Relaxed) == NOT {
            self.waits_since_ms.store(self.age(), Ordering::Relaxed);
        }
    }

    /// The service got so many bytes; `false` when they are too many.
    pub(crate) fn takes(&self, bytes: u64, is_end: bool) -> bool {
        self.got();
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let is_too_large = bytes > self.limit();
        self.is_too_large.store(is_too_large, Ordering::Relaxed);
        self.is_read.store(is_end && !is_too_large, Ordering::Relaxed);
        !is_too_large
    }

    /// The service got the end.
    pub(crate) fn ends(&self) {
        self.got();
        self.is_read.store(true, Ordering::Relaxed);
    }

    pub(crate) fn gives_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_read() || self.is_too_large() || self.is_given_up.load(Ordering::Relaxed)
    }

    fn got(&self) {
        let now = self.age();
        let since = self.waits_since_ms.swap(NOT, Ordering::Relaxed);
        self.waited_ms.fetch_add(now.saturating_sub(since.min(now)), Ordering::Relaxed);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    fn age(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(NOT - 1)
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// When something was last given to the service; the request's start before that.
    pub(crate) fn last(&self) -> Instant {
        self.at(self.last_ms.load(Ordering::Relaxed))
    }

    /// Says whether the service waits for the client, so that its own deadline does not run.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.is_over() && self.waits_since_ms.load(Ordering::Relaxed) != NOT
    }

    /// When the client is too late with the next byte, or too slow in all.
    ///
    /// While the service does not wait this is the earliest that it could be, so that a timer set for it is in time.
    pub(crate) fn deadline(&self, now: Instant, config: &Config) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let (since, earliest) = match self.waits_since_ms.load(Ordering::Relaxed) {
            NOT => (now, now + COARSE),
            since => (self.at(since), now),
        };
        let quiet = since + config.body_timeout;
        // Only time spent waiting counts: a service that reads slowly does not make its client slow.
        let waited = Duration::from_millis(self.waited_ms.load(Ordering::Relaxed));
        let Some(seconds) = self.bytes().checked_div(config.body_min_rate) else {
            return Some(quiet);
        };
        // A millisecond more, because a mean of exactly the rate is enough.
        let allowed = config.body_timeout.max(Duration::from_secs(seconds)) + FINEST;
        Some(quiet.min((since + allowed.saturating_sub(waited)).max(earliest)))
    }
}

const FINEST: Duration = Duration::from_millis(1);
/// Nobody is late before having been waited for.
const COARSE: Duration = Duration::from_millis(100);

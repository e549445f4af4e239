//! One connection: its protocol, its deadlines under one coarse timer, its lame duck, and hyper in the middle.

pub(crate) mod gate;
pub(crate) mod head;
mod serve;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use saola_observability::closed::Outcome;
use tokio::time::Instant;

use crate::metrics;
use crate::request::answer::Refusal;
use crate::request::scope::{Facts, Holder, Peer, Running};
use crate::worker::Worker;

pub(crate) use serve::serve;

/// What the gate, the requests and the timer of one connection know of each other.
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) peer: Peer,
    /// The next response is the last one of this connection.
    pub(crate) last_request: Cell<bool>,
    /// What comes in after the last answer is read and thrown away.
    pub(crate) linger: Cell<bool>,
    /// The timer wants the gate to answer an unfinished head.
    pub(crate) ordered_refusal: Cell<Option<Refusal>>,
    open: RefCell<Vec<Rc<Running>>>,
    requests_left: Cell<u32>,
    /// Since when a head is due or incomplete; `None` while idle or inside a message.
    head_since: Cell<Option<Instant>>,
    has_head_byte: Cell<bool>,
    idle_since: Cell<Instant>,
    lingering: Cell<Option<Lingering>>,
    /// The client does not take what hyper has for it: the connection is not idle, though no request is open.
    is_write_blocked: Cell<bool>,
    /// A deadline of a silent client has passed, and was counted.
    is_late: Cell<bool>,
    /// Something has changed that may bring the nearest deadline nearer.
    attention: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Copy, Clone)]
struct Lingering {
    since: Instant,
    last_byte: Instant,
}

/// What the clock says about a connection.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Due {
    /// Nothing before then.
    At(Instant),
    /// Something was marked expired: poll everything, then ask again.
    Again,
    /// Idle for too long: close it, with a goodbye where the protocol has one.
    Idle,
    /// Close it now.
    Cut,
}

/// How late a deadline may be noticed.
const COARSE: Duration = Duration::from_millis(100);
const LINGER_QUIET: Duration = Duration::from_secs(2);
const LINGER_TOTAL: Duration = Duration::from_secs(10);

impl Connection {
    pub(crate) fn new(worker: &Rc<Worker>, peer: Peer, accepted: Instant) -> Rc<Self> {
        let most = worker.config.keepalive_requests.get();
        // A tenth either way, so that connections opened together are not closed together.
        let spread = u64::from(most / 5).saturating_add(1);
        let jitter = worker.ids.borrow_mut().next().checked_rem(spread).unwrap_or(0);
        let requests = most
            .saturating_sub(most / 10)
            .saturating_add(u32::try_from(jitter).unwrap_or(0))
            .max(1);
        Rc::new(Self {
            worker: Rc::clone(worker),
            peer,
            last_request: Cell::new(false),
            linger: Cell::new(false),
            ordered_refusal: Cell::new(None),
            open: RefCell::new(Vec::new()),
            requests_left: Cell::new(requests),
            head_since: Cell::new(Some(accepted)),
            has_head_byte: Cell::new(false),
            idle_since: Cell::new(accepted),
            lingering: Cell::new(None),
            is_write_blocked: Cell::new(false),
            is_late: Cell::new(false),
            attention: Cell::new(false),
            waker: RefCell::new(None),
        })
    }

    pub(crate) fn begins(&self, running: &Rc<Running>) {
        self.head_since.set(None);
        self.is_late.set(false);
        self.requests_left.set(self.requests_left.get().saturating_sub(1));
        self.open.borrow_mut().push(Rc::clone(running));
    }

    pub(crate) fn ends(&self, running: &Rc<Running>) {
        self.open.borrow_mut().retain(|open| !Rc::ptr_eq(open, running));
        self.idle_since.set(Instant::now());
        if self.worker.is_draining() {
            self.look();
        }
    }

    /// Says whether the response being made is the last one; decides it, too.
    pub(crate) fn is_last(&self, worker: &Worker) -> bool {
        let is_last = self.last_request.get()
            || worker.is_draining()
            || worker.config.keepalive.is_zero()
            || self.requests_left.get() == 0
            || worker.permits.is_nearly_used_up();
        self.last_request.set(is_last);
        is_last
    }

    pub(crate) fn head_byte(&self) {
        self.has_head_byte.set(true);
        if self.head_since.get().is_none() && self.open.borrow().is_empty() {
            self.head_since.set(Some(Instant::now()));
        }
    }

    pub(crate) fn head_complete(&self) {
        self.head_since.set(None);
        self.has_head_byte.set(false);
        self.idle_since.set(Instant::now());
    }

    pub(crate) fn lingers_since_now(&self) {
        let now = Instant::now();
        if self.linger.get() {
            self.lingering.set(Some(Lingering { since: now, last_byte: now }));
            self.look();
        }
    }

    pub(crate) fn linger_byte(&self) {
        let now = Instant::now();
        self.lingering
            .set(self.lingering.get().map(|lingering| Lingering { last_byte: now, ..lingering }));
    }

    /// Notes whether the client took what was written; the idle time begins when it has.
    pub(crate) fn written(&self, is_blocked: bool) {
        if self.is_write_blocked.replace(is_blocked) && !is_blocked {
            self.idle_since.set(Instant::now());
            self.attention.set(self.worker.is_draining() || self.attention.get());
        }
    }

    /// Has the connection's task look at its deadlines.
    pub(crate) fn look(&self) {
        self.attention.set(true);
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// A refused head is a request: it is counted, recorded and identified like any other.
    pub(crate) fn refuse(self: &Rc<Self>, refusal: Refusal) -> Bytes {
        if let Some(reason) = refusal.reason {
            metrics::REJECTED.with([reason]).inc();
        }
        // Nothing of an unaccepted head is believed, so the method is none of the known ones.
        let unread = Method::from_bytes(b"_OTHER").unwrap_or_default();
        let facts = Facts::read(&self.worker, unread, Version::HTTP_11, None, &HeaderMap::new());
        let holder = Holder(Running::begin(&self.worker, self, facts));
        let running = &holder.0;
        running.responds(refusal.status.as_u16());
        if refusal == Refusal::HEAD_TIMEOUT {
            running.outcome.set(Some(Outcome::Timeout));
            running.exception.set(Some("timeout"));
        }
        let date = httpdate::fmt_http_date(SystemTime::now());
        let server = self.worker.config.server_header.as_ref();
        let answer = refusal.bytes(&running.facts.request_id, server, &date);
        let body = refusal.body(&running.facts.request_id).len();
        running.sent(u64::try_from(body).unwrap_or(u64::MAX), None, true);
        answer
    }

    /// Looks at every deadline of the connection. Marks what has expired.
    fn due(&self, now: Instant) -> Due {
        self.attention.set(false);
        if self.worker.is_forced.get() {
            return Due::Cut;
        }
        let mut nearest = now + self.shortest();
        if let Some(Lingering { since, last_byte }) = self.lingering.get() {
            let end = (since + LINGER_TOTAL).min(last_byte + LINGER_QUIET);
            return if end <= now { Due::Cut } else { Due::At(end) };
        }
        for running in self.open.borrow().iter() {
            match running.deadline() {
                Some(deadline) if deadline <= now => {
                    running.expire();
                    return Due::Again;
                }
                Some(deadline) => nearest = nearest.min(deadline),
                None => {}
            }
        }
        if self.open.borrow().is_empty() && !self.is_write_blocked.get() {
            let (end, expired) = self.silence();
            if end <= now {
                return self.silent(expired);
            }
            nearest = nearest.min(end);
        }
        Due::At(nearest)
    }

    /// What the client owes while no request is open, and until when.
    fn silence(&self) -> (Instant, Owed) {
        let config = &self.worker.config;
        let idle_end = |since| self.worker.draining.get().map(|draining| draining.idle_end(since));
        match self.head_since.get() {
            Some(since) if self.has_head_byte.get() => {
                (since + config.header_timeout, Owed::RestOfHead)
            }
            Some(since) => {
                let end = since + config.header_timeout;
                (idle_end(since).map_or(end, |drain| drain.min(end)), Owed::Head)
            }
            None => match idle_end(self.idle_since.get()) {
                Some(end) => (end, Owed::Nothing),
                None => (self.idle_since.get() + config.keepalive, Owed::Request),
            },
        }
    }

    fn silent(&self, owed: Owed) -> Due {
        if !self.is_late.replace(true) {
            match owed {
                Owed::Head | Owed::RestOfHead => metrics::TIMEOUTS.with(["header"]).inc(),
                Owed::Request => metrics::TIMEOUTS.with(["idle"]).inc(),
                Owed::Nothing => {}
            }
            if owed == Owed::RestOfHead {
                self.ordered_refusal.set(Some(Refusal::HEAD_TIMEOUT));
                return Due::Again;
            }
        }
        // A refusal that cannot be written does not hold the connection up.
        if owed == Owed::RestOfHead { Due::Cut } else { Due::Idle }
    }

    /// The timer is never set further than this, so that a deadline which starts later cannot be missed:
    /// a request on a busy connection then needs no timer of its own.
    fn shortest(&self) -> Duration {
        let config = &self.worker.config;
        let shortest = config.header_timeout.min(config.keepalive);
        // Not nothing: a timer that is always due would never let the task rest.
        shortest.min(config.request_timeout.unwrap_or(Duration::MAX)).max(COARSE)
    }
}

/// What a silent client is late with.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Owed {
    Head,
    RestOfHead,
    Request,
    /// Its connection is only kept for the case that it asks once more before the drain ends.
    Nothing,
}

#[cfg(test)]
pub(crate) use serve::LocalExecutor;
#[cfg(test)]
pub(crate) use streamed::Streamed;

#[cfg(test)]
mod streamed;

//! One connection: its protocol, its deadlines under one coarse timer, its lame duck, and hyper in the middle.

mod anchored;
mod deadlines;
mod drive;
mod flood;
mod frames;
pub(crate) mod gate;
pub(crate) mod head;
mod opening;
mod proxy;
mod scratch;
mod serve;
mod transport;
mod write;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::uri::Scheme;
use http::{Method, Version};
use tokio::time::Instant;

use crate::accept::Stream;
use crate::branch::unlikely;
use crate::metrics;
use crate::request::answer::Refusal;
use crate::request::facts::Head;
use crate::request::fields::Fields;
use crate::request::forwarded::Peer;
use crate::request::host::Host;
use crate::request::scope::{Holder, Running};
use crate::worker::Worker;

use deadlines::Lingering;
use frames::Frames;
use opening::Speaks;
pub(crate) use serve::serve;
use write::Unsent;

/// What the gate, the requests and the timer of one connection know of each other.
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) peer: RefCell<Peer>,
    /// Whom the last request addressed.
    pub(crate) host: RefCell<Option<Rc<Host>>>,
    speaks: Cell<Speaks>,
    /// HTTP is over: the application has the stream.
    pub(crate) is_upgraded: Cell<bool>,
    /// Bodies are copied behind their heads.
    pub(crate) copies_bodies: Cell<bool>,
    /// The next response is the last one of this connection.
    pub(crate) last_request: Cell<bool>,
    /// What comes in after the last answer is read and thrown away.
    pub(crate) linger: Cell<bool>,
    /// The timer wants the gate to answer an unfinished head.
    pub(crate) is_head_late: Cell<bool>,
    open: RefCell<Vec<Rc<Running>>>,
    requests_left: Cell<u32>,
    /// When the part before HTTP must be over; `None` when it is.
    opening: Cell<Option<Instant>>,
    /// Since when a head is due or incomplete; `None` while idle or inside a message.
    head_since: Cell<Option<Instant>>,
    has_head_byte: Cell<bool>,
    /// When a request last began or ended, or the connection itself.
    idle_since: Cell<Instant>,
    /// When a request ended, if one has since its task began its turn.
    ended_at: Cell<Option<Instant>>,
    lingering: Cell<Option<Lingering>>,
    /// What hyper has for the client and the kernel does not take: while it waits the connection is not idle.
    unsent: Unsent,
    /// What has been counted since the preface of HTTP/2.
    frames: RefCell<Option<Box<Frames>>>,
    /// The close is to throw away what the client does not take.
    pub(crate) is_aborted: Cell<bool>,
    is_evicted: Cell<bool>,
    /// It ends between two requests: a client of TLS is told that nothing is missing.
    is_orderly: Cell<bool>,
    /// A deadline of a silent client has passed, and was counted.
    is_late: Cell<bool>,
    /// Something has changed that may bring the nearest deadline nearer.
    attention: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Connection {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        peer: Option<SocketAddr>,
        accepted: Instant,
    ) -> Rc<Self> {
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
            peer: RefCell::new(Peer::direct(peer, Scheme::HTTP)),
            host: RefCell::new(None),
            speaks: Cell::new(Speaks::Either),
            is_upgraded: Cell::new(false),
            copies_bodies: Cell::new(false),
            last_request: Cell::new(false),
            linger: Cell::new(false),
            is_head_late: Cell::new(false),
            open: RefCell::new(Vec::new()),
            requests_left: Cell::new(requests),
            opening: Cell::new(None),
            head_since: Cell::new(Some(accepted)),
            has_head_byte: Cell::new(false),
            idle_since: Cell::new(accepted),
            ended_at: Cell::new(None),
            lingering: Cell::new(None),
            unsent: Unsent::default(),
            frames: RefCell::new(None),
            is_aborted: Cell::new(false),
            is_evicted: Cell::new(false),
            is_orderly: Cell::new(false),
            is_late: Cell::new(false),
            attention: Cell::new(false),
            waker: RefCell::new(None),
        })
    }

    /// What comes before HTTP must be over by then.
    fn opens_until(&self, end: Instant) {
        self.opening.set(Some(end));
    }

    /// HTTP begins.
    fn opened(&self) {
        if self.opening.take().is_some() {
            self.head_since.set(Some(Instant::now()));
        }
    }

    pub(crate) fn begins(&self, running: &Rc<Running>) {
        self.head_since.set(None);
        self.is_late.set(false);
        self.requests_left.set(self.requests_left.get().saturating_sub(1));
        self.open.borrow_mut().push(Rc::clone(running));
    }

    pub(crate) fn ends(&self, running: &Rc<Running>, now: Instant) {
        let mut open = self.open.borrow_mut();
        if let Some(at) = open.iter().position(|open| Rc::ptr_eq(open, running)) {
            open.swap_remove(at);
        }
        drop(open);
        self.idle_since.set(now);
        self.ended_at.set(Some(now));
        if unlikely(self.worker.is_draining()) {
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

    /// A part of a head is there, and the rest is due.
    pub(crate) fn head_begins(&self) {
        self.has_head_byte.set(true);
        if self.head_since.get().is_none() && self.open.borrow().is_empty() {
            self.head_since.set(Some(Instant::now()));
        }
    }

    #[inline]
    pub(crate) fn head_complete(&self) {
        self.head_since.set(None);
        self.has_head_byte.set(false);
        self.idle_since.set(self.worker.clock.now());
    }

    /// When the request that begins now begins: in HTTP/1 its head has just been completed, which was a look at the clock.
    pub(crate) fn begin_of(&self, version: Version) -> Instant {
        if version == Version::HTTP_2 {
            self.idle_since.set(self.worker.clock.now());
        }
        self.idle_since.get()
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

    /// The kernel takes no more for now.
    pub(crate) fn blocked(&self, io: &impl Stream) {
        self.unsent.blocks(Instant::now(), io.unacknowledged(), || io.segment());
        self.open.borrow().iter().for_each(|running| running.forgets_loop());
    }

    /// The kernel took so many bytes.
    pub(crate) fn written(&self, bytes: usize) {
        self.unsent.takes(bytes);
    }

    /// Nothing waits for the client any more; the idle time begins.
    pub(crate) fn flushed(&self) {
        if self.unsent.ends() {
            self.idle_since.set(Instant::now());
            self.attention.set(self.worker.is_draining() || self.attention.get());
        }
    }

    /// The preface of HTTP/2 has come; what the client owes is a request, not the rest of a head.
    pub(crate) fn speaks_http2(&self) {
        self.has_head_byte.set(false);
        *self.frames.borrow_mut() =
            Some(Box::new(Frames::new(gate::PREFACE.len(), Instant::now())));
    }

    /// How long it has been kept alive for nothing; `None` while the client owes or is owed something.
    pub(crate) fn idle_for(&self) -> Option<Duration> {
        let is_idle = self.open.borrow().is_empty()
            && self.head_since.get().is_none()
            && !self.unsent.is_waiting()
            && self.lingering.get().is_none();
        is_idle.then(|| self.idle_since.get().elapsed())
    }

    /// Another client needs its place: it ends as if it had been idle for too long.
    pub(crate) fn evict(&self) {
        self.is_evicted.set(true);
        self.look();
    }

    /// The response 101 goes out: what follows is none of HTTP's business.
    pub(crate) fn upgrades(&self) {
        self.is_upgraded.set(true);
        self.worker.upgraded.set(self.worker.upgraded.get() + 1);
    }

    /// Has the connection's task look at its deadlines.
    pub(crate) fn look(&self) {
        self.attention.set(true);
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// A refused head is a request: it is counted, recorded and identified like any other.
    pub(crate) fn refuse(self: &Rc<Self>, refusal: &'static Refusal) -> Bytes {
        if let Some(reason) = refusal.reason {
            metrics::REJECTED.with([reason]).inc();
        }
        // Nothing of an unaccepted head is believed, so the method is none of the known ones.
        let head = Head {
            method: &Method::from_bytes(b"_OTHER").unwrap_or_default(),
            version: Version::HTTP_11,
            uri: None,
            fields: &Fields::default(),
            peer: None,
        };
        self.head_complete();
        let holder = Holder(Running::begin(self, head, None));
        let running = &holder.0;
        running.responds(refusal.status.as_u16());
        if refusal == Refusal::HEAD_TIMEOUT {
            running.times_out();
        }
        let date = httpdate::fmt_http_date(SystemTime::now());
        let server = self.worker.config.server_header.as_ref();
        let answer = refusal.bytes(&running.facts.request_id, server, &date);
        let body = refusal.body(&running.facts.request_id).len();
        running.sent(u64::try_from(body).unwrap_or(u64::MAX), None, true);
        answer
    }
}

#[cfg(test)]
pub(crate) use serve::LocalExecutor;

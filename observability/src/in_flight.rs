//! The table of requests being served now, and the one way in which a request begins and ends.
//!
//! Begin is one transaction (counted and running), end is one (counted, recorded and free): so after a death at any
//! instruction every request stands exactly once, among the finished or among the running.

pub(crate) mod ending;
pub(crate) mod entry;
mod facts;
pub(crate) mod label;
mod request;

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;

use crate::clock::keep_wall_ns;
use crate::closed::Phase;
use crate::in_flight::ending::Endings;
use crate::in_flight::entry::{Entries, FREE, running};
pub use crate::in_flight::facts::{Begin, End};
pub use crate::in_flight::request::Request;
use crate::layout::{IN_FLIGHT_OVERFLOW_AT, UPDATES_LIMIT_AT, wide};
use crate::record::Kind;
use crate::record::ended::Ended;
use crate::record::words;
use crate::redo::Redo;
use crate::ring::{Producer, Ring, RingName};
use crate::slot::Slot;

/// Where requests begin: the owner's free entries, resolved series, and writing end of the ring.
///
/// ```
/// use saola_observability::{Begin, End, Method, Outcome, Protocol, Slot, SpanId, TraceId, clock};
///
/// let slot = Slot::in_memory(); // in a server: the one that `Slot::attach` gave
/// let mut request = slot.in_flight().begin(&Begin {
///     method: Method::Get,
///     protocol: Protocol::Http11,
///     start_ns: clock::monotonic_ns(),
///     start_wall_ns: clock::wall_ns(),
///     trace: TraceId([1; 16]),
///     span: SpanId([2; 8]),
///     path: "/items/7",
///     request_id: b"7f3a",
/// #   parent: SpanId::NONE,
/// #   remote_parent: false,
/// #   sampled: false,
/// #   client: None,
/// #   client_port: 0,
///     // and who asks
/// });
/// request.set_route("/items/{id}");
/// // The handler runs. Killed here, the request is told as lost: method, route, path, trace and age.
/// request.end(&End {
///     end_ns: clock::monotonic_ns(),
///     outcome: Outcome::Ok,
///     status: Some(200),
///     path: "/items/7",
///     request_id: b"7f3a",
///     ..End::default()
/// });
/// // Killed here, it is counted and recorded as finished. There is no instant between the two.
/// ```
///
/// Begin and end are some 60 plain stores together: no lock, no allocation once the route is known, and no system call,
/// unless an observer sleeps: the first request then wakes it.
pub struct InFlight {
    slot: &'static Slot,
    entries: Entries,
    free: RefCell<Vec<u32>>,
    endings: Endings,
    producer: RefCell<(Producer, Vec<u8>)>,
    running: Cell<usize>,
    detail: Cell<Detail>,
}

/// How much requests leave behind.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub enum Detail {
    /// Nothing: for measuring what the rest costs.
    Nothing,
    /// Counters, histograms and their place in the in-flight table.
    Counts,
    /// A record too: the log line and the span.
    #[default]
    Full,
}

impl InFlight {
    pub(crate) fn new(slot: &'static Slot) -> &'static Self {
        let entries = Entries::new(&slot.map, slot.sections().in_flight);
        let producer = Producer::resume(&slot.map, Ring::new(slot.sections(), RingName::Owner));
        // Taken from the end: the first entries first, so that a quiet worker touches few pages.
        let free = entries.free();
        Box::leak(Box::new(Self {
            slot,
            entries,
            free: RefCell::new(free),
            endings: Endings::new(slot),
            producer: RefCell::new((producer, Vec::with_capacity(1_024))),
            running: Cell::new(0),
            detail: Cell::default(),
        }))
    }

    pub(crate) fn slot(&self) -> &'static Slot {
        self.slot
    }

    /// Requests running in this process.
    pub fn running(&self) -> usize {
        self.running.get()
    }

    /// When the oldest running request of the table began, monotonic nanoseconds.
    pub fn oldest_start_ns(&self) -> Option<u64> {
        (self.running() > 0).then(|| self.entries.oldest_start_ns()).flatten()
    }

    /// Says how much the requests that begin from now on leave behind. [`Detail::Full`] until then.
    pub fn set_detail(&self, detail: Detail) {
        self.detail.set(detail);
    }

    /// How much requests that begin now leave behind.
    pub fn detail(&self) -> Detail {
        self.detail.get()
    }

    /// Counts a request as started and puts it into the table, in one transaction. A full table takes no request away: it
    /// is counted and recorded as any other, but cannot be named if it is lost.
    pub fn begin(&'static self, begin: &Begin<'_>) -> Request {
        let route = self.endings.unmatched();
        let detail = self.detail.get();
        let started =
            (detail != Detail::Nothing).then(|| self.endings.started(begin.method)).flatten();
        let entry = started.and_then(|_| self.free.borrow_mut().pop());
        if let Some(started) = started {
            let mut redo = Redo::begin(&self.slot.map);
            redo.add(started, 1);
            if let Some(entry) = entry {
                let serial = self.entries.write(entry, begin, route.id);
                redo.set(self.entries.state(entry), running(serial));
            } else {
                redo.add(self.slot.map.word(IN_FLIGHT_OVERFLOW_AT), 1);
            }
            redo.commit();
        }
        keep_wall_ns(begin.start_wall_ns);
        self.running.set(self.running.get() + 1);
        Request {
            in_flight: self,
            entry,
            is_counted: started.is_some(),
            detail,
            method: begin.method,
            protocol: begin.protocol,
            start_ns: begin.start_ns,
            start_wall_ns: begin.start_wall_ns,
            trace: begin.trace,
            span: begin.span,
            parent: begin.parent,
            remote_parent: begin.remote_parent,
            client: begin.client,
            client_port: begin.client_port,
            route,
            phase: Phase::Handler,
            ended: false,
            not_send: PhantomData,
        }
    }

    /// The name of a route template: itself, cut to 128 bytes, or `other` when there are too many or the slot has no space.
    pub fn route(&self, template: &str) -> &'static str {
        self.endings.route(template).text
    }

    pub(crate) fn push(&self, kind: Kind, encode: impl FnOnce(&mut Vec<u8>)) {
        let (producer, bytes) = &mut *self.producer.borrow_mut();
        encode(bytes);
        producer.push(&self.slot.map, bytes, kind);
    }

    /// Writes a record and adds to a cell, both in one transaction or neither.
    pub(crate) fn push_with(
        &self,
        kind: Kind,
        add: Option<(&'static AtomicU64, u64)>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let (producer, bytes) = &mut *self.producer.borrow_mut();
        encode(bytes);
        let head = producer.stage(&self.slot.map, bytes);
        let mut redo = Redo::begin(&self.slot.map);
        if let Some((cell, delta)) = add {
            redo.add(cell, delta);
        }
        self.redo_head(&mut redo, producer, head, kind);
        redo.commit();
    }

    fn finish(&self, request: &Request, end: &End<'_>) {
        self.running.set(self.running.get().saturating_sub(1));
        if request.detail == Detail::Nothing {
            return;
        }
        let duration_ns = end.end_ns.saturating_sub(request.start_ns);
        let (producer, _) = &mut *self.producer.borrow_mut();
        let head = (request.detail == Detail::Full).then(|| {
            let ended = self.record(request, end, duration_ns);
            let texts = ended.texts();
            let (map, bytes) = (&self.slot.map, words::length(&texts));
            producer.stage_with(map, bytes, |position, offset| {
                words::store(&ended, &texts, position, map.words(offset, bytes / 8));
            })
        });

        let mut redo = Redo::begin(&self.slot.map);
        let mut over_limit = 0;
        if request.is_counted {
            over_limit = self.count_end(&mut redo, request, end, duration_ns);
        }
        if let Some(head) = head {
            self.redo_head(&mut redo, producer, head, Kind::Request);
        }
        redo.commit();
        for _ in 0..over_limit {
            self.slot.count(UPDATES_LIMIT_AT); // other threads count there too, so it is in no transaction
        }

        if let Some(entry) = request.entry {
            self.free.borrow_mut().push(entry);
        }
        // Who only counts has nothing to be read.
        if head.is_some()
            && let Some(bell) = self.slot.bell()
        {
            bell.ring();
        }
    }

    /// What the end of a request changes besides its record. Says how many of these updates went to overflow series.
    fn count_end(
        &self,
        redo: &mut Redo<'static>,
        request: &Request,
        end: &End<'_>,
        duration_ns: u64,
    ) -> u32 {
        let status = end.status.unwrap_or(0);
        let mut over_limit = 0;
        if let Some(cells) = self.endings.cells(request.method, request.route, status) {
            let seconds = ending::seconds(duration_ns);
            redo.observe(cells.duration.cells, ending::bucket(seconds), seconds);
            over_limit += u32::from(cells.duration.is_over);
            for (bytes, delta) in [
                (cells.request_bytes, end.request_bytes),
                (cells.response_bytes, end.response_bytes),
            ] {
                if delta > 0 {
                    redo.add(bytes.cells, delta);
                    over_limit += u32::from(bytes.is_over);
                }
            }
        }
        if let Some(exception) = end.exception
            && let Some(count) = self.endings.exceptions(request.method, request.route, exception)
        {
            redo.add(count.cells, 1);
            over_limit += u32::from(count.is_over);
        }
        match request.entry {
            Some(entry) => redo.set(self.entries.state(entry), FREE),
            None => redo.add(self.slot.map.word(IN_FLIGHT_OVERFLOW_AT), u64::MAX), // minus 1
        }
        over_limit
    }

    /// Publishes a staged record, or counts one that found no room.
    #[inline]
    fn redo_head(
        &self,
        redo: &mut Redo<'static>,
        producer: &Producer,
        head: Option<u64>,
        kind: Kind,
    ) {
        let map = &self.slot.map;
        match head {
            Some(head) => redo.set(map.word(producer.ring().head_at), head),
            None => redo.add(map.word(producer.ring().dropped_at(kind)), 1),
        }
    }

    fn record<'a>(&self, request: &Request, end: &End<'a>, duration_ns: u64) -> Ended<'a> {
        let cpu_samples = request.entry.map_or(0, |entry| self.entries.samples(entry));
        Ended {
            start_wall_ns: request.start_wall_ns,
            duration_ns,
            trace: request.trace,
            span: request.span,
            parent: request.parent,
            remote_parent: request.remote_parent,
            route: request.route.text,
            exception: end.exception.map_or("", |exception| self.endings.exception_text(exception)),
            request_bytes: end.request_bytes,
            response_bytes: end.response_bytes,
            status: end.status.unwrap_or(0),
            client: request.client,
            client_port: request.client_port,
            server_port: end.server_port,
            is_https: end.is_https,
            cpu_samples,
            method: request.method,
            protocol: request.protocol,
            outcome: end.outcome,
            sampling: end.sampling,
            path: end.path,
            request_id: end.request_id,
            user_agent: end.user_agent,
            server_address: end.server_address,
            method_text: end.method_text,
            tracestate: end.tracestate,
        }
    }
}

/// A number of entries that fits the free list.
pub(crate) fn entries_in(bytes: usize) -> u32 {
    u32::try_from(bytes / crate::layout::ENTRY_BYTES).unwrap_or(u32::MAX)
}

/// The byte offset of an entry in its section.
pub(crate) fn entry_offset(entry: u32) -> usize {
    wide(entry) * crate::layout::ENTRY_BYTES
}

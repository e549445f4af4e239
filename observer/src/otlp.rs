//! Spans: records in, batches to a collector out. A collector that hangs or is away costs spans, nothing else.

mod batch;
mod children;
mod client;
mod export;
mod queue;
mod resource;
mod retry;
mod settings;
mod span;
mod transport;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use saola_observability::closed::{Level, Sampling};
use saola_observability::record::{Record, RequestRecord, SpanRecord};
use saola_observability::{SpanId, TraceId};
use tokio::sync::{Notify, watch};

use batch::Envelope;
use children::{Arrived, Children};
use client::Client;
pub(crate) use client::ClientError;
pub(crate) use client::install_tls;
pub(crate) use export::Exporter;
pub(crate) use queue::Fate;
use queue::{Queue, Ticket, Worth};
pub use resource::Resource;
pub use settings::{Compression, OtlpSettings, SpanLimits};
use span::{Builder, Encoded, Inside, Note};
pub(crate) use transport::NO_TLS;
pub use transport::{Certificates, Protocol};

use crate::lost::LostSpans;
use crate::metrics;
use crate::profile::Profiles;
use crate::voice::Voice;

/// The entrance: turns kept requests and their children into spans and queues them.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    builder: Builder,
    children: Rc<RefCell<Children>>,
    queue: Rc<RefCell<Queue>>,
    arrived: Rc<Notify>,
    tally: Rc<Tally>,
    settings: OtlpSettings,
}

impl Traces {
    pub(crate) fn new(settings: OtlpSettings) -> Self {
        Self {
            builder: Builder::new(settings.limits),
            children: Rc::default(),
            queue: Rc::new(RefCell::new(Queue::new(settings.max_queue_size.get()))),
            arrived: Rc::new(Notify::new()),
            tally: Rc::new(Tally::default()),
            settings,
        }
    }

    /// An exporter for what is queued. Needs the runtime that will run it; `stop` says by when all must be sent,
    /// once nothing more is produced.
    pub(crate) fn exporter(
        &self,
        resource: &Resource,
        voice: Voice,
        stop: watch::Receiver<Option<Instant>>,
    ) -> Result<Exporter, ClientError> {
        // What an exporter that panicked had in its hands is gone with it.
        let forgotten = self.queue.borrow_mut().forget_taken();
        self.tally.lose(LostSpans::Rejected, forgotten);
        Ok(Exporter {
            client: Client::new(&self.settings)?,
            envelope: Envelope::new(resource),
            settings: self.settings.clone(),
            queue: Rc::clone(&self.queue),
            arrived: Rc::clone(&self.arrived),
            tally: Rc::clone(&self.tally),
            voice,
            stop,
            pause: Duration::from_secs(1),
            outage: None,
        })
    }

    /// Queues the span of a record, or holds it until its request ends. `None` if the record has nothing to do with spans,
    /// or its trace is not kept.
    #[inline]
    pub(crate) fn record(
        &self,
        worker: Option<u32>,
        record: Record<'_>,
        profiles: &mut Profiles,
    ) -> Option<Fate> {
        match record {
            Record::Request(request) => self.request(worker, &request, profiles),
            Record::Lost(lost) => self.lost(lost.slot, &lost.request, profiles),
            Record::Span(span) => Some(self.child(worker, span)),
            Record::Panic(panic) => self.note(panic.trace, panic.span, || Note::Panic(panic)),
            Record::Event(event) if event.level == Level::Error => {
                self.note(event.trace, event.span, || Note::Error(event))
            }
            Record::Event(_) => None,
        }
    }

    /// A request has ended whose trace is not kept: what was held for it goes with it.
    pub(crate) fn forget(&self, request: SpanId) {
        self.children.borrow_mut().end(request, None);
    }

    /// Drops children whose request is neither running nor has ended within ten seconds. `running` is asked only if there
    /// are any.
    pub(crate) fn expire_children(&self, running: impl FnOnce() -> HashSet<SpanId>) {
        let now = Instant::now();
        let mut children = self.children.borrow_mut();
        if children.has_old(now) {
            let dropped = children.expire(now, &running());
            self.tally.lose(LostSpans::Late, dropped);
        }
    }

    #[inline]
    fn request(
        &self,
        worker: Option<u32>,
        record: &RequestRecord<'_>,
        profiles: &mut Profiles,
    ) -> Option<Fate> {
        let worth = match record.sampling {
            // Most of them, where not all are kept.
            Sampling::Dropped if self.children.borrow().are_none() => return None,
            Sampling::Dropped => None,
            Sampling::Limited => {
                self.tally.lose(LostSpans::RateLimit, 1);
                None
            }
            Sampling::Ratio | Sampling::Parent => Some(Worth::Sampled),
            Sampling::Error | Sampling::Slow => Some(Worth::Notable),
        };
        self.end(worker, record, worth, profiles)
    }

    /// A request that died with its worker is kept, sampled or not; requests nobody knows have no ids.
    fn lost(&self, slot: u32, record: &RequestRecord<'_>, profiles: &mut Profiles) -> Option<Fate> {
        let is_known = !record.trace.is_none() && !record.span.is_none();
        self.end(Some(slot), record, is_known.then_some(Worth::Notable), profiles)
    }

    /// Queues the server span of a request, and behind it what was held for it.
    fn end(
        &self,
        worker: Option<u32>,
        record: &RequestRecord<'_>,
        worth: Option<Worth>,
        profiles: &mut Profiles,
    ) -> Option<Fate> {
        let held = self.children.borrow_mut().end(record.span, worth);
        let worth = worth?;
        let (children, notes, tickets, dropped) = held.map_or_else(Default::default, |held| {
            (held.spans, held.notes, held.tickets, held.dropped)
        });
        let inside = Inside { notes: &notes, dropped, is_profiled: profiles.keep(record.span) };
        let span = self.builder.request(worker, record, &inside);
        let ticket = Ticket::default().with(tickets);
        let fate = ticket.fate();
        self.push(span, ticket, worth);
        for (child, ticket) in children {
            self.push(self.builder.child(worker, &child), ticket, worth);
        }
        Some(fate)
    }

    fn child(&self, worker: Option<u32>, record: SpanRecord) -> Fate {
        let ticket = Ticket::default();
        let fate = ticket.fate();
        let arrived = self.children.borrow_mut().span(record, ticket, Instant::now());
        match arrived {
            Arrived::Held { dropped } => self.tally.lose(LostSpans::Children, dropped),
            Arrived::Late(record, ticket, worth) => {
                self.push(self.builder.child(worker, &record), ticket, worth);
            }
        }
        fate
    }

    fn note(&self, trace: TraceId, span: SpanId, note: impl FnOnce() -> Note) -> Option<Fate> {
        if trace.is_none() || span.is_none() {
            return None;
        }
        let ticket = Ticket::default();
        let fate = ticket.fate();
        let (most, now) = (self.builder.most_events(), Instant::now());
        let dropped = self.children.borrow_mut().note(span, note(), ticket, most, now);
        self.tally.lose(LostSpans::Children, dropped);
        Some(fate)
    }

    /// At the end: counts what no exporter has sent.
    pub(crate) fn give_up(&self) {
        let left = self.queue.borrow_mut().clear();
        self.tally.lose(LostSpans::Shutdown, left);
    }

    /// What became of spans so far.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Spans that wait.
    pub(crate) fn queued(&self) -> usize {
        self.queue.borrow().len()
    }

    fn push(&self, span: Encoded, ticket: Ticket, worth: Worth) {
        let mut queue = self.queue.borrow_mut();
        let dropped = queue.push(span, ticket, worth, Instant::now());
        self.tally.lose(LostSpans::Queue, dropped);
        // Not for each span: the exporter wakes when there is something at all, and when a batch is full.
        if queue.len() == 1 || queue.len() == self.settings.max_export_batch_size.get() {
            self.arrived.notify_one();
        }
    }
}

/// What became of spans: for the metrics, for `/status` and for the lines about outages.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    exported: Cell<u64>,
    dropped: Cell<[u64; LostSpans::ALL.len()]>,
    last_export_ns: Cell<Option<u64>>,
    last_error: RefCell<Option<String>>,
}

impl Tally {
    fn export(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.exported.set(self.exported.get() + count);
        self.last_export_ns.set(Some(saola_observability::clock::wall_ns()));
        metrics::spans_exported(count);
    }

    fn lose(&self, reason: LostSpans, count: usize) {
        if count == 0 {
            return;
        }
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let mut dropped = self.dropped.get();
        for (of, cell) in LostSpans::ALL.iter().zip(&mut dropped) {
            *cell += if *of == reason { count } else { 0 };
        }
        self.dropped.set(dropped);
        metrics::spans_dropped(reason, count);
    }

    fn remember_error(&self, error: String) {
        *self.last_error.borrow_mut() = Some(error);
    }

    pub(crate) fn exported(&self) -> u64 {
        self.exported.get()
    }

    pub(crate) fn dropped(&self, reason: LostSpans) -> u64 {
        let all = LostSpans::ALL.iter().zip(self.dropped.get());
        all.filter(|(of, _)| **of == reason).map(|(_, count)| count).sum()
    }

    pub(crate) fn dropped_in_all(&self) -> u64 {
        self.dropped.get().iter().sum()
    }

    pub(crate) fn last_export_ns(&self) -> Option<u64> {
        self.last_export_ns.get()
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.borrow().clone()
    }
}

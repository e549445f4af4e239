//! What the connections of a worker share: settings, slot, ids, the drain, and who is open. One thread, plain cells.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use saola_observability::Slot;
use saola_observability::clock::wall_ns;
use saola_observability::closed::Level;
#[cfg(test)]
use saola_observability::closed::Outcome;
use saola_observability::ids::{SpanId, TraceId};
use saola_observability::{Event, Value};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::ServeError;
use crate::accept::Permits;
use crate::clock::Clock;
use crate::config::Config;
use crate::connection::Connection;
use crate::drain::Draining;
use crate::request::answer::text;
use crate::request::ids::Ids;
use crate::request::sampling::Decider;
use crate::request::scope::Running;
use crate::tls::Tls;

pub(crate) struct Worker {
    pub(crate) slot: &'static Slot,
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) tls: Option<Tls>,
    pub(crate) ids: RefCell<Ids>,
    pub(crate) decider: RefCell<Decider>,
    pub(crate) draining: Cell<Option<Draining>>,
    /// The drain's deadline has passed: what ends now is cut.
    pub(crate) is_forced: Cell<bool>,
    pub(crate) permits: Rc<Permits>,
    pub(crate) answered: Cell<u64>,
    /// Connections among the open ones that belong to the application now.
    pub(crate) upgraded: Cell<usize>,
    /// Work beside the requests, which a drain waits for.
    pub(crate) background: TaskTracker,
    pub(crate) last_long_poll: Cell<Option<Instant>>,
    /// When the last request with a large response began.
    pub(crate) large_at: Cell<Option<Instant>>,
    pub(crate) flood_event: RefCell<Seldom>,
    recycle: RefCell<Recycle>,
    open: Cell<usize>,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    next_connection: Cell<u64>,
    alive: Cell<usize>,
    /// Told whenever a connection has ended.
    pub(crate) closed: Notify,
    /// What ended, for tests: status, outcome, exception, request id.
    #[cfg(test)]
    pub(crate) finished: RefCell<Vec<Finished>>,
}

/// An ended request, as its record has it.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) status: Option<u16>,
    pub(crate) outcome: Outcome,
    pub(crate) exception: Option<&'static str>,
    pub(crate) request_id: String,
    pub(crate) route: Option<String>,
}

/// What is said once a minute at most.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Option<Instant>);

impl Seldom {
    /// Says whether it is time again, and takes the turn.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.0.is_none_or(|last| last + Duration::from_mins(1) <= now);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

struct Recycle {
    left: Option<u64>,
    ask: Box<dyn FnMut()>,
}

/// A connection that is idle for less than this is not closed for another.
const LEAST_IDLE: Duration = Duration::from_secs(5);

impl Worker {
    pub(crate) fn new(
        slot: &'static Slot,
        config: Config,
        permits: Rc<Permits>,
        ask_recycle: Box<dyn FnMut()>,
        background: TaskTracker,
    ) -> Result<Rc<Self>, ServeError> {
        let mut ids = Ids::new(config.seed)?;
        let jitter =
            ids.next().checked_rem(config.max_requests_jitter.saturating_add(1)).unwrap_or(0);
        let left = (config.max_requests > 0).then(|| config.max_requests.saturating_add(jitter));
        let decider = Decider::new(
            config.sampler.clone(),
            config.trace_rate_limit,
            config.late_trace_rate_limit,
            config.slow_request,
        );
        let load = |settings| Tls::load(settings, config.http2);
        let tls = config.tls.as_ref().map(load).transpose()?;
        Ok(Rc::new(Self {
            slot,
            clock: Clock::new(slot.in_flight().detail()),
            tls,
            ids: RefCell::new(ids),
            decider: RefCell::new(decider),
            draining: Cell::new(None),
            is_forced: Cell::new(false),
            permits,
            answered: Cell::new(0),
            upgraded: Cell::new(0),
            background,
            last_long_poll: Cell::default(),
            large_at: Cell::default(),
            flood_event: RefCell::default(),
            recycle: RefCell::new(Recycle { left, ask: ask_recycle }),
            open: Cell::new(0),
            connections: RefCell::new(HashMap::new()),
            next_connection: Cell::new(0),
            alive: Cell::new(0),
            closed: Notify::new(),
            #[cfg(test)]
            finished: RefCell::new(Vec::new()),
            config,
        }))
    }

    pub(crate) fn open_requests(&self) -> usize {
        self.open.get()
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.alive.get()
    }

    /// Counts a connection whose task has been made; [`Worker::forget`] takes it off.
    pub(crate) fn begin_connection(&self) {
        self.alive.set(self.alive.get() + 1);
    }

    pub(crate) fn request_begins(&self) {
        self.open.set(self.open.get() + 1);
    }

    pub(crate) fn request_ends(&self) {
        self.open.set(self.open.get().saturating_sub(1));
        self.answered.set(self.answered.get() + 1);
        let mut recycle = self.recycle.borrow_mut();
        if let Some(left) = recycle.left {
            recycle.left = left.checked_sub(1).filter(|left| *left > 0);
            if recycle.left.is_none() {
                (recycle.ask)();
            }
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    pub(crate) fn register(&self, connection: &Rc<Connection>) -> u64 {
        let number = self.next_connection.get();
        self.next_connection.set(number.wrapping_add(1));
        self.connections.borrow_mut().insert(number, Rc::clone(connection));
        number
    }

    pub(crate) fn forget(&self, number: u64) {
        self.connections.borrow_mut().remove(&number);
        self.alive.set(self.alive.get().saturating_sub(1));
        self.closed.notify_one();
    }

    /// Has every connection look at the drain.
    pub(crate) fn look(&self) {
        for connection in self.connections.borrow().values() {
            connection.look();
        }
    }

    /// Makes room for a client that waits: no connection was free since the tick before.
    pub(crate) fn close_longest_idle(&self) {
        let connections = self.connections.borrow();
        let idle = connections.values().filter_map(|connection| {
            connection.idle_for().filter(|idle| *idle >= LEAST_IDLE).map(|idle| (idle, connection))
        });
        if let Some((_, connection)) = idle.max_by_key(|(idle, _)| *idle) {
            connection.evict();
        }
    }

    pub(crate) fn event(&self, level: Level, message: &'static str, fields: &[(&str, &str)]) {
        self.event_of(level, message, None, fields);
    }

    pub(crate) fn event_of(
        &self,
        level: Level,
        message: &'static str,
        running: Option<&Running>,
        fields: &[(&str, &str)],
    ) {
        event(self.slot, level, message, running, fields);
    }
}

/// Writes an event of the worker itself.
pub(crate) fn event(
    slot: &'static Slot,
    level: Level,
    message: &'static str,
    running: Option<&Running>,
    fields: &[(&str, &str)],
) {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, Value::Str(value))).collect();
    let facts = running.map(|running| &running.facts);
    slot.records().event(&Event {
        wall_ns: wall_ns(),
        level,
        target: "saola_worker",
        message,
        trace: facts.map_or(TraceId::NONE, |facts| facts.trace),
        span: facts.map_or(SpanId::NONE, |facts| facts.span),
        request_id: facts.map_or("", |facts| text(&facts.request_id)),
        fields: &fields,
    });
}

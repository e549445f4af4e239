//! One running request: its facts, its place in the in-flight table, and the end of its record, which comes exactly once.
//! While one of its futures is polled it is the thread's current request, which `set_route` and `trace` find.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::hint::cold_path;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use http::Version;
use saola_observability::closed::{Outcome, Phase};
use saola_observability::profile::{self, Label, OwnLabel};
use saola_observability::{Detail, End, Request};
use tokio::time::Instant;

use super::deadline::Late;
use super::facts::{Facts, Head};
use super::forwarded::Peer;
use super::ids;
use super::reading::Reading;
use super::sampling::Ended;
use crate::branch::unlikely;
use crate::clock::nanoseconds;
use crate::connection::Connection;
use crate::worker::Worker;

/// The facts of a request, from its head to the end of its response.
pub(crate) struct Running {
    pub(crate) worker: Rc<Worker>,
    pub(crate) connection: Rc<Connection>,
    pub(crate) facts: Facts,
    pub(crate) status: Cell<Option<u16>>,
    pub(crate) outcome: Cell<Option<Outcome>>,
    pub(crate) exception: Cell<Option<&'static str>>,
    pub(crate) reading: Option<Arc<Reading>>,
    pub(crate) can_upgrade: Cell<bool>,
    pub(crate) waiting: Cell<Waiting>,
    /// Its deadline has passed; the scope sees this at its next poll.
    pub(crate) expired: Cell<Option<Late>>,
    /// The last frame of its response, while nobody has asked for the next: it waits for the client.
    frame_at: Cell<Option<Instant>>,
    /// The template named last.
    pub(crate) route: Cell<Option<&'static str>>,
    entry: RefCell<Option<Request>>,
    /// What samples of its polls are taken under.
    label: Cell<Option<Label>>,
    response_bytes: Cell<u64>,
    /// Since when the event loop does nothing else; `None` while it may.
    pub(super) holds_since: Cell<Option<Instant>>,
    pub(super) waker: RefCell<Option<Waker>>,
}

/// What the handler deadline bounds at the moment.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Waiting {
    /// The service is not ready to take the request.
    Service,
    /// The service has not given a response head.
    Response,
    /// Nothing: the response has begun.
    Nothing,
}

impl Running {
    /// Begins a request: from here it is in the in-flight table, and it will be ended.
    pub(crate) fn begin(
        connection: &Rc<Connection>,
        head: Head<'_>,
        reading: Option<Arc<Reading>>,
    ) -> Rc<Self> {
        let worker = &connection.worker;
        let parent = ids::parent(&head.fields.traceparent);
        // Not `new`: this asks for the memory first, so that what is made is written there, and not moved there.
        let running = Rc::new_cyclic(|_| Self {
            worker: Rc::clone(worker),
            connection: Rc::clone(connection),
            facts: Facts::of(head, parent.as_ref(), connection),
            status: Cell::new(None),
            outcome: Cell::new(None),
            exception: Cell::new(None),
            reading,
            can_upgrade: Cell::new(false),
            waiting: Cell::new(Waiting::Service),
            expired: Cell::new(None),
            frame_at: Cell::new(None),
            route: Cell::new(None),
            entry: RefCell::new(None),
            label: Cell::new(None),
            response_bytes: Cell::new(0),
            holds_since: Cell::new(None),
            waker: RefCell::new(None),
        });
        if !running.is_stream() {
            running.holds_since.set(Some(running.facts.start));
        }
        if worker.slot.in_flight().detail() != Detail::Nothing {
            let entry = running.facts.enter_table(parent.as_ref(), connection);
            running.label.set(entry.label());
            *running.entry.borrow_mut() = Some(entry);
        }
        worker.request_begins();
        connection.begins(&running);
        running
    }

    /// Who asks.
    pub(crate) fn peer(&self) -> Peer {
        match &self.facts.peer {
            Some(peer) => Peer::clone(peer),
            None => self.connection.peer.borrow().clone(),
        }
    }

    /// Keeps what wakes the task that polls it. One that has a connection for itself is polled whenever its connection is.
    pub(crate) fn remember(&self, waker: &Waker) {
        if !self.is_stream() {
            return;
        }
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }

    pub(crate) fn set_route(&self, template: &str) {
        let named = match self.entry.borrow_mut().as_mut() {
            Some(entry) => entry.set_route(template),
            None => self.worker.slot.in_flight().route(template),
        };
        self.route.set(Some(named));
    }

    pub(crate) fn responds(&self, status: u16) {
        self.status.set(Some(status));
        self.waiting.set(Waiting::Nothing);
        if let Some(entry) = self.entry.borrow_mut().as_mut() {
            entry.set_phase(Phase::Response);
        }
    }

    /// Counts a frame of the response; says whether the response is whole.
    pub(crate) fn sent(&self, bytes: u64, promised: Option<u64>, is_end: bool) -> bool {
        let sent = self.response_bytes.get().saturating_add(bytes);
        self.response_bytes.set(sent);
        match (promised, is_end) {
            (Some(promised), true) if sent < promised => {
                self.body_failed();
                return false;
            }
            (Some(promised), _) if sent >= promised => self.completes(),
            (_, true) => self.completes(),
            (_, false) => return false,
        }
        true
    }

    /// The response has reached its end. What was marked before (timeout, panic) stays.
    pub(crate) fn completes(&self) {
        if self.outcome.get().is_none() {
            self.outcome.set(Some(Outcome::Ok));
        }
    }

    pub(crate) fn body_failed(&self) {
        self.outcome.set(Some(Outcome::Aborted));
        self.exception.set(Some("response_body"));
    }

    /// Notes whether the last poll of the response body gave a frame. Only a stream that shares its connection is asked.
    pub(crate) fn gave_frame(&self, is_frame: bool) {
        self.frame_at.set((is_frame && self.is_stream()).then(Instant::now));
    }

    /// Says whether it shares its connection with others.
    pub(crate) fn is_stream(&self) -> bool {
        self.facts.version == Version::HTTP_2
    }

    /// Since when its response waits for the client, and not for the service.
    pub(crate) fn waits_for_client(&self) -> Option<Instant> {
        self.frame_at.get()
    }

    /// Says whether bytes of the request are still to come from the client.
    pub(crate) fn is_body_unread(&self) -> bool {
        self.reading.as_ref().is_some_and(|reading| !reading.is_read())
    }

    fn end(self: &Rc<Self>) {
        let now = self.worker.clock.now();
        self.leaves_loop_at(now);
        let outcome = self.outcome.get().unwrap_or(Outcome::Aborted);
        if unlikely(outcome == Outcome::Aborted && self.worker.is_forced.get()) {
            self.exception.set(Some("drain_deadline"));
        }
        if let Some(entry) = self.entry.borrow_mut().take() {
            self.leaves_table(entry, outcome, now);
        }
        #[cfg(test)]
        self.worker.finished.borrow_mut().push(crate::worker::Finished {
            status: self.status.get(),
            outcome,
            exception: self.exception.get(),
            request_id: super::answer::text(&self.facts.request_id).to_owned(),
            route: self.route.get().map(str::to_owned),
        });
        self.worker.request_ends();
        self.connection.ends(self, now);
    }

    /// Counts and records what has become of it.
    fn leaves_table(&self, entry: Request, outcome: Outcome, now: Instant) {
        let facts = &self.facts;
        let duration = now.saturating_duration_since(facts.start);
        let ended = Ended { status: self.status.get(), outcome, duration };
        let mut end = End {
            // Not from `now`: that would be another subtraction of the same two instants.
            end_ns: entry.start_ns().saturating_add(nanoseconds(duration)),
            outcome,
            status: self.status.get(),
            request_bytes: self.reading.as_ref().map_or(0, |reading| reading.bytes()),
            response_bytes: self.response_bytes.get(),
            exception: self.exception.get(),
            ..End::default()
        };
        let peer;
        if entry.detail() == Detail::Full {
            peer = self.connection.peer.borrow();
            end.sampling = self.worker.decider.borrow_mut().at_end(facts.sampling, ended, now);
            facts.tell(&mut end, entry.method(), facts.peer.as_deref().unwrap_or(&peer));
        }
        entry.end(&end);
    }
}

/// Who owns the record: the scope, then the response body. Dropping it ends the record.
pub(crate) struct Holder(pub(crate) Rc<Running>);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.end();
    }
}

thread_local! {
    static CURRENT: Cell<Option<Rc<Running>>> = const { Cell::new(None) };
}

/// The request whose future is being polled on this thread.
pub(crate) fn current() -> Option<Rc<Running>> {
    let looked_at = |current: &Cell<Option<Rc<Running>>>| {
        let running = current.take();
        current.set(running.clone());
        running
    };
    CURRENT.try_with(looked_at).ok().flatten()
}

/// Makes a request the thread's current one until dropped, also by unwinding; scopes nest.
pub(crate) struct Entered {
    before: Option<Rc<Running>>,
    /// Held, not read: samples are taken for the request meanwhile.
    _label: profile::Entered<'static>,
}

#[inline]
pub(crate) fn enter(running: &Rc<Running>) -> Entered {
    Entered {
        before: CURRENT.replace(Some(Rc::clone(running))),
        _label: running.label.get().map_or_else(profile::enter_none, Label::enter),
    }
}

/// What work of the current request on another thread is to be sampled under.
pub(crate) fn own_label() -> Option<OwnLabel> {
    current().and_then(|running| running.label.get()).map(Label::to_own)
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

/// Calls into the service's code as this request; a panic in it becomes an error and is marked.
pub(crate) fn caught<T>(running: &Rc<Running>, call: impl FnOnce() -> T) -> Result<T, Panicked> {
    let _entered = enter(running);
    // May be asserted: what the closure touched is the request's own and is dropped after a panic, never called again.
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        cold_path();
        running.outcome.set(Some(Outcome::Panic));
        running.exception.set(Some("panic"));
        Panicked::from(payload)
    })
}

/// A panic of the service. The panic hook has recorded its message and place.
#[derive(Debug, thiserror::Error)]
#[error("the service panicked")]
#[non_exhaustive]
pub struct Panicked;

impl From<Box<dyn Any + Send>> for Panicked {
    fn from(payload: Box<dyn Any + Send>) -> Self {
        // A payload may itself panic when dropped; that one takes the connection's task, not the worker.
        drop(payload);
        Self
    }
}

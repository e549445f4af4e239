//! What a handler can ask and tell about its own request, and how this follows work to a blocking thread.

use std::cell::RefCell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use http::HeaderValue;
use saola_observability::Panic;
use saola_observability::Slot;
use saola_observability::clock::wall_ns;
use saola_observability::ids::{SpanId, TraceId};
use saola_observability::profile::OwnLabel;
use tokio::sync::watch;

use super::answer::text;
use super::forwarded::Peer;
use super::scope::{self, Panicked, Running};

/// The trace that the current request belongs to, for outgoing calls and log lines.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The trace, from the caller or made here.
    pub trace_id: TraceId,
    /// The span of this request: the parent of whatever it calls.
    pub span_id: SpanId,
    /// The head decision. Errors and slow requests are kept even without it.
    pub is_sampled: bool,
    request_id: HeaderValue,
    tracestate: Option<HeaderValue>,
}

impl Trace {
    fn of(running: &Running) -> Self {
        let facts = &running.facts;
        Self {
            trace_id: facts.trace,
            span_id: facts.span,
            is_sampled: facts.sampling.is_sampled(),
            request_id: facts.request_id.clone(),
            tracestate: facts.tracestate.clone(),
        }
    }

    /// The request's id, as in its `X-Request-Id`.
    pub fn request_id(&self) -> &str {
        text(&self.request_id)
    }

    /// The value of `traceparent` for an outgoing call (W3C Trace Context).
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }

    /// The value of `tracestate` for an outgoing call; `None` when there is nothing to pass on.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_ref().map(text)
    }
}

/// Names the route of the current request, as its template: `/orders/{id}`, never the path itself.
///
/// The last call wins. Outside a request it does nothing.
pub fn set_route(template: &str) {
    if let Some(running) = scope::current() {
        running.set_route(template);
    }
}

/// The trace of the request that is being served on this thread; `None` outside one.
///
/// Inside [`blocking`] it is that of the request which called it.
pub fn trace() -> Option<Trace> {
    match scope::current() {
        Some(running) => Some(Trace::of(&running)),
        None => CARRIED.try_with(|carried| carried.try_borrow().ok()?.clone()).ok().flatten(),
    }
}

/// Who asks, as the request that is being served on this thread knows it; `None` outside one, and inside [`blocking`].
pub fn peer() -> Option<Peer> {
    scope::current().map(|running| running.peer())
}

/// Runs work that takes more than a millisecond on the blocking pool, as a part of the current request.
///
/// A full pool makes the call wait; the wait counts into the request's deadline.
///
/// # Panics
///
/// A panic of `work` goes on in the caller, where it is the request's.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (carried, label) = (trace(), scope::own_label());
    let joined = tokio::task::spawn_blocking(move || {
        let _restored = Carried(CARRIED.replace(carried));
        let _sampled = label.as_ref().map(OwnLabel::enter);
        work()
    });
    match joined.await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(payload) => std::panic::resume_unwind(payload),
            // Cancelled: the runtime is being shut down and will not poll this again.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Runs a part of the current request that may panic, and leaves the answer to the caller.
///
/// A panic in it is reported, counted and traced as one that nobody caught, which the worker would answer itself. So an
/// application can say in its own form that something went wrong.
///
/// # Errors
///
/// [`Panicked`] says that there was one, and no more: its text is for the log.
pub async fn caught<F: Future>(work: F) -> Result<F::Output, Panicked> {
    let mut work = pin!(work);
    poll_fn(|context| {
        let poll = || work.as_mut().poll(context);
        let polled = match scope::current() {
            Some(running) => scope::caught(&running, poll),
            // May be asserted: it is dropped after a panic, never polled again.
            None => catch_unwind(AssertUnwindSafe(poll)).map_err(Panicked::from),
        };
        match polled {
            Ok(poll) => poll.map(Ok),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    })
    .await
}

/// Waits until this worker begins to drain: for what would go on for ever, such as a WebSocket or work in the background.
///
/// To be awaited on the worker's thread; elsewhere it never comes.
pub async fn draining() {
    let mut told = DRAINING.with(watch::Sender::subscribe);
    // The sender lives as long as the thread.
    let _ = told.wait_for(|is_draining| *is_draining).await;
}

pub(crate) fn begin_draining(is_draining: bool) {
    DRAINING.with(|told| told.send_replace(is_draining));
}

/// Sets the longest request body that the current request may have, in bytes; 0 is no limit.
///
/// For a route that takes more, or less, than `limit_request_body` says. To be called before the body is read; outside a
/// request it does nothing.
pub fn body_limit(bytes: u64) {
    if let Some(running) = scope::current()
        && let Some(reading) = running.reading.as_deref()
    {
        reading.set_limit(bytes);
    }
}

thread_local! {
    static DRAINING: watch::Sender<bool> = watch::Sender::new(false);
    static CARRIED: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

struct Carried(Option<Trace>);

impl Drop for Carried {
    fn drop(&mut self) {
        CARRIED.set(self.0.take());
    }
}

/// Has panics inside requests recorded instead of printed; others are recorded and left to the hook before.
pub(crate) fn record_panics(slot: &'static Slot) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let running = scope::current();
            let trace = trace();
            let slot = running.as_ref().map_or(slot, |running| running.worker.slot);
            let route = running.as_ref().and_then(|running| running.route.get());
            let location = info.location().map(ToString::to_string).unwrap_or_default();
            let message = info.payload_as_str().unwrap_or("(no message)");
            slot.records().panic(&Panic {
                wall_ns: wall_ns(),
                trace: trace.as_ref().map_or(TraceId::NONE, |trace| trace.trace_id),
                span: trace.as_ref().map_or(SpanId::NONE, |trace| trace.span_id),
                route: route.unwrap_or(""),
                message: message.get(..message.floor_char_boundary(1024)).unwrap_or(message),
                location: &location,
                backtrace: "",
            });
            if trace.is_none() {
                previous(info);
            }
        }));
    });
}

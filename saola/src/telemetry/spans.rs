//! Spans of `tracing` inside a request: each is a record in the ring when it has ended.
//!
//! Its name, kind and status may be given as the fields `otel.name`, `otel.kind`, `otel.status_code` and
//! `otel.status_description`, the names that the `tracing-opentelemetry` crate made usual.

use saola_observability::closed::{SpanKind, SpanStatus};
use saola_observability::record::OwnedValue;
use saola_observability::{Slot, Span, SpanId, clock};
use saola_worker::Trace;
use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan as _;

use super::fields::Fields;

/// Where in a request something happens.
#[derive(Clone)]
pub(crate) struct Place {
    /// The request's trace and server span.
    pub(crate) trace: Trace,
    /// The innermost span: the parent of what comes next.
    pub(crate) span: SpanId,
}

/// A span that has not ended.
pub(super) struct Open {
    /// The request, and this span in it.
    place: Place,
    parent: SpanId,
    name: &'static str,
    start_wall_ns: u64,
    start_ns: u64,
    fields: Fields,
}

/// The request that is polled on this thread, outside any child span.
pub(super) fn of_request() -> Option<Place> {
    saola_worker::trace().map(|trace| Place { span: trace.span_id, trace })
}

/// Where this thread is: in the innermost span that is recorded, else in the request itself.
pub(crate) fn current() -> Option<Place> {
    let in_span = tracing::dispatcher::get_default(|dispatch| {
        let registry = dispatch.downcast_ref::<Registry>()?;
        let innermost = registry.span(tracing::Span::current().id().as_ref()?)?;
        innermost.scope().find_map(|span| span.extensions().get().map(Open::place))
    });
    in_span.or_else(of_request)
}

impl Open {
    /// A span that begins now; `None` when the kernel gives no random numbers to make its id of.
    pub(super) fn new(above: Place, name: &'static str) -> Option<Self> {
        Some(Self {
            place: Place { trace: above.trace, span: saola_worker::new_span_id()? },
            parent: above.span,
            name,
            start_wall_ns: clock::wall_ns(),
            start_ns: clock::monotonic_ns(),
            fields: Fields::default(),
        })
    }

    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    pub(super) fn record(&mut self, values: impl FnOnce(&mut Fields)) {
        values(&mut self.fields);
    }

    /// Writes it down.
    pub(super) fn end(self, slot: &'static Slot) {
        let named = |wanted: &str| {
            let found = self.fields.pairs.iter().find(|(name, _)| *name == wanted);
            found.and_then(|(_, value)| match value {
                OwnedValue::Str(text) => Some(text.as_str()),
                _ => None,
            })
        };
        let mut attributes = self.fields.borrowed();
        attributes.retain(|(name, _)| !SPECIAL.contains(name));
        slot.records().span(&Span {
            start_ns: self.start_wall_ns,
            duration_ns: clock::monotonic_ns().saturating_sub(self.start_ns),
            trace: self.place.trace.trace_id,
            span: self.place.span,
            parent: self.parent,
            request: self.place.trace.span_id,
            kind: named(KIND).map_or(SpanKind::Internal, kind),
            status: named(STATUS).map_or(SpanStatus::Unset, status),
            status_text: named(STATUS_TEXT).unwrap_or(""),
            name: named(NAME).unwrap_or(self.name),
            attributes: &attributes,
        });
    }
}

fn kind(text: &str) -> SpanKind {
    let mut known = SpanKind::ALL.iter().copied();
    let found = known.find(|kind| text.eq_ignore_ascii_case(kind.as_str()));
    found.unwrap_or(SpanKind::Internal)
}

fn status(text: &str) -> SpanStatus {
    let mut known = SpanStatus::ALL.iter().copied();
    let found = known.find(|status| text.eq_ignore_ascii_case(status.as_str()));
    found.unwrap_or(SpanStatus::Unset)
}

const NAME: &str = "otel.name";
const KIND: &str = "otel.kind";
const STATUS: &str = "otel.status_code";
const STATUS_TEXT: &str = "otel.status_description";
const SPECIAL: [&str; 4] = [NAME, KIND, STATUS, STATUS_TEXT];

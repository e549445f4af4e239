//! Spans of `tracing` inside a request: each is a record in the ring when it has ended.
//!
//! Its name, kind and status may be given as the fields `otel.name`, `otel.kind`, `otel.status_code` and
//! `otel.status_description`, the names that the `tracing-opentelemetry` crate made usual.

use saola_observability::closed::{SpanKind, SpanStatus};
use saola_observability::{Slot, Span, SpanId, Value, clock};
use saola_worker::Trace;
use tracing::Metadata;
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
    pub(super) fn new(above: Place, metadata: &'static Metadata<'static>) -> Option<Self> {
        Some(Self {
            place: Place { trace: above.trace, span: saola_worker::new_span_id()? },
            parent: above.span,
            name: metadata.name(),
            start_wall_ns: clock::wall_ns(),
            start_ns: clock::monotonic_ns(),
            fields: Fields::with_room(metadata.fields().len()),
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
        let fields = self.fields.pairs();
        let (mut attributes, mut special) = (Vec::with_capacity(fields.len()), [None; 4]);
        for (name, value) in fields {
            match (SPECIAL.iter().position(|known| *known == name), value) {
                (Some(at), Value::Str(text)) => special[at] = Some(text),
                (Some(_), _) => (),
                (None, value) => attributes.push((name, value)),
            }
        }
        let [name, kind, status, status_text] = special;
        slot.records().span(&Span {
            start_ns: self.start_wall_ns,
            duration_ns: clock::monotonic_ns().saturating_sub(self.start_ns),
            trace: self.place.trace.trace_id,
            span: self.place.span,
            parent: self.parent,
            request: self.place.trace.span_id,
            kind: kind.map_or(SpanKind::Internal, kind_of),
            status: status.map_or(SpanStatus::Unset, status_of),
            status_text: status_text.unwrap_or_default(),
            name: name.unwrap_or(self.name),
            attributes: &attributes,
        });
    }
}

fn kind_of(text: &str) -> SpanKind {
    let mut known = SpanKind::ALL.iter().copied();
    let found = known.find(|kind| text.eq_ignore_ascii_case(kind.as_str()));
    found.unwrap_or(SpanKind::Internal)
}

fn status_of(text: &str) -> SpanStatus {
    let mut known = SpanStatus::ALL.iter().copied();
    let found = known.find(|status| text.eq_ignore_ascii_case(status.as_str()));
    found.unwrap_or(SpanStatus::Unset)
}

/// Fields that say what a span is, in this order: name, kind, status and the status's text.
const SPECIAL: [&str; 4] =
    ["otel.name", "otel.kind", "otel.status_code", "otel.status_description"];

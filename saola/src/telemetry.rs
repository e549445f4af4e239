//! What `tracing` says inside a worker: events and ended spans become records in its ring, with the ids of the request
//! they belong to.

mod fields;
mod spans;
mod statement;

use saola_observability::{Event, Level, Slot, SpanId, TraceId, clock};
use saola_observer::LevelFilter;
use tracing::Metadata;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use fields::Fields;
use spans::Open;
pub(crate) use spans::current;

/// Makes `tracing` write into the slot of this process, from now on and in every thread.
pub(crate) fn install(slot: &'static Slot, events: LevelFilter, spans: LevelFilter) {
    let subscriber = Registry::default().with(Ring { slot, events, spans });
    // Only an application that set its own subscriber before the fork has one already: then its choice stands.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct Ring {
    slot: &'static Slot,
    events: LevelFilter,
    spans: LevelFilter,
}

impl Ring {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let filter = if metadata.is_span() { &self.spans } else { &self.events };
        filter.allows(metadata.target(), level(metadata))
    }
}

impl Layer<Registry> for Ring {
    /// Decided once for each place in the code: what is filtered out costs a load and a branch.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, Registry>) -> bool {
        self.wants(metadata)
    }

    fn on_new_span(&self, given: &Attributes<'_>, id: &Id, context: Context<'_, Registry>) {
        let Some(span) = context.span(id) else { return };
        let above = span.parent().and_then(|above| above.extensions().get().map(Open::place));
        // A span outside any request belongs to no trace.
        let Some(place) = above.or_else(spans::of_request) else { return };
        if let Some(mut open) = Open::new(place, span.metadata()) {
            open.record(|fields| given.record(fields));
            span.extensions_mut().insert(open);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, Registry>) {
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<Open>()
        {
            open.record(|fields| values.record(fields));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, Registry>) {
        if let Some(span) = context.span(&id)
            && let Some(open) = span.extensions_mut().remove::<Open>()
        {
            open.end(self.slot);
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, Registry>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // A detached task is outside its request's polls, but its span remembers where it came from.
        let inside = context.event_span(event);
        let place = inside.and_then(|span| span.extensions().get().map(Open::place));
        let place = place.or_else(spans::of_request);
        let trace = place.as_ref().map(|place| &place.trace);
        self.slot.records().event(&Event {
            wall_ns: clock::wall_ns(),
            level: level(event.metadata()),
            target: event.metadata().target(),
            message: fields.message(),
            trace: trace.map_or(TraceId::NONE, |trace| trace.trace_id),
            span: trace.map_or(SpanId::NONE, |trace| trace.span_id),
            request_id: trace.map_or("", |trace| trace.request_id()),
            fields: &fields.pairs().collect::<Vec<_>>(),
        });
    }
}

fn level(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

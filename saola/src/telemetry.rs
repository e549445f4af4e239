//! `tracing` events inside a worker become records in its ring, with the ids of the request they happen in.

use std::fmt;

use saola_observability::record::OwnedValue;
use saola_observability::{Event, Level, Slot, SpanId, TraceId, Value, clock};
use saola_observer::LevelFilter;
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Makes `tracing` write into the slot of this process, from now on and in every thread.
pub(crate) fn install(slot: &'static Slot, levels: LevelFilter) {
    let subscriber = Registry::default().with(Ring { slot, levels });
    // Only an application that set its own subscriber before the fork has one already: then its choice stands.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct Ring {
    slot: &'static Slot,
    levels: LevelFilter,
}

impl<S: Subscriber> Layer<S> for Ring {
    /// Decided once for each place in the code: what is filtered out costs a load and a branch.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.levels.allows(metadata.target(), level(metadata)) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        self.levels.allows(metadata.target(), level(metadata))
    }

    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let pairs: Vec<(&str, Value<'_>)> =
            fields.pairs.iter().map(|(name, value)| (*name, borrowed(value))).collect();
        let trace = saola_worker::trace();
        self.slot.records().event(&Event {
            wall_ns: clock::wall_ns(),
            level: level(event.metadata()),
            target: event.metadata().target(),
            message: &fields.message,
            trace: trace.as_ref().map_or(TraceId::NONE, |trace| trace.trace_id),
            span: trace.as_ref().map_or(SpanId::NONE, |trace| trace.span_id),
            request_id: trace.as_ref().map_or("", saola_worker::Trace::request_id),
            fields: &pairs,
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

fn borrowed(value: &OwnedValue) -> Value<'_> {
    match value {
        OwnedValue::Str(text) => Value::Str(text),
        OwnedValue::U64(number) => Value::U64(*number),
        OwnedValue::I64(number) => Value::I64(*number),
        OwnedValue::F64(number) => Value::F64(*number),
        OwnedValue::Bool(yes) => Value::Bool(*yes),
    }
}

/// The fields of an event: `message` apart, the others in their order.
#[derive(Default)]
struct Fields {
    message: String,
    pairs: Vec<(&'static str, OwnedValue)>,
}

impl Fields {
    fn push(&mut self, field: &Field, value: OwnedValue) {
        match value {
            OwnedValue::Str(text) if field.name() == "message" => self.message = text,
            value => self.pairs.push((field.name(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, OwnedValue::Str(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, OwnedValue::Str(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, OwnedValue::U64(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, OwnedValue::I64(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, OwnedValue::F64(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, OwnedValue::Bool(value));
    }
}

//! What happened inside a request besides its spans: errors that were logged, and a panic. They become events of its server
//! span (OpenTelemetry semantic conventions, "Exceptions").

use saola_observability::record::{EventRecord, PanicRecord};

use super::attributes::Attributes;
use crate::otlp::settings::SpanLimits;
use crate::otlp::wire::{self, Field};

/// Something to be told with a request.
#[derive(Debug)]
pub(crate) enum Note {
    /// An event of level `error`.
    Error(EventRecord),
    /// A panic of the handler.
    Panic(PanicRecord),
}

impl Note {
    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Error(event) => event.message.len() + event.target.len(),
                Self::Panic(panic) => panic.message.len() + panic.backtrace.len(),
            }
    }

    /// The event, encoded.
    pub(super) fn event(&self, limits: SpanLimits) -> Vec<u8> {
        match self {
            Self::Error(error) => event(error.wall_ns, &error.message, limits, |attributes| {
                attributes.text("level", error.level.as_str());
                attributes.text("target", &error.target);
                attributes.given(&error.fields);
            }),
            Self::Panic(panic) => event(panic.wall_ns, "exception", limits, |attributes| {
                attributes.text("exception.type", "panic");
                attributes.text("exception.message", &panic.message);
                // Without a stack, the place is the best that is known of it.
                let is_bare = panic.backtrace.is_empty();
                let stack = if is_bare { &panic.location } else { &panic.backtrace };
                attributes.text("exception.stacktrace", stack);
            }),
        }
    }
}

/// Said on the span of a request that had more children than are kept, whatever the limits are.
pub(super) fn children_dropped(wall_ns: u64, count: u32) -> Vec<u8> {
    event(wall_ns, "dropped children", SpanLimits::default(), |attributes| {
        attributes.number("count", count.into());
    })
}

fn event(
    wall_ns: u64,
    name: &str,
    limits: SpanLimits,
    fill: impl FnOnce(&mut Attributes<'_>),
) -> Vec<u8> {
    let mut out = Vec::new();
    wire::fixed64(&mut out, TIME, wall_ns);
    wire::bytes(&mut out, NAME, name.as_bytes());
    let mut attributes = Attributes::new(&mut out, ATTRIBUTES, limits);
    fill(&mut attributes);
    attributes.finish(DROPPED_ATTRIBUTES);
    out
}

// opentelemetry/proto/trace/v1/trace.proto, Span.Event
const TIME: Field = 1;
const NAME: Field = 2;
const ATTRIBUTES: Field = 3;
const DROPPED_ATTRIBUTES: Field = 4;

//! What happened inside a request besides its spans: errors that were logged, and a panic. They become events of its server
//! span (OpenTelemetry semantic conventions, "Exceptions").

use std::time::{Duration, SystemTime};

use opentelemetry::trace::Event;
use saola_observability::record::{EventRecord, PanicRecord};

use super::attributes::Attributes;
use crate::otlp::settings::SpanLimits;

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

    pub(super) fn event(&self, limits: SpanLimits) -> Event {
        let mut attributes = Attributes::new(limits);
        let (name, wall_ns) = match self {
            Self::Error(event) => {
                attributes.text("level", event.level.as_str());
                attributes.text("target", &event.target);
                attributes.given(&event.fields);
                (event.message.clone(), event.wall_ns)
            }
            Self::Panic(panic) => {
                attributes.text("exception.type", "panic");
                attributes.text("exception.message", &panic.message);
                // Without a stack, the place is the best that is known of it.
                let is_bare = panic.backtrace.is_empty();
                let stack = if is_bare { &panic.location } else { &panic.backtrace };
                attributes.text("exception.stacktrace", stack);
                ("exception".to_owned(), panic.wall_ns)
            }
        };
        let (attributes, dropped) = attributes.finish();
        Event::new(name, time(wall_ns), attributes, dropped)
    }
}

/// Said on the span of a request that had more children than are kept.
pub(super) fn children_dropped(wall_ns: u64, count: u32) -> Event {
    let count = opentelemetry::KeyValue::new("count", i64::from(count));
    Event::new("dropped children", time(wall_ns), vec![count], 0)
}

pub(super) fn time(wall_ns: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(wall_ns)
}

//! What the exporter crate tells only to `tracing`: that an error is final, and how many spans were refused.
//!
//! `opentelemetry-otlp` 0.33 answers an export with one text for all errors, and with success when the collector
//! refused a part. Both are in its internal events, so each call runs under this subscriber. Tests pin the names.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use saola_observability::closed;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::bridge;

/// Listens to one export.
#[derive(Clone, Default, Debug)]
pub(crate) struct Witness {
    heard: Arc<Heard>,
}

#[derive(Default, Debug)]
struct Heard {
    is_final: AtomicBool,
    rejected: AtomicU64,
}

impl Witness {
    /// Whether the collector's answer says that sending again is of no use.
    pub(crate) fn is_final(&self) -> bool {
        self.heard.is_final.load(Ordering::Relaxed)
    }

    /// Spans that the collector refused while it took the others.
    pub(crate) fn rejected(&self) -> u64 {
        self.heard.rejected.load(Ordering::Relaxed)
    }
}

impl Subscriber for Witness {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "opentelemetry-otlp" && *metadata.level() <= Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut found = Found::default();
        event.record(&mut found);
        match found.name.as_str() {
            "Export.Failed.NonRetryable" => self.heard.is_final.store(true, Ordering::Relaxed),
            "TonicTracesClient.PartialSuccess" | "HttpTraceClient.PartialSuccess" => {
                self.heard.rejected.fetch_add(found.rejected, Ordering::Relaxed);
                // Why a part was refused, and warnings about what was taken, stand nowhere else.
                bridge::hear(closed::Level::Warn, "opentelemetry-otlp", &found.text);
            }
            _ => {}
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Found {
    name: String,
    rejected: u64,
    /// The collector's own words.
    text: String,
}

impl Visit for Found {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "name" => value.clone_into(&mut self.name),
            "error_message" => value.clone_into(&mut self.text),
            _ => {}
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "rejected_spans" {
            self.rejected = u64::try_from(value).unwrap_or(0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

//! The attributes of a span or of one of its events, within their limits.

use opentelemetry::{Key, KeyValue, Value};
use saola_observability::record::OwnedValue;

use crate::logfmt::is_secret;
use crate::otlp::settings::SpanLimits;

/// Attributes under construction.
pub(super) struct Attributes {
    limits: SpanLimits,
    pairs: Vec<KeyValue>,
    dropped: u32,
}

impl Attributes {
    pub(super) fn new(limits: SpanLimits) -> Self {
        // A request has about so many.
        Self { limits, pairs: Vec::with_capacity(16), dropped: 0 }
    }

    /// What was kept, and how many had to be left out.
    pub(super) fn finish(self) -> (Vec<KeyValue>, u32) {
        (self.pairs, self.dropped)
    }

    pub(super) fn push(&mut self, key: impl Into<Key>, value: impl Into<Value>) {
        if self.pairs.len() < self.limits.attributes {
            self.pairs.push(KeyValue::new(key, value));
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn text(&mut self, key: impl Into<Key>, value: &str) {
        let kept = value.split_at(value.floor_char_boundary(self.limits.value_bytes)).0;
        self.push(key, kept.to_owned());
    }

    pub(super) fn text_if_any(&mut self, key: &'static str, value: &str) {
        if !value.is_empty() {
            self.text(key, value);
        }
    }

    pub(super) fn number(&mut self, key: impl Into<Key>, value: u64) {
        self.push(key, i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub(super) fn worker(&mut self, worker: Option<u32>) {
        if let Some(worker) = worker {
            self.push("saola.worker", i64::from(worker));
        }
    }

    /// What the application gave.
    pub(super) fn given(&mut self, fields: &[(String, OwnedValue)]) {
        for (key, value) in fields {
            let key = key.clone();
            match value {
                _ if is_secret(&key) => self.text(key, "***"),
                OwnedValue::Str(text) => self.text(key, text),
                OwnedValue::U64(number) => self.number(key, *number),
                OwnedValue::I64(number) => self.push(key, *number),
                OwnedValue::F64(number) => self.push(key, *number),
                OwnedValue::Bool(yes) => self.push(key, *yes),
            }
        }
    }
}

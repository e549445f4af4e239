//! The fields of a `tracing` event or span, as a record holds them. A field whose name says that it is a secret is
//! hidden here, before anything of it is written down.

use std::fmt;

use saola_observability::Value;
use saola_observability::record::OwnedValue;
use saola_observer::logfmt::is_secret;
use tracing::field::{Field, Visit};

/// The fields of an event or a span: `message` apart, the others in their order.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) message: String,
    pub(super) pairs: Vec<(&'static str, OwnedValue)>,
}

impl Fields {
    /// The fields as a writer of records wants them.
    pub(super) fn borrowed(&self) -> Vec<(&str, Value<'_>)> {
        self.pairs.iter().map(|(name, value)| (*name, borrowed(value))).collect()
    }

    fn push(&mut self, field: &Field, value: OwnedValue) {
        let value = match value {
            _ if is_secret(field.name()) => OwnedValue::Str(HIDDEN.to_owned()),
            OwnedValue::Str(text) if field.name() == "message" => {
                self.message = text;
                return;
            }
            value => value,
        };
        // A span's field may be recorded again: the last word counts.
        match self.pairs.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, known)) => *known = value,
            None => self.pairs.push((field.name(), value)),
        }
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

const HIDDEN: &str = "***";

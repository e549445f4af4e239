//! The fields of a `tracing` event or span, as a record holds them. A field whose name says that it is a secret, and the
//! values in the text of a statement, are hidden here, before anything of it is written down.

use std::fmt::{self, Write as _};
use std::mem;
use std::ops::Range;

use saola_observability::Value;
use saola_observer::logfmt::is_secret;
use tracing::field::{Field, Visit};

use super::statement::{is_statement, without_values};

/// The fields of an event or a span: `message` apart, the others in their order.
#[derive(Default)]
pub(super) struct Fields {
    /// Every text, one behind the other: two allocations a span, however many fields it has.
    texts: String,
    message: Range<usize>,
    pairs: Vec<(&'static str, Kept)>,
}

/// A value; texts are a part of [`Fields::texts`].
enum Kept {
    Text(Range<usize>),
    U64(u64),
    I64(i64),
    F64(f64),
    Bool(bool),
}

impl Fields {
    /// None yet, with room for so many.
    pub(super) fn with_room(count: usize) -> Self {
        let texts = String::with_capacity(count.saturating_mul(TEXT));
        Self { texts, message: 0..0, pairs: Vec::with_capacity(count) }
    }

    /// What an event says.
    pub(super) fn message(&self) -> &str {
        self.text(&self.message)
    }

    /// The fields as a writer of records wants them.
    pub(super) fn pairs(&self) -> impl ExactSizeIterator<Item = (&'static str, Value<'_>)> {
        self.pairs.iter().map(|(name, kept)| {
            let value = match kept {
                Kept::Text(range) => Value::Str(self.text(range)),
                Kept::U64(number) => Value::U64(*number),
                Kept::I64(number) => Value::I64(*number),
                Kept::F64(number) => Value::F64(*number),
                Kept::Bool(yes) => Value::Bool(*yes),
            };
            (*name, value)
        })
    }

    fn text(&self, range: &Range<usize>) -> &str {
        self.texts.get(range.clone()).unwrap_or_default()
    }

    fn push_text(&mut self, field: &Field, write: impl FnOnce(&mut String)) {
        let start = self.texts.len();
        if is_secret(field.name()) {
            self.texts.push_str(HIDDEN);
        } else {
            write(&mut self.texts);
            if is_statement(field.name()) {
                let statement = without_values(&self.texts.split_off(start));
                self.texts.push_str(&statement);
            }
        }
        let range = start..self.texts.len();
        match field.name() {
            "message" => {
                let before = mem::replace(&mut self.message, range);
                self.forget(&before);
            }
            _ => self.set(field, Kept::Text(range)),
        }
    }

    fn push(&mut self, field: &Field, value: Kept) {
        if is_secret(field.name()) {
            self.push_text(field, |_| ());
        } else {
            self.set(field, value);
        }
    }

    /// A span's field may be recorded again: the last word counts.
    fn set(&mut self, field: &Field, value: Kept) {
        match self.pairs.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, known)) => {
                if let Kept::Text(before) = mem::replace(known, value) {
                    self.forget(&before);
                }
            }
            None => self.pairs.push((field.name(), value)),
        }
    }

    /// Takes a text out that another has replaced: a span that lives long may say how it stands without end.
    fn forget(&mut self, gone: &Range<usize>) {
        self.texts.replace_range(gone.clone(), "");
        let texts = self.pairs.iter_mut().filter_map(|(_, kept)| match kept {
            Kept::Text(range) => Some(range),
            _ => None,
        });
        for range in texts.chain([&mut self.message]) {
            if range.start >= gone.end {
                *range = range.start - gone.len()..range.end - gone.len();
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push_text(field, |texts| {
            // A `Debug` that fails has said what it could.
            let _ = write!(texts, "{value:?}");
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push_text(field, |texts| texts.push_str(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Kept::U64(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Kept::I64(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Kept::F64(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Kept::Bool(value));
    }
}

const HIDDEN: &str = "***";
/// Bytes of a usual text.
const TEXT: usize = 24;

#[cfg(test)]
mod tests {
    use tracing::field::Empty;
    use tracing_subscriber::Registry;

    use super::*;

    #[test]
    fn a_statement_is_kept_without_its_values() {
        tracing::subscriber::with_default(Registry::default(), || {
            let span = tracing::info_span!("db", db.query.text = Empty, note = Empty);
            let known = span.metadata().unwrap().fields();
            let [text, note] = ["db.query.text", "note"].map(|name| known.field(name).unwrap());
            let mut fields = Fields::default();
            fields.record_str(&note, "a = 'b'");
            fields.record_str(&text, "SELECT a FROM t WHERE b = 'Ann'");
            let pairs: Vec<_> = fields.pairs().collect();
            let statement = Value::Str("SELECT a FROM t WHERE b = ?");
            assert_eq!(pairs, [("note", Value::Str("a = 'b'")), ("db.query.text", statement)]);
        });
    }

    #[test]
    fn of_what_is_recorded_again_and_again_only_the_last_word_is_kept() {
        tracing::subscriber::with_default(Registry::default(), || {
            let span =
                tracing::info_span!("work", message = Empty, a = Empty, state = Empty, z = Empty);
            let known = span.metadata().unwrap().fields();
            let [message, a, state, z] =
                ["message", "a", "state", "z"].map(|name| known.field(name).unwrap());
            let mut fields = Fields::default();
            for (field, text) in [(&message, "begun"), (&a, "first"), (&state, ""), (&z, "last")] {
                fields.record_str(field, text);
            }
            for step in 0..1_000 {
                fields.record_debug(&state, &format_args!("step {step}"));
                fields.record_debug(&message, &format_args!("{step} of 1000"));
            }
            fields.record_u64(&a, 1);
            assert_eq!(fields.message(), "999 of 1000");
            let pairs: Vec<_> = fields.pairs().collect();
            let expected = [
                ("a", Value::U64(1)),
                ("state", Value::Str("step 999")),
                ("z", Value::Str("last")),
            ];
            assert_eq!(pairs, expected);
            assert_eq!(fields.texts.len(), "laststep 999999 of 1000".len());
        });
    }
}

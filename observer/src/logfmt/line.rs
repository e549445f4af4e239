//! One line under construction: keys in order, values bounded, never more than [`LINE_BYTES`].
#![expect(
    clippy::inline_always,
    reason = "a key whose length is known is a few moves; else it is three calls"
)]

use saola_observability::record::Value;

use super::{escape, json};

/// A line with its newline has at most this many bytes: Linux keeps a pipe write of that size whole.
pub const LINE_BYTES: usize = 4096;

/// How `key=value` pairs are written.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Syntax {
    Logfmt,
    Json,
    /// Only the fields of events, behind the text for people.
    Pretty,
}

/// How much of each value may stand on the line.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Room {
    /// The bounds of the specification.
    Usual,
    /// Hostile values grew so much by escaping that the line was too long: 120 bytes for each, escaped.
    Tight,
}

impl Room {
    fn escaped_bytes(self) -> usize {
        match self {
            Self::Usual => usize::MAX,
            Self::Tight => 120,
        }
    }
}

/// A key of Saola's own as it stands behind another one, in both syntaxes: made of its name by `key!`.
#[derive(Copy, Clone)]
pub(super) struct Key {
    pub(super) logfmt: &'static str,
    pub(super) json: &'static str,
}

macro_rules! key {
    ($name:literal) => {
        $crate::logfmt::line::Key {
            logfmt: concat!(" ", $name, "="),
            json: concat!(",\"", $name, "\":"),
        }
    };
}
pub(super) use key;

pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
    begin: usize,
    syntax: Syntax,
    room: Room,
}

impl<'a> Line<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, syntax: Syntax, room: Room) -> Self {
        let begin = out.len();
        Self { out, begin, syntax, room }
    }

    pub(super) fn syntax(&self) -> Syntax {
        self.syntax
    }

    pub(super) fn is_usual(&self) -> bool {
        self.room == Room::Usual
    }

    /// What `write` would write here, behind other keys.
    pub(super) fn apart(&self, write: impl FnOnce(&mut Line<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        let mut line = Line::new(&mut out, self.syntax, self.room);
        write(&mut line);
        out
    }

    /// What was written apart.
    pub(super) fn append(&mut self, written: &[u8]) {
        self.out.extend_from_slice(written);
    }

    /// Bytes that need no escaping and no key: the readable part of a pretty line.
    pub(super) fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Text without a key, escaped, never quoted.
    pub(super) fn prose(&mut self, value: &str, max_bytes: usize) {
        let kept = escape::cut(value, max_bytes, self.room.escaped_bytes());
        escape::inside(self.out, kept);
        if kept.len() < value.len() {
            self.raw("…");
        }
    }

    /// Lends the buffer to a printer whose output needs no escaping.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.out
    }

    #[inline(always)]
    pub(super) fn text(&mut self, key: Key, value: &str, max_bytes: usize) {
        self.key(key);
        self.shown(value, max_bytes);
    }

    /// One of Saola's own words, which need no look: letters, `_` and `:`.
    #[inline(always)]
    pub(super) fn word(&mut self, key: Key, word: &str) {
        debug_assert!(escape::is_bare(word), "{word:?} is no word");
        self.printed(key, |out| out.extend_from_slice(word.as_bytes()));
    }

    #[inline(always)]
    fn shown(&mut self, value: &str, max_bytes: usize) {
        // What is bare or plain does not grow.
        let most_bytes = max_bytes.min(self.room.escaped_bytes());
        if self.syntax != Syntax::Json && value.len() <= most_bytes && escape::is_bare(value) {
            self.out.extend_from_slice(value.as_bytes());
        } else if value.len() <= most_bytes && escape::is_plain_text(value) {
            self.out.push(b'"');
            self.out.extend_from_slice(value.as_bytes());
            self.out.push(b'"');
        } else {
            self.quoted_text(value, max_bytes);
        }
    }

    #[inline(never)]
    fn quoted_text(&mut self, value: &str, max_bytes: usize) {
        let kept = escape::cut(value, max_bytes, self.room.escaped_bytes());
        json::text(self.out, kept, kept.len() < value.len());
    }

    /// Like [`Line::text`], but an empty value leaves the key out.
    #[inline(always)]
    pub(super) fn text_if_any(&mut self, key: Key, value: &str, max_bytes: usize) {
        if !value.is_empty() {
            self.text(key, value, max_bytes);
        }
    }

    /// An identifier as lower-case hexadecimal, unless it is all zero.
    #[inline(always)]
    pub(super) fn id<const BYTES: usize>(&mut self, key: Key, id: &[u8; BYTES]) {
        if *id == [0; BYTES] {
            return;
        }
        self.printed(key, |out| hex(out, id));
    }

    #[inline(always)]
    pub(super) fn number(&mut self, key: Key, value: impl itoa::Integer) {
        self.key(key);
        self.digits(value);
    }

    /// A status code: three digits, but for one that no server should have sent (RFC 9110 section 15).
    #[inline(always)]
    pub(super) fn status(&mut self, key: Key, status: u16) {
        if (100..1_000).contains(&status) {
            self.key(key);
            self.out.extend_from_slice(&digits::<3>(u64::from(status)));
        } else {
            self.number(key, status);
        }
    }

    /// Nanoseconds as milliseconds with three decimals.
    #[inline(always)]
    pub(super) fn milliseconds(&mut self, key: Key, nanoseconds: u64) {
        self.key(key);
        milliseconds(self.out, nanoseconds);
    }

    /// The key `time` that a line begins with; a printer appends its value, which is quoted in JSON.
    pub(super) fn time(&mut self, print: impl FnOnce(&mut Vec<u8>)) {
        let text = match self.syntax {
            Syntax::Json => "{\"time\":",
            Syntax::Logfmt | Syntax::Pretty => "time=",
        };
        self.out.extend_from_slice(text.as_bytes());
        self.quoted(print);
    }

    /// A value whose text a printer appends; quoted in JSON, where it is no number.
    #[inline(always)]
    pub(super) fn printed(&mut self, key: Key, print: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        self.quoted(print);
    }

    /// A field of an event.
    pub(super) fn value(&mut self, key: &str, value: Value<'_>, max_bytes: usize) {
        self.given_key(key);
        match value {
            Value::Str(text) => self.shown(text, max_bytes),
            Value::U64(number) => self.digits(number),
            Value::I64(number) => self.digits(number),
            Value::F64(number) => self.float(number),
            Value::Bool(true) => self.literal("true"),
            Value::Bool(false) => self.literal("false"),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.out.len() - self.begin
    }

    pub(super) fn cut_to(&mut self, len: usize) {
        self.out.truncate(self.begin + len);
    }

    /// Whether `key` stands at `at` bytes from the line's beginning.
    pub(super) fn has_key_at(&self, at: usize, key: &[u8]) -> bool {
        self.out[self.begin + at..].starts_with(key)
            && self.out.get(self.begin + at + key.len()).is_some_and(|end| b"=\"".contains(end))
    }

    /// Where the text of a key written now would begin.
    pub(super) fn next_key(&self) -> usize {
        self.len() + if self.syntax == Syntax::Json { 2 } else { 1 }
    }

    /// Room that the end of the line still needs.
    pub(super) fn closing_bytes(&self) -> usize {
        if self.syntax == Syntax::Json { 2 } else { 1 }
    }

    /// Ends the line; false if it is longer than a line may be.
    pub(super) fn end(self) -> bool {
        match self.syntax {
            Syntax::Json => self.out.push(b'}'),
            Syntax::Pretty if self.out.ends_with(b" ") => _ = self.out.pop(),
            Syntax::Logfmt | Syntax::Pretty => {}
        }
        self.out.push(b'\n');
        self.out.len() - self.begin <= LINE_BYTES
    }

    #[inline(always)]
    fn key(&mut self, key: Key) {
        match self.syntax {
            Syntax::Json => self.out.extend_from_slice(key.json.as_bytes()),
            Syntax::Logfmt | Syntax::Pretty => self.out.extend_from_slice(key.logfmt.as_bytes()),
        }
    }

    /// A key that an application chose; it was made harmless.
    fn given_key(&mut self, key: &str) {
        let (before, behind) = match self.syntax {
            Syntax::Json => (",\"", "\":"),
            Syntax::Logfmt | Syntax::Pretty => (" ", "="),
        };
        for part in [before, key, behind] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    #[inline(always)]
    fn digits(&mut self, number: impl itoa::Integer) {
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn literal(&mut self, value: &str) {
        self.out.extend_from_slice(value.as_bytes());
    }

    fn float(&mut self, value: f64) {
        let name = match value {
            _ if value.is_nan() => "NaN",
            f64::INFINITY => "Inf",
            f64::NEG_INFINITY => "-Inf",
            _ => {
                float(self.out, value);
                return;
            }
        };
        self.shown(name, usize::MAX);
    }

    #[inline(always)]
    fn quoted(&mut self, print: impl FnOnce(&mut Vec<u8>)) {
        if self.syntax == Syntax::Json {
            self.out.push(b'"');
            print(self.out);
            self.out.push(b'"');
        } else {
            print(self.out);
        }
    }
}

/// Computed, not looked up: so the compiler takes sixteen bytes at once.
pub(super) fn hex<const BYTES: usize>(out: &mut Vec<u8>, bytes: &[u8; BYTES]) {
    let digit = |half: u8| half + if half < 10 { b'0' } else { b'a' - 10 };
    let mut text = [[0; 2]; BYTES];
    for (pair, byte) in text.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    out.extend_from_slice(text.as_flattened());
}

pub(super) fn milliseconds(out: &mut Vec<u8>, nanoseconds: u64) {
    let microseconds = nanoseconds / 1_000;
    out.extend_from_slice(itoa::Buffer::new().format(microseconds / 1_000).as_bytes());
    let [a, b, c] = digits(microseconds % 1_000);
    out.extend_from_slice(&[b'.', a, b, c]);
}

/// A number with zeros in front, in so many places.
pub(super) fn digits<const PLACES: usize>(mut number: u64) -> [u8; PLACES] {
    let mut text = [b'0'; PLACES];
    for places in text.rchunks_mut(2) {
        let pair = DECIMAL[usize::try_from(number % 100).unwrap_or(0)];
        number /= 100;
        // One place is left over where their number is odd.
        let (_, last) = pair.split_at(2 - places.len());
        places.copy_from_slice(last);
    }
    text
}

/// Shortest text that reads back as the same number; large and small ones with an exponent.
fn float(out: &mut Vec<u8>, value: f64) {
    use std::io::Write as _;
    let magnitude = value.abs();
    let written = if magnitude != 0.0 && !(1e-5..1e16).contains(&magnitude) {
        write!(out, "{value:e}")
    } else {
        write!(out, "{value}")
    };
    debug_assert!(written.is_ok(), "a vector takes all bytes");
}

const DIGITS: &[u8; 10] = b"0123456789";

/// The numbers below a hundred in two digits.
static DECIMAL: [[u8; 2]; 100] = {
    let mut table = [[0; 2]; 100];
    let mut number = 0;
    while number < table.len() {
        table[number] = [DIGITS[number / 10], DIGITS[number % 10]];
        number += 1;
    }
    table
};

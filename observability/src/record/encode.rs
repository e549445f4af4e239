//! A record as bytes: the fixed part first, then texts as a 16-bit length and UTF-8, or of a request as they were sent.
//!
//! Texts longer than their bound are cut at a character boundary and the record's flag [`CUT`] is set.

use crate::closed::{Level, LostReason, SpanKind, SpanStatus};
use crate::ids::{SpanId, TraceId};
use crate::record::Value;
use crate::record::ended::{Ended, REQUEST_FIXED, Texts};

/// Bytes of the header in front of each payload: length u32, kind u8, version u8, flags u16, position u64.
pub(crate) const HEADER: usize = 16;
/// The longest record, header included. One that is longer after cutting is dropped and counted.
pub(crate) const LONGEST: usize = 16 * 1024;
/// Flag: a text was cut, or fields were left out.
pub(crate) const CUT: u16 = 1;
/// The version of every kind's payload; a later one only appends.
pub(crate) const VERSION: u8 = 1;
/// Fields of an event and attributes of a span beyond this many are left out.
pub(crate) const MOST_FIELDS: usize = 64;

pub(crate) const REQUEST: u8 = 1;
pub(crate) const SPAN: u8 = 2;
pub(crate) const EVENT: u8 = 3;
pub(crate) const PANIC: u8 = 4;
pub(crate) const LOST: u8 = 5;
pub(crate) const PAD: u8 = 255;

/// A log event, as its writer hands it in.
#[derive(Copy, Clone, Debug)]
pub struct Event<'a> {
    /// When it happened, wall clock nanoseconds.
    pub wall_ns: u64,
    /// Its level.
    pub level: Level,
    /// The module or part that writes it.
    pub target: &'a str,
    /// Its constant message.
    pub message: &'a str,
    /// The trace of the request it happens in, or none.
    pub trace: TraceId,
    /// The span of that request, or none.
    pub span: SpanId,
    /// The id of that request, or empty.
    pub request_id: &'a str,
    /// Its facts, in order.
    pub fields: &'a [(&'a str, Value<'a>)],
}

/// A child span that ended, as its writer hands it in.
#[derive(Copy, Clone, Debug)]
pub struct Span<'a> {
    /// When it began, wall clock nanoseconds.
    pub start_ns: u64,
    /// How long it took, monotonic nanoseconds.
    pub duration_ns: u64,
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub span: SpanId,
    /// The span above it.
    pub parent: SpanId,
    /// The server span of the request it belongs to: a trace may pass through a server more than once.
    pub request: SpanId,
    /// Its kind.
    pub kind: SpanKind,
    /// Its status.
    pub status: SpanStatus,
    /// What the status says.
    pub status_text: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its attributes, in order.
    pub attributes: &'a [(&'a str, Value<'a>)],
}

/// A handler's panic, as its writer hands it in.
#[derive(Copy, Clone, Debug)]
pub struct Panic<'a> {
    /// When it happened, wall clock nanoseconds.
    pub wall_ns: u64,
    /// The trace of the request it happened in, or none.
    pub trace: TraceId,
    /// The span of that request, or none.
    pub span: SpanId,
    /// The request's route template.
    pub route: &'a str,
    /// The panic's message.
    pub message: &'a str,
    /// File, line and column.
    pub location: &'a str,
    /// The stack; may be empty.
    pub backtrace: &'a str,
}

/// What a [`Ended`] does not say of a lost one.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Lost<'a> {
    pub(crate) request: Ended<'a>,
    pub(crate) slot: u32,
    pub(crate) pid: u32,
    pub(crate) signal: Option<i32>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) reason: LostReason,
    pub(crate) count: u64,
}

/// Encodes into a buffer that is used again and again, so that a record allocates nothing.
pub(crate) struct Encoder<'b> {
    bytes: &'b mut Vec<u8>,
    flags: u16,
}

impl<'b> Encoder<'b> {
    /// Starts a record: the header's place is left free, [`Encoder::finish`] fills what it can of it.
    fn start(bytes: &'b mut Vec<u8>) -> Self {
        bytes.clear();
        bytes.extend_from_slice(&[0; HEADER]);
        Self { bytes, flags: 0 }
    }

    pub(crate) fn lost(bytes: &'b mut Vec<u8>, lost: &Lost<'_>) {
        let mut encoder = Self::start(bytes);
        encoder.u64(lost.count);
        encoder.u32(lost.slot);
        encoder.u32(lost.pid);
        encoder.optional_i32(lost.signal);
        encoder.optional_i32(lost.exit_code);
        encoder.u8(lost.reason.number());
        encoder.put_request(&lost.request);
        encoder.finish(LOST);
    }

    pub(crate) fn event(bytes: &'b mut Vec<u8>, event: &Event<'_>) {
        let mut encoder = Self::start(bytes);
        encoder.u64(event.wall_ns);
        encoder.bytes.extend_from_slice(&event.trace.0);
        encoder.bytes.extend_from_slice(&event.span.0);
        encoder.u8(event.level.number());
        encoder.text(event.target, 128);
        encoder.text(event.message, 4_096);
        encoder.text(event.request_id, 128);
        encoder.fields(event.fields, 4_096);
        encoder.finish(EVENT);
    }

    pub(crate) fn span(bytes: &'b mut Vec<u8>, span: &Span<'_>) {
        let mut encoder = Self::start(bytes);
        encoder.u64(span.start_ns);
        encoder.u64(span.duration_ns);
        encoder.bytes.extend_from_slice(&span.trace.0);
        encoder.bytes.extend_from_slice(&span.span.0);
        encoder.bytes.extend_from_slice(&span.parent.0);
        encoder.bytes.extend_from_slice(&span.request.0);
        encoder.u8(span.kind.number());
        encoder.u8(span.status.number());
        encoder.text(span.status_text, 256);
        encoder.text(span.name, 128);
        encoder.fields(span.attributes, 1_024);
        encoder.finish(SPAN);
    }

    pub(crate) fn panic(bytes: &'b mut Vec<u8>, panic: &Panic<'_>) {
        let mut encoder = Self::start(bytes);
        encoder.u64(panic.wall_ns);
        encoder.bytes.extend_from_slice(&panic.trace.0);
        encoder.bytes.extend_from_slice(&panic.span.0);
        encoder.text(panic.route, 128);
        encoder.text(panic.message, 4_096);
        encoder.text(panic.location, 256);
        encoder.text(panic.backtrace, 8_192);
        encoder.finish(PANIC);
    }

    fn put_request(&mut self, request: &Ended<'_>) {
        let fixed = request.fixed().map(u64::to_ne_bytes);
        self.bytes.extend(fixed.as_flattened().iter().take(REQUEST_FIXED));
        let Texts { texts, is_cut } = request.texts();
        for text in texts {
            self.counted(text);
        }
        if is_cut {
            self.flags |= CUT;
        }
    }

    fn fields(&mut self, fields: &[(&str, Value<'_>)], longest: usize) {
        let kept = fields.len().min(MOST_FIELDS);
        if kept < fields.len() {
            self.flags |= CUT;
        }
        self.u8(u8::try_from(kept).unwrap_or(u8::MAX));
        for (key, value) in fields.iter().take(kept) {
            self.text(key, 64);
            match *value {
                Value::Str(text) => {
                    self.u8(0);
                    self.text(text, longest);
                }
                Value::U64(number) => self.tagged(1, number),
                Value::I64(number) => self.tagged(2, number.cast_unsigned()),
                Value::F64(number) => self.tagged(3, number.to_bits()),
                Value::Bool(yes) => self.tagged(4, u64::from(yes)),
            }
        }
    }

    fn tagged(&mut self, tag: u8, bits: u64) {
        self.u8(tag);
        self.u64(bits);
    }

    fn text(&mut self, text: &str, longest: usize) {
        let kept = cut(text, longest);
        if kept.len() < text.len() {
            self.flags |= CUT;
        }
        self.counted(kept.as_bytes());
    }

    fn counted(&mut self, text: &[u8]) {
        self.u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
        self.bytes.extend_from_slice(text);
    }

    fn optional_i32(&mut self, value: Option<i32>) {
        self.u32(value.map_or(u32::MAX, i32::cast_unsigned));
    }

    fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    /// Pads to 8 bytes and writes the header but for the position, which only the ring knows.
    fn finish(self, kind: u8) {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        put_header(self.bytes, kind, self.flags);
    }
}

/// Writes length, kind, version and flags; a length beyond [`LONGEST`] is the ring's to refuse.
pub(crate) fn put_header(bytes: &mut [u8], kind: u8, flags: u16) {
    let word = header(bytes.len(), kind, flags);
    if let Some(header) = bytes.first_chunk_mut() {
        *header = word.to_ne_bytes();
    }
}

/// Length, kind, version and flags.
#[inline]
pub(crate) fn header(length: usize, kind: u8, flags: u16) -> u64 {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes();
    let [low, high] = flags.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, kind, VERSION, low, high])
}

/// The longest beginning of a text that has at most `longest` bytes and ends between two characters.
pub(crate) fn cut(text: &str, longest: usize) -> &str {
    if text.len() <= longest {
        return text;
    }
    text.get(..text.floor_char_boundary(longest)).unwrap_or("")
}

//! A record as bytes: the fixed part first, then texts as a 16-bit length and UTF-8.
//!
//! Texts longer than their bound are cut at a character boundary and the record's flag [`CUT`] is set.

use std::net::IpAddr;

use crate::closed::{Level, LostReason, Method, Outcome, Protocol, Sampling, SpanKind, SpanStatus};
use crate::ids::{SpanId, TraceId};
use crate::record::Value;

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

/// Bytes of a request's fixed part.
pub(crate) const REQUEST_FIXED: usize = 95;

pub(crate) const REQUEST: u8 = 1;
pub(crate) const SPAN: u8 = 2;
pub(crate) const EVENT: u8 = 3;
pub(crate) const PANIC: u8 = 4;
pub(crate) const LOST: u8 = 5;
pub(crate) const PAD: u8 = 255;

/// A request as its end writes it. `route` and `exception` are texts: a record explains itself, also to an observer of
/// another generation.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) start_wall_ns: u64,
    pub(crate) duration_ns: u64,
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    pub(crate) parent: SpanId,
    pub(crate) remote_parent: bool,
    pub(crate) is_https: bool,
    pub(crate) route: &'a str,
    pub(crate) exception: &'a str,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) status: u16,
    pub(crate) client: Option<IpAddr>,
    pub(crate) client_port: u16,
    pub(crate) server_port: u16,
    pub(crate) cpu_samples: u32,
    pub(crate) method: Method,
    pub(crate) protocol: Protocol,
    pub(crate) outcome: Outcome,
    pub(crate) sampling: Sampling,
    pub(crate) path: &'a str,
    pub(crate) request_id: &'a [u8],
    pub(crate) user_agent: &'a [u8],
    pub(crate) server_address: &'a [u8],
    pub(crate) method_text: &'a str,
    pub(crate) tracestate: &'a str,
}

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

    pub(crate) fn request(bytes: &'b mut Vec<u8>, request: &Ended<'_>) {
        let mut encoder = Self::start(bytes);
        encoder.put_request(request);
        encoder.finish(REQUEST);
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

    #[expect(
        clippy::inline_always,
        reason = "a call of it fetches a line of code that is cold each time"
    )]
    #[inline(always)]
    fn put_request(&mut self, request: &Ended<'_>) {
        // Put together first, at offsets the compiler knows: one check of the buffer's room instead of one a field.
        let mut fixed = [0; REQUEST_FIXED];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            fixed[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&request.start_wall_ns.to_ne_bytes());
        put(&request.duration_ns.to_ne_bytes());
        put(&request.trace.0);
        put(&request.span.0);
        put(&request.parent.0);
        put(&request.request_bytes.to_ne_bytes());
        put(&request.response_bytes.to_ne_bytes());
        put(&address(request.client));
        put(&request.cpu_samples.to_ne_bytes());
        put(&request.status.to_ne_bytes());
        put(&request.client_port.to_ne_bytes());
        put(&request.server_port.to_ne_bytes());
        put(&[request.method.number(), request.protocol.number(), request.outcome.number()]);
        let flags = u8::from(request.remote_parent) | u8::from(request.is_https) << 1;
        put(&[request.sampling.number(), flags]);
        self.bytes.extend_from_slice(&fixed);
        self.text(request.route, 128);
        self.text(request.exception, 128);
        self.text(request.path, 1_024);
        self.sent(request.request_id, 128);
        self.sent(request.user_agent, 256);
        self.sent(request.server_address, 255);
        self.text(request.method_text, 16);
        self.text(request.tracestate, 512);
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

    #[inline]
    fn text(&mut self, text: &str, longest: usize) {
        if text.is_empty() {
            self.u16(0);
        } else {
            self.some_text(text, longest);
        }
    }

    /// Not in line: a request has eight texts, and each copy of this would be fetched cold.
    #[inline(never)]
    fn some_text(&mut self, text: &str, longest: usize) {
        self.cut_text(text.as_bytes(), cut(text, longest).as_bytes());
    }

    /// A field as it was sent: almost always ASCII, which may be cut anywhere and is quicker to tell than UTF-8.
    #[inline]
    fn sent(&mut self, field: &[u8], longest: usize) {
        if field.is_empty() {
            self.u16(0);
        } else if field.is_ascii() {
            self.cut_text(field, field.get(..longest).unwrap_or(field));
        } else {
            self.foreign(field, longest);
        }
    }

    #[cold]
    fn foreign(&mut self, field: &[u8], longest: usize) {
        self.text(&String::from_utf8_lossy(field), longest);
    }

    #[inline]
    fn cut_text(&mut self, text: &[u8], kept: &[u8]) {
        if kept.len() < text.len() {
            self.flags |= CUT;
        }
        self.u16(u16::try_from(kept.len()).unwrap_or(u16::MAX));
        if !kept.is_empty() {
            self.bytes.extend_from_slice(kept);
        }
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
        let length = self.bytes.len().next_multiple_of(8);
        self.bytes.extend_from_slice(&[0; 8]); // of a constant length: no call
        self.bytes.truncate(length);
        put_header(self.bytes, kind, self.flags);
    }
}

/// Writes length, kind, version and flags; a length beyond [`LONGEST`] is the ring's to refuse.
pub(crate) fn put_header(bytes: &mut [u8], kind: u8, flags: u16) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let [low, high] = flags.to_ne_bytes();
    if let Some(header) = bytes.first_chunk_mut::<8>() {
        let [a, b, c, d] = length.to_ne_bytes();
        *header = [a, b, c, d, kind, VERSION, low, high];
    }
}

/// The longest beginning of a text that has at most `longest` bytes and ends between two characters.
pub(crate) fn cut(text: &str, longest: usize) -> &str {
    if text.len() <= longest {
        return text;
    }
    text.get(..text.floor_char_boundary(longest)).unwrap_or("")
}

/// An address as 16 bytes, IPv4 mapped into IPv6 (RFC 4291 section 2.5.5.2); "none" is the unspecified address.
pub(crate) fn address(address: Option<IpAddr>) -> [u8; 16] {
    match address {
        None => [0; 16],
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped().octets(),
        Some(IpAddr::V6(v6)) => v6.octets(),
    }
}

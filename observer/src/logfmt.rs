//! The one line encoder: every line of every process of Saola is made here, in one of three formats.
//!
//! Encoding appends to a buffer and allocates nothing else. Where the lines go is in `output.rs`.

mod branch;
mod escape;
mod fields;
mod format;
mod json;
mod line;
mod pretty;

use std::cell::RefCell;
use std::time::Duration;

use jiff::tz::TimeZone;
use nix::sys::signal::Signal;
use saola_observability::Event;
use saola_observability::closed::{Level, Outcome};
use saola_observability::ids::{SpanId, TraceId};
use saola_observability::record::{
    EventRecord, LostRecord, OwnedValue, PanicRecord, RequestRecord, Value,
};

pub(crate) use branch::Branch;
use fields::Author;
pub use fields::is_secret;
pub use format::{ColourFacts, Format, FormatChoice};
pub use line::LINE_BYTES;
use line::{Line, Room, Syntax};

/// The process that wrote a record.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct Origin {
    /// The worker's slot; absent for the supervisor and the observer.
    pub worker: Option<u32>,
    /// Its process, when known.
    pub pid: Option<u32>,
}

/// Turns records into lines.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// How lines look.
    pub format: Format,
    /// Whether [`Format::Pretty`] is coloured.
    pub has_colour: bool,
    /// The value of the key `service`.
    pub service: String,
    /// A request that took this long is a warning. Default 1 s.
    pub slow_request: Duration,
    /// The zone of the times that people read; machines get UTC.
    pub zone: TimeZone,
}

impl Encoder {
    /// An encoder with the default bound for slow requests, in UTC and without colours.
    pub fn new(format: Format, service: &str) -> Self {
        Self {
            format,
            has_colour: false,
            service: service.to_owned(),
            slow_request: Duration::from_secs(1),
            zone: TimeZone::UTC,
        }
    }

    /// The level of a request's line: 5xx and what never got an answer are errors, slow ones warnings.
    pub fn level(&self, request: &RequestRecord) -> Level {
        match request.outcome {
            Outcome::Panic | Outcome::Timeout | Outcome::Lost => Level::Error,
            Outcome::Ok | Outcome::Aborted
                if request.status.is_some_and(|status| status >= 500) =>
            {
                Level::Error
            }
            Outcome::Ok | Outcome::Aborted if self.is_slow(request) => Level::Warn,
            Outcome::Ok | Outcome::Aborted => Level::Info,
        }
    }

    /// Appends the access line of a request.
    pub fn request(&self, out: &mut Vec<u8>, origin: Origin, request: &RequestRecord) {
        self.access(out, origin, request, None);
    }

    /// Appends the access line of a request that died with its worker.
    pub fn lost(&self, out: &mut Vec<u8>, lost: &LostRecord) {
        let origin = Origin { worker: Some(lost.slot), pid: Some(lost.pid) };
        self.access(out, origin, &lost.request, Some(lost));
    }

    /// Appends the line of an event read from a ring.
    pub fn event_record(&self, out: &mut Vec<u8>, origin: Origin, event: &EventRecord) {
        let head = Head {
            wall_ns: event.wall_ns,
            level: event.level,
            message: &event.message,
            target: &event.target,
            request_id: &event.request_id,
            trace: event.trace,
            span: event.span,
        };
        self.line(out, |line| {
            self.head(line, origin, &head);
            let fields = event.fields.iter();
            fields::write(
                line,
                author(origin),
                fields.map(|(key, value)| (key.as_str(), borrowed(value))),
            );
        });
    }

    /// Appends the line of an event that no ring holds: the supervisor's while no observer runs.
    pub fn event(&self, out: &mut Vec<u8>, origin: Origin, event: &Event<'_>) {
        let head = Head {
            wall_ns: event.wall_ns,
            level: event.level,
            message: event.message,
            target: event.target,
            request_id: event.request_id,
            trace: event.trace,
            span: event.span,
        };
        self.line(out, |line| {
            self.head(line, origin, &head);
            fields::write(line, author(origin), event.fields.iter().copied());
        });
    }

    /// Appends the line of a panic in a handler.
    pub fn panic(&self, out: &mut Vec<u8>, origin: Origin, panic: &PanicRecord) {
        let head = Head {
            wall_ns: panic.wall_ns,
            level: Level::Error,
            message: "handler panicked",
            target: "saola::panic",
            request_id: "",
            trace: panic.trace,
            span: panic.span,
        };
        self.line(out, |line| {
            self.head(line, origin, &head);
            line.text_if_any("route", &panic.route, VALUE_BYTES);
            line.text("exception_type", "panic", VALUE_BYTES);
            line.text("exception_message", &panic.message, VALUE_BYTES);
            line.text_if_any("location", &panic.location, VALUE_BYTES);
            line.text_if_any("backtrace", top_frames(&panic.backtrace), BACKTRACE_BYTES);
        });
    }

    fn access(
        &self,
        out: &mut Vec<u8>,
        origin: Origin,
        request: &RequestRecord,
        lost: Option<&LostRecord>,
    ) {
        let level = self.level(request);
        self.line(out, |line| {
            if self.format == Format::Pretty {
                pretty::access(self, line, origin, level, request);
            } else {
                self.head(line, origin, &access_head(level, request));
                access_facts(line, request);
            }
            if let Some(lost) = lost {
                lost_facts(line, lost);
            }
        });
    }

    fn head(&self, line: &mut Line<'_>, origin: Origin, head: &Head<'_>) {
        if self.format == Format::Pretty {
            pretty::head(self, line, origin, head);
            return;
        }
        line.printed("time", |out| time(out, head.wall_ns));
        line.text("level", head.level.as_str(), VALUE_BYTES);
        line.text("msg", head.message, MESSAGE_BYTES);
        line.text_if_any("target", head.target, VALUE_BYTES);
        line.text_if_any("service", &self.service, VALUE_BYTES);
        if let Some(worker) = origin.worker {
            line.number("worker", worker);
        }
        if let Some(pid) = origin.pid {
            line.number("pid", pid);
        }
        line.text_if_any("request_id", head.request_id, VALUE_BYTES);
        line.id("trace_id", &head.trace.0);
        line.id("span_id", &head.span.0);
    }

    /// Writes one line. The second attempt cuts each value so short that no value can make the line too long.
    fn line(&self, out: &mut Vec<u8>, write: impl Fn(&mut Line<'_>)) {
        let syntax = match self.format {
            Format::Logfmt => Syntax::Logfmt,
            Format::Json => Syntax::Json,
            Format::Pretty => Syntax::Pretty,
        };
        let begin = out.len();
        for room in [Room::Usual, Room::Tight] {
            out.truncate(begin);
            let mut line = Line::new(out, syntax, room);
            write(&mut line);
            if line.end() {
                return;
            }
        }
        debug_assert!(false, "a tight line is never too long");
        out.truncate(begin);
    }

    fn is_slow(&self, request: &RequestRecord) -> bool {
        u128::from(request.duration_ns) >= self.slow_request.as_nanos()
    }
}

/// The zone of times for people at this machine.
pub fn local_zone() -> TimeZone {
    TimeZone::system()
}

/// The target of access lines.
pub const ACCESS_TARGET: &str = "saola::access";

/// What all lines begin with.
struct Head<'a> {
    wall_ns: u64,
    level: Level,
    message: &'a str,
    target: &'a str,
    request_id: &'a str,
    trace: TraceId,
    span: SpanId,
}

fn access_head(level: Level, request: &RequestRecord) -> Head<'_> {
    Head {
        // The line says what happened when the request ended.
        wall_ns: request.end_wall_ns(),
        level,
        message: "request",
        target: ACCESS_TARGET,
        request_id: &request.request_id,
        trace: request.trace,
        span: request.span,
    }
}

fn access_facts(line: &mut Line<'_>, request: &RequestRecord) {
    line.text("method", request.method_name(), VALUE_BYTES);
    line.text_if_any("path", &request.path, PATH_BYTES);
    line.text_if_any("route", &request.route, VALUE_BYTES);
    if let Some(status) = request.status {
        line.number("status", status);
    }
    line.text("outcome", request.outcome.as_str(), VALUE_BYTES);
    line.milliseconds("duration_ms", request.duration_ns);
    if request.outcome != Outcome::Lost {
        line.number("request_bytes", request.request_bytes);
        line.number("response_bytes", request.response_bytes);
    }
    if let Some(client) = request.client {
        line.printed("client", |out| address(out, client));
    }
    line.text_if_any("user_agent", &request.user_agent, AGENT_BYTES);
}

/// Why the worker died (the counter's label), and by what.
fn lost_facts(line: &mut Line<'_>, lost: &LostRecord) {
    line.text("reason", lost.reason.as_str(), VALUE_BYTES);
    match lost.signal.map(Signal::try_from) {
        Some(Ok(signal)) => line.text("signal", signal.as_str(), VALUE_BYTES),
        Some(Err(_)) => line.number("signal", lost.signal.unwrap_or(0)),
        None => {}
    }
    if let Some(code) = lost.exit_code {
        line.number("exit_code", code);
    }
    if lost.count > 1 {
        line.number("count", lost.count);
    }
}

fn borrowed(value: &OwnedValue) -> Value<'_> {
    match value {
        OwnedValue::Str(text) => Value::Str(text),
        OwnedValue::U64(number) => Value::U64(*number),
        OwnedValue::I64(number) => Value::I64(*number),
        OwnedValue::F64(number) => Value::F64(*number),
        OwnedValue::Bool(is_true) => Value::Bool(*is_true),
    }
}

/// The sixteen innermost frames, as far as lines can tell.
fn top_frames(backtrace: &str) -> &str {
    let end =
        backtrace.match_indices('\n').nth(FRAMES * 2 - 1).map_or(backtrace.len(), |(at, _)| at);
    backtrace.split_at(end).0
}

/// RFC 3339 in UTC with microseconds.
pub(crate) fn time(out: &mut Vec<u8>, wall_ns: u64) {
    static PRINTER: jiff::fmt::temporal::DateTimePrinter =
        jiff::fmt::temporal::DateTimePrinter::new().precision(Some(0));
    thread_local! {
        /// The second printed last, and its text: thousands of lines are of the same one.
        static SECOND: RefCell<(Option<u64>, Vec<u8>)> = const { RefCell::new((None, Vec::new())) };
    }
    let (second, rest_ns) = (wall_ns / 1_000_000_000, wall_ns % 1_000_000_000);
    SECOND.with_borrow_mut(|(known, text)| {
        if *known != Some(second) {
            text.clear();
            let printed = PRINTER.print_timestamp(&timestamp(wall_ns - rest_ns), &mut *text);
            debug_assert!(printed.is_ok(), "a vector takes all bytes");
            // The zone follows behind the fraction.
            text.pop();
            *known = Some(second);
        }
        out.extend_from_slice(text);
    });
    out.push(b'.');
    line::digits::<6>(out, rest_ns / 1_000);
    out.push(b'Z');
}

fn timestamp(wall_ns: u64) -> jiff::Timestamp {
    // 64 bits of nanoseconds end in the year 2554: always inside jiff's range.
    jiff::Timestamp::from_nanosecond(i128::from(wall_ns)).unwrap_or(jiff::Timestamp::MAX)
}

/// An address as text.
pub(crate) fn address(out: &mut Vec<u8>, address: std::net::IpAddr) {
    use std::io::Write as _;
    if let std::net::IpAddr::V4(address) = address {
        for (at, octet) in address.octets().into_iter().enumerate() {
            out.extend_from_slice(if at == 0 { b"" } else { b"." });
            out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
        }
        return;
    }
    let written = write!(out, "{address}");
    debug_assert!(written.is_ok(), "a vector takes all bytes");
}

const PATH_BYTES: usize = 1_024;
const MESSAGE_BYTES: usize = 1_024;
const AGENT_BYTES: usize = 256;
const VALUE_BYTES: usize = 512;
/// Sixteen frames in 512 bytes would name none of them whole.
const BACKTRACE_BYTES: usize = 1_536;
const FRAMES: usize = 16;

/// Only workers run code that is not Saola's.
fn author(origin: Origin) -> Author {
    if origin.worker.is_some() { Author::Application } else { Author::Saola }
}

#[cfg(test)]
pub(crate) mod tests;

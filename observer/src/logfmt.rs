//! The one line encoder: every line of every process of Saola is made here, in one of three formats.
//!
//! Encoding appends to a buffer and allocates nothing else. Where the lines go is in `output.rs`.

mod branch;
mod escape;
mod fields;
mod format;
mod head;
mod json;
mod line;
mod pretty;

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use jiff::tz::TimeZone;
use nix::sys::signal::Signal;
use saola_observability::Event;
use saola_observability::closed::{Level, Outcome};
use saola_observability::record::{
    EventRecord, LostRecord, OwnedValue, PanicRecord, RequestRecord, Value,
};

pub(crate) use branch::Branch;
use fields::Author;
pub use fields::is_secret;
pub use format::{ColourFacts, Format, FormatChoice};
pub(crate) use head::time;
use head::{Common, Head};
pub use line::LINE_BYTES;
use line::{Line, Room, Syntax, key};

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
    service: String,
    /// A request that took this long is a warning. Default 1 s.
    pub slow_request: Duration,
    /// The zone of the times that people read; machines get UTC.
    pub zone: TimeZone,
    /// What access lines have in common.
    common: Common,
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
            common: Common::default(),
        }
    }

    /// The level of a request's line: 5xx and what never got an answer are errors, slow ones warnings.
    pub fn level(&self, request: &RequestRecord<'_>) -> Level {
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
    pub fn request(&self, out: &mut Vec<u8>, origin: Origin, request: &RequestRecord<'_>) {
        self.request_of(self.level(request), out, origin, request);
    }

    /// The same, by who knows its level.
    pub(crate) fn request_of(
        &self,
        level: Level,
        out: &mut Vec<u8>,
        origin: Origin,
        request: &RequestRecord<'_>,
    ) {
        self.access(out, origin, level, request, None);
    }

    /// Appends the access line of a request that died with its worker.
    pub fn lost(&self, out: &mut Vec<u8>, lost: &LostRecord<'_>) {
        let origin = Origin { worker: Some(lost.slot), pid: Some(lost.pid) };
        self.access(out, origin, self.level(&lost.request), &lost.request, Some(lost));
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
            self.begin(line, origin, &head);
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
            self.begin(line, origin, &head);
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
            self.begin(line, origin, &head);
            line.text_if_any(key!("route"), &panic.route, VALUE_BYTES);
            line.text(key!("exception_type"), "panic", VALUE_BYTES);
            line.text(key!("exception_message"), &panic.message, VALUE_BYTES);
            line.text_if_any(key!("location"), &panic.location, VALUE_BYTES);
            line.text_if_any(key!("backtrace"), top_frames(&panic.backtrace), BACKTRACE_BYTES);
        });
    }

    /// Writes what a line that is no request's begins with.
    fn begin(&self, line: &mut Line<'_>, origin: Origin, head: &Head<'_>) {
        if self.format == Format::Pretty {
            pretty::head(self, line, origin, head);
        } else {
            self.head(line, origin, head);
        }
    }

    fn access(
        &self,
        out: &mut Vec<u8>,
        origin: Origin,
        level: Level,
        request: &RequestRecord<'_>,
        lost: Option<&LostRecord<'_>>,
    ) {
        self.line(out, |line| {
            if self.format == Format::Pretty {
                pretty::access(self, line, origin, level, request);
            } else {
                self.access_head(line, origin, level, request);
                access_facts(line, request);
            }
            if let Some(lost) = lost {
                lost_facts(line, lost);
            }
        });
    }

    /// Writes one line. The second attempt cuts each value so short that no value can make the line too long.
    fn line(&self, out: &mut Vec<u8>, write: impl Fn(&mut Line<'_>)) {
        let (syntax, begin) = (self.syntax(), out.len());
        let mut attempt = |room| {
            let mut line = Line::new(out, syntax, room);
            write(&mut line);
            let fits = line.end();
            if !fits {
                out.truncate(begin);
            }
            fits
        };
        let is_written = attempt(Room::Usual) || attempt(Room::Tight);
        debug_assert!(is_written, "a tight line is never too long");
    }

    fn syntax(&self) -> Syntax {
        match self.format {
            Format::Logfmt => Syntax::Logfmt,
            Format::Json => Syntax::Json,
            Format::Pretty => Syntax::Pretty,
        }
    }

    fn is_slow(&self, request: &RequestRecord<'_>) -> bool {
        u128::from(request.duration_ns) >= self.slow_request.as_nanos()
    }
}

/// The zone of times for people at this machine.
pub fn local_zone() -> TimeZone {
    TimeZone::system()
}

/// The target of access lines.
pub const ACCESS_TARGET: &str = "saola::access";

fn access_facts(line: &mut Line<'_>, request: &RequestRecord<'_>) {
    if request.method_text.is_empty() {
        line.word(key!("method"), request.method.as_str());
    } else {
        line.text(key!("method"), &request.method_text, VALUE_BYTES);
    }
    line.text_if_any(key!("path"), &request.path, PATH_BYTES);
    line.text_if_any(key!("route"), &request.route, VALUE_BYTES);
    if let Some(status) = request.status {
        line.status(key!("status"), status);
    }
    line.word(key!("outcome"), request.outcome.as_str());
    line.milliseconds(key!("duration_ms"), request.duration_ns);
    if request.outcome != Outcome::Lost {
        line.number(key!("request_bytes"), request.request_bytes);
        line.number(key!("response_bytes"), request.response_bytes);
    }
    if let Some(client) = request.client {
        line.printed(key!("client"), |out| {
            let (text, length) = address(client);
            out.extend_from_slice(&text[..length]);
        });
    }
    line.text_if_any(key!("user_agent"), &request.user_agent, AGENT_BYTES);
}

/// Why the worker died (the counter's label), and by what.
fn lost_facts(line: &mut Line<'_>, lost: &LostRecord<'_>) {
    line.text(key!("reason"), lost.reason.as_str(), VALUE_BYTES);
    match lost.signal.map(Signal::try_from) {
        Some(Ok(signal)) => line.text(key!("signal"), signal.as_str(), VALUE_BYTES),
        Some(Err(_)) => line.number(key!("signal"), lost.signal.unwrap_or(0)),
        None => {}
    }
    if let Some(code) = lost.exit_code {
        line.number(key!("exit_code"), code);
    }
    if lost.count > 1 {
        line.number(key!("count"), lost.count);
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

/// An address as text, and how much of it is one.
pub(crate) fn address(address: IpAddr) -> ([u8; LONGEST_ADDRESS], usize) {
    let mut text = [b'.'; LONGEST_ADDRESS];
    let IpAddr::V4(address) = address else {
        let mut rest = &mut text[..];
        let written = write!(rest, "{address}");
        debug_assert!(written.is_ok(), "no address is longer");
        let left = rest.len();
        return (text, LONGEST_ADDRESS - left);
    };
    let mut length = 0;
    for octet in address.octets() {
        let (digits, count) = OCTETS[usize::from(octet)];
        text[length..length + digits.len()].copy_from_slice(&digits);
        length += count + 1;
    }
    // Without the dot behind the last one.
    (text, length - 1)
}

/// `INET6_ADDRSTRLEN`, without its zero.
const LONGEST_ADDRESS: usize = 45;

/// Each octet in digits, with dots behind, and how many digits it has.
static OCTETS: [([u8; 4], usize); 256] = {
    const DIGITS: &[u8; 10] = b"0123456789";
    let mut table = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < table.len() {
        let (text, count) = &mut table[octet];
        let mut unit = if octet >= 100 {
            100
        } else if octet >= 10 {
            10
        } else {
            1
        };
        while unit > 0 {
            text[*count] = DIGITS[octet / unit % 10];
            *count += 1;
            unit /= 10;
        }
        octet += 1;
    }
    table
};

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

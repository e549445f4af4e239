//! Lines for people: local time, level, worker, and what happened, in colours where there are any.
//!
//! Text from outside is escaped as everywhere: no input can send an escape sequence to a terminal.

use std::io::Write as _;
use std::time::Duration;

use saola_observability::closed::{Level, Outcome};
use saola_observability::ids::TraceId;
use saola_observability::record::RequestRecord;

use super::head::{Head, timestamp};
use super::line::{Line, hex};
use super::{Encoder, MESSAGE_BYTES, Origin, PATH_BYTES, VALUE_BYTES};

/// `12:03:04.123 INFO  w1 GET /items/{id} 200 3.2 ms  /items/7  4bf92f35`
pub(super) fn access(
    encoder: &Encoder,
    line: &mut Line<'_>,
    origin: Origin,
    level: Level,
    request: &RequestRecord<'_>,
) {
    begin(encoder, line, origin, level, request.end_wall_ns());
    line.prose(request.method_name(), VALUE_BYTES);
    line.raw(" ");
    line.prose(&request.route, VALUE_BYTES);
    line.raw(" ");
    result(encoder, line, request);
    line.raw(" ");
    let colour = if encoder.is_slow(request) { YELLOW } else { "" };
    painted(encoder, line, colour, |line| duration(line, request.duration_ns));
    line.raw("  ");
    line.prose(&request.path, PATH_BYTES);
    if !request.trace.is_none() {
        line.raw("  ");
        painted(encoder, line, DIM, |line| first_digits(line.buffer(), request.trace));
    }
}

/// `12:03:04.123 WARN  w1 msg ` in front of the fields of an event.
pub(super) fn head(encoder: &Encoder, line: &mut Line<'_>, origin: Origin, head: &Head<'_>) {
    begin(encoder, line, origin, head.level, head.wall_ns);
    line.prose(head.message, MESSAGE_BYTES);
    if !head.trace.is_none() {
        line.raw("  ");
        painted(encoder, line, DIM, |line| first_digits(line.buffer(), head.trace));
    }
    line.raw(" ");
}

/// So many that people tell traces apart.
fn first_digits(out: &mut Vec<u8>, trace: TraceId) {
    let [first, second, third, fourth, ..] = trace.0;
    hex(out, &[first, second, third, fourth]);
}

fn begin(encoder: &Encoder, line: &mut Line<'_>, origin: Origin, level: Level, wall_ns: u64) {
    let time = encoder.zone.to_datetime(timestamp(wall_ns));
    let millisecond = time.subsec_nanosecond() / 1_000_000;
    painted(encoder, line, DIM, |line| {
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        let written = write!(line.buffer(), "{hour:02}:{minute:02}:{second:02}.{millisecond:03}");
        debug_assert!(written.is_ok(), "a vector takes all bytes");
    });
    line.raw(" ");
    self::level(encoder, line, level);
    if let Some(worker) = origin.worker {
        line.raw("w");
        line.raw(itoa::Buffer::new().format(worker));
        line.raw(" ");
    }
}

/// The level and a space.
pub(super) fn level(encoder: &Encoder, line: &mut Line<'_>, level: Level) {
    let (name, colour) = match level {
        Level::Error => ("ERROR", RED),
        Level::Warn => ("WARN ", YELLOW),
        Level::Info => ("INFO ", GREEN),
        Level::Debug => ("DEBUG", BLUE),
        Level::Trace => ("TRACE", DIM),
    };
    painted(encoder, line, colour, |line| line.raw(name));
    line.raw(" ");
}

/// The status, and the outcome where it says more.
fn result(encoder: &Encoder, line: &mut Line<'_>, request: &RequestRecord<'_>) {
    if let Some(status) = request.status {
        let colour = match status {
            500.. => RED,
            400.. => YELLOW,
            300.. => CYAN,
            _ => GREEN,
        };
        painted(encoder, line, colour, |line| line.raw(itoa::Buffer::new().format(status)));
    }
    if request.outcome != Outcome::Ok || request.status.is_none() {
        if request.status.is_some() {
            line.raw(" ");
        }
        painted(encoder, line, RED, |line| line.raw(request.outcome.as_str()));
    }
}

/// Three digits or so: `0.42 ms`, `3.2 ms`, `870 ms`, `12.5 s`.
pub(super) fn duration(line: &mut Line<'_>, nanoseconds: u64) {
    let milliseconds = Duration::from_nanos(nanoseconds).as_secs_f64() * 1_000.0;
    let out = line.buffer();
    let written = match milliseconds {
        ..1.0 => write!(out, "{milliseconds:.2} ms"),
        ..100.0 => write!(out, "{milliseconds:.1} ms"),
        ..10_000.0 => write!(out, "{milliseconds:.0} ms"),
        _ => write!(out, "{:.1} s", milliseconds / 1_000.0),
    };
    debug_assert!(written.is_ok(), "a vector takes all bytes");
}

pub(super) fn painted(
    encoder: &Encoder,
    line: &mut Line<'_>,
    colour: &str,
    write: impl FnOnce(&mut Line<'_>),
) {
    let has_colour = encoder.has_colour && !colour.is_empty();
    if has_colour {
        line.raw(colour);
    }
    write(line);
    if has_colour {
        line.raw(PLAIN);
    }
}

pub(super) const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const BLUE: &str = "\x1b[34m";
const CYAN: &str = "\x1b[36m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

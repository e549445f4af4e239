//! What every line begins with: when, how bad, what and who.

use std::cell::{Cell, RefCell};

use saola_observability::closed::Level;
use saola_observability::ids::{SpanId, TraceId};
use saola_observability::record::RequestRecord;

use super::line::{Line, Syntax, digits, key};
use super::{ACCESS_TARGET, Encoder, MESSAGE_BYTES, Origin, VALUE_BYTES};

/// What all lines begin with.
pub(super) struct Head<'a> {
    pub(super) wall_ns: u64,
    pub(super) level: Level,
    pub(super) message: &'a str,
    pub(super) target: &'a str,
    pub(super) request_id: &'a str,
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
}

impl Encoder {
    pub(super) fn head(&self, line: &mut Line<'_>, origin: Origin, head: &Head<'_>) {
        line.time(|out| time(out, head.wall_ns));
        line.word(key!("level"), head.level.as_str());
        line.text(key!("msg"), head.message, MESSAGE_BYTES);
        line.text_if_any(key!("target"), head.target, VALUE_BYTES);
        self.who(line, origin);
        line.text_if_any(key!("request_id"), head.request_id, VALUE_BYTES);
        line.id(key!("trace_id"), &head.trace.0);
        line.id(key!("span_id"), &head.span.0);
    }

    /// The same for a request: only the time and the ids differ from line to line.
    pub(super) fn access_head(
        &self,
        line: &mut Line<'_>,
        origin: Origin,
        level: Level,
        request: &RequestRecord<'_>,
    ) {
        // The line says what happened when the request ended.
        line.time(|out| time(out, request.end_wall_ns()));
        self.common.write(line, origin, level, |line| {
            line.word(key!("level"), level.as_str());
            line.word(key!("msg"), "request");
            line.word(key!("target"), ACCESS_TARGET);
            self.who(line, origin);
        });
        line.text_if_any(key!("request_id"), &request.request_id, VALUE_BYTES);
        line.id(key!("trace_id"), &request.trace.0);
        line.id(key!("span_id"), &request.span.0);
    }

    fn who(&self, line: &mut Line<'_>, origin: Origin) {
        line.text_if_any(key!("service"), &self.service, VALUE_BYTES);
        if let Some(worker) = origin.worker {
            line.number(key!("worker"), worker);
        }
        if let Some(pid) = origin.pid {
            line.number(key!("pid"), pid);
        }
    }
}

/// What the access lines of one process and level have in common, rendered once.
#[derive(Clone, Default, Debug)]
pub(super) struct Common(RefCell<Vec<(Of, Vec<u8>)>>);

type Of = (Syntax, Origin, Level);

impl Common {
    /// Appends what `write` writes for these.
    fn write(
        &self,
        line: &mut Line<'_>,
        origin: Origin,
        level: Level,
        write: impl FnOnce(&mut Line<'_>),
    ) {
        if !line.is_usual() {
            write(line);
            return;
        }
        let of = (line.syntax(), origin, level);
        let mut known = self.0.borrow_mut();
        let found = known.iter().position(|(other, _)| *other == of);
        match found {
            Some(0) => {}
            // The next line is mostly of the same process.
            Some(place) => known.swap(0, place),
            None => {
                known.truncate(MOST_COMMON - 1);
                known.insert(0, (of, line.apart(write)));
            }
        }
        if let Some((_, text)) = known.first() {
            line.append(text);
        }
    }
}

/// Processes come and go.
const MOST_COMMON: usize = 64;

/// RFC 3339 in UTC with microseconds.
pub(crate) fn time(out: &mut Vec<u8>, wall_ns: u64) {
    static PRINTER: jiff::fmt::temporal::DateTimePrinter =
        jiff::fmt::temporal::DateTimePrinter::new().precision(Some(0));
    thread_local! {
        /// The second printed last, and its text: thousands of lines are of the same one.
        static SECOND: Cell<(Option<u64>, [u8; SECOND_BYTES])> =
            const { Cell::new((None, [b'0'; SECOND_BYTES])) };
    }
    let (second, rest_ns) = (wall_ns / 1_000_000_000, wall_ns % 1_000_000_000);
    let (known, mut text) = SECOND.get();
    if known != Some(second) {
        let printed = PRINTER.timestamp_to_string(&timestamp(wall_ns - rest_ns));
        // The zone follows behind the fraction.
        debug_assert!(printed.len() == SECOND_BYTES + 1, "{printed} has a year of four digits");
        text = printed.as_bytes().first_chunk().copied().unwrap_or(text);
        SECOND.set((Some(second), text));
    }
    let mut whole = *b"yyyy-mm-ddThh:mm:ss.uuuuuuZ";
    whole[..SECOND_BYTES].copy_from_slice(&text);
    whole[SECOND_BYTES + 1..][..6].copy_from_slice(&digits::<6>(rest_ns / 1_000));
    out.extend_from_slice(&whole);
}

/// Of `yyyy-mm-ddThh:mm:ss`.
const SECOND_BYTES: usize = 19;

pub(super) fn timestamp(wall_ns: u64) -> jiff::Timestamp {
    // 64 bits of nanoseconds end in the year 2554: always inside jiff's range.
    jiff::Timestamp::from_nanosecond(i128::from(wall_ns)).unwrap_or(jiff::Timestamp::MAX)
}

//! Lines of a trace shown as a tree: what happened inside a request, indented, with times since its start.

use saola_observability::closed::{Level, SpanKind, SpanStatus};
use saola_observability::record::SpanRecord;

use super::line::Line;
use super::{Encoder, MESSAGE_BYTES, Syntax, VALUE_BYTES, borrowed, fields, pretty};
use crate::logfmt::fields::Author;
use crate::logfmt::line::Room;

/// Where in the tree a line stands.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Branch {
    /// Below how many others.
    pub(crate) depth: usize,
    /// Nanoseconds since the beginning of the root; what was clocked before it is at 0.
    pub(crate) since_ns: u64,
}

impl Encoder {
    /// Appends the line of a child span: `  +0.3 ms  1.0 ms  SELECT items (client)  db.system.name=sqlite`.
    pub(crate) fn child(&self, out: &mut Vec<u8>, branch: Branch, span: &SpanRecord) {
        let mut line = Line::new(out, Syntax::Pretty, Room::Usual);
        begin(&mut line, branch);
        pretty::duration(&mut line, span.duration_ns);
        line.raw("  ");
        line.prose(&span.name, VALUE_BYTES);
        if span.kind != SpanKind::Internal {
            line.raw(" (");
            line.raw(span.kind.as_str());
            line.raw(")");
        }
        if span.status == SpanStatus::Error {
            line.raw("  ");
            pretty::painted(self, &mut line, pretty::RED, |line| {
                line.raw("error ");
                line.prose(&span.status_text, VALUE_BYTES);
            });
        }
        line.raw(" ");
        let pairs = span.attributes.iter().map(|(key, value)| (key.as_str(), borrowed(value)));
        fields::write(&mut line, Author::Saola, pairs);
        line.end();
    }

    /// Appends the line of something that happened at a moment.
    pub(crate) fn note(
        &self,
        out: &mut Vec<u8>,
        branch: Branch,
        level: Level,
        message: &str,
        pairs: &[(String, saola_observability::record::OwnedValue)],
    ) {
        let mut line = Line::new(out, Syntax::Pretty, Room::Usual);
        begin(&mut line, branch);
        pretty::level(self, &mut line, level);
        line.prose(message, MESSAGE_BYTES);
        line.raw(" ");
        let pairs = pairs.iter().map(|(key, value)| (key.as_str(), borrowed(value)));
        fields::write(&mut line, Author::Saola, pairs);
        line.end();
    }
}

fn begin(line: &mut Line<'_>, branch: Branch) {
    for _ in 0..branch.depth.min(DEEPEST) {
        line.raw("  ");
    }
    line.raw("+");
    pretty::duration(line, branch.since_ns);
    line.raw("  ");
}

/// Deeper ones are not indented further: a line has an end.
const DEEPEST: usize = 24;

//! Traces as trees: each request with the spans and events inside it, once it has ended.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use saola_observability::closed::Level;
use saola_observability::record::{OwnedValue, Record};
use saola_observability::{SpanId, TraceId};

use super::Read;
use crate::logfmt::{Branch, Encoder};

/// Traces that are not whole yet.
#[derive(Default)]
pub(super) struct Trees {
    open: HashMap<TraceId, Tree>,
}

struct Tree {
    records: Vec<Read>,
    since: Instant,
    /// A request of it has ended: what a blocking thread wrote meanwhile comes with the next pass.
    has_ended: bool,
    is_wanted: bool,
}

impl Trees {
    /// Takes a record in; hands it back if it belongs to no trace.
    pub(super) fn take(&mut self, read: Read, is_wanted: bool, now: Instant) -> Option<Read> {
        let trace = trace(&read.record);
        if trace.is_none() {
            return Some(read);
        }
        let tree = self.open.entry(trace).or_insert_with(|| Tree {
            records: Vec::new(),
            since: now,
            has_ended: false,
            is_wanted: false,
        });
        tree.is_wanted |= is_wanted;
        tree.records.push(read);
        None
    }

    /// Writes the wanted trees that are whole, or that nobody finishes; call it before the records of a new pass are taken.
    pub(super) fn write(&mut self, encoder: &Encoder, out: &mut Vec<u8>, now: Instant, all: bool) {
        let ready: Vec<_> = self
            .open
            .iter()
            .filter(|(_, tree)| {
                all || tree.has_ended || now.saturating_duration_since(tree.since) >= LONGEST_WAIT
            })
            .map(|(trace, _)| *trace)
            .collect();
        let mut ready: Vec<_> = ready
            .iter()
            .filter_map(|trace| self.open.remove(trace))
            .filter(|tree| tree.is_wanted)
            .collect();
        ready.sort_by_key(|tree| tree.records.iter().map(|read| start_ns(&read.record)).min());
        for tree in &ready {
            tree.write(encoder, out);
        }
        for tree in self.open.values_mut() {
            let is_end = |read: &Read| matches!(read.record, Record::Request(_) | Record::Lost(_));
            tree.has_ended = tree.records.iter().any(is_end);
        }
    }
}

impl Tree {
    fn write(&self, encoder: &Encoder, out: &mut Vec<u8>) {
        let mut below: HashMap<SpanId, Vec<&Read>> = HashMap::new();
        let spans: Vec<_> = self.records.iter().filter_map(|read| own(&read.record)).collect();
        let mut roots = Vec::new();
        for read in &self.records {
            let parent = parent(&read.record);
            if spans.contains(&parent) && own(&read.record) != Some(parent) {
                below.entry(parent).or_default().push(read);
            } else {
                roots.push(read);
            }
        }
        for reads in below.values_mut().chain([&mut roots]) {
            reads.sort_by_key(|read| start_ns(&read.record));
        }
        let origin_ns = roots.first().map_or(0, |root| start_ns(&root.record));
        // A stack of its own: what a peer sent must not decide how deep this one gets.
        let mut open: Vec<_> = roots.into_iter().rev().map(|read| (read, 0)).collect();
        while let Some((read, depth)) = open.pop() {
            let since_ns = start_ns(&read.record).saturating_sub(origin_ns);
            write_one(encoder, out, read, Branch { depth, since_ns });
            let inside = own(&read.record).and_then(|span| below.remove(&span)).unwrap_or_default();
            open.extend(inside.into_iter().rev().map(|read| (read, depth + 1)));
        }
    }
}

fn write_one(encoder: &Encoder, out: &mut Vec<u8>, read: &Read, branch: Branch) {
    match &read.record {
        Record::Request(request) => encoder.request(out, read.origin, request),
        Record::Lost(lost) => encoder.lost(out, lost),
        Record::Span(span) => encoder.child(out, branch, span),
        Record::Event(event) => {
            encoder.note(out, branch, event.level, &event.message, &event.fields);
        }
        Record::Panic(panic) => {
            let text = |key: &str, text: &str| (key.to_owned(), OwnedValue::Str(text.to_owned()));
            let fields = [text("message", &panic.message), text("location", &panic.location)];
            encoder.note(out, branch, Level::Error, "handler panicked", &fields);
        }
    }
}

fn trace(record: &Record<'_>) -> TraceId {
    match record {
        Record::Request(request) => request.trace,
        Record::Lost(lost) => lost.request.trace,
        Record::Span(span) => span.trace,
        Record::Event(event) => event.trace,
        Record::Panic(panic) => panic.trace,
    }
}

/// The span that a record is.
fn own(record: &Record<'_>) -> Option<SpanId> {
    match record {
        Record::Request(request) => Some(request.span),
        Record::Lost(lost) => Some(lost.request.span),
        Record::Span(span) => Some(span.span),
        Record::Event(_) | Record::Panic(_) => None,
    }
}

/// The span that a record belongs under.
fn parent(record: &Record<'_>) -> SpanId {
    match record {
        Record::Request(request) => request.parent,
        Record::Lost(lost) => lost.request.parent,
        Record::Span(span) => span.parent,
        Record::Event(event) => event.span,
        Record::Panic(panic) => panic.span,
    }
}

fn start_ns(record: &Record<'_>) -> u64 {
    match record {
        Record::Request(request) => request.start_wall_ns,
        Record::Lost(lost) => lost.request.start_wall_ns,
        Record::Span(span) => span.start_ns,
        Record::Event(event) => event.wall_ns,
        Record::Panic(panic) => panic.wall_ns,
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(5);

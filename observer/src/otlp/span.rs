//! A request record becomes a server span, and a span record one of its children: each is encoded once, straight from its
//! record, as the collector will get it.

mod attributes;
mod note;
mod tracestate;

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use saola_observability::closed::{Method, Outcome, SpanKind, SpanStatus};
use saola_observability::record::{RequestRecord, SpanRecord};
use saola_observability::{SpanId, TraceId};

use super::settings::SpanLimits;
use super::wire::{self, Field};
pub(super) use attributes::Attributes;
pub(crate) use note::Note;

/// A span as bytes of `opentelemetry.proto.trace.v1.Span`.
pub(crate) type Encoded = Box<[u8]>;

/// Encodes spans within their limits.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    limits: SpanLimits,
    /// Where a span grows; it is copied from here when its length is known.
    room: Rc<RefCell<Vec<u8>>>,
}

impl Builder {
    pub(crate) fn new(limits: SpanLimits) -> Self {
        Self { limits, room: Rc::default() }
    }

    /// How many events a span may have.
    pub(crate) fn most_events(&self) -> usize {
        self.limits.events
    }

    /// The server span of a request, finished or lost.
    pub(crate) fn request(
        &self,
        worker: Option<u32>,
        record: &RequestRecord<'_>,
        inside: &Inside<'_>,
    ) -> Encoded {
        let method = match record.method {
            // Semantic conventions: a name never holds a method that is not known.
            Method::Other => "HTTP",
            known => known.as_str(),
        };
        let mut room = self.room.borrow_mut();
        let out = &mut *room;
        out.clear();
        head(
            out,
            &Head {
                trace: record.trace,
                span: record.span,
                parent: record.parent,
                start_ns: record.start_wall_ns,
                end_ns: record.end_wall_ns(),
                kind: SpanKind::Server,
                name: &[method, " ", &record.route],
                tracestate: &record.tracestate,
            },
        );
        let mut attributes = Attributes::new(out, ATTRIBUTES, self.limits);
        request_attributes(&mut attributes, worker, record);
        if inside.is_profiled {
            attributes.text("pyroscope.profile.id", &record.span.to_string());
        }
        attributes.finish(DROPPED_ATTRIBUTES);
        for note in inside.notes {
            wire::bytes(out, EVENTS, &note.event(self.limits));
        }
        if inside.dropped > 0 {
            let said = note::children_dropped(record.end_wall_ns(), inside.dropped);
            wire::bytes(out, EVENTS, &said);
        }
        if error_type(record).is_some() && record.outcome != Outcome::Aborted {
            status(out, SpanStatus::Error, "");
        }
        wire::fixed32(out, FLAGS, flags(record.remote_parent));
        out.as_slice().into()
    }

    /// A child span.
    pub(crate) fn child(&self, worker: Option<u32>, record: &SpanRecord) -> Encoded {
        let mut room = self.room.borrow_mut();
        let out = &mut *room;
        out.clear();
        head(
            out,
            &Head {
                trace: record.trace,
                span: record.span,
                parent: record.parent,
                start_ns: record.start_ns,
                end_ns: record.start_ns.saturating_add(record.duration_ns),
                kind: record.kind,
                name: &[&record.name],
                tracestate: "",
            },
        );
        let mut attributes = Attributes::new(out, ATTRIBUTES, self.limits);
        attributes.given(&record.attributes);
        attributes.worker(worker);
        attributes.finish(DROPPED_ATTRIBUTES);
        status(out, record.status, &record.status_text);
        wire::fixed32(out, FLAGS, flags(false));
        out.as_slice().into()
    }
}

/// What is known of a request besides its record.
#[derive(Debug, Default)]
pub(crate) struct Inside<'a> {
    /// What happened in it.
    pub(crate) notes: &'a [Note],
    /// Children that are missing.
    pub(crate) dropped: u32,
    /// Whether profile samples leave with its ids.
    pub(crate) is_profiled: bool,
}

/// What every span begins with.
struct Head<'a> {
    trace: TraceId,
    span: SpanId,
    parent: SpanId,
    start_ns: u64,
    end_ns: u64,
    kind: SpanKind,
    /// In parts.
    name: &'a [&'a str],
    tracestate: &'a str,
}

fn head(out: &mut Vec<u8>, head: &Head<'_>) {
    wire::bytes(out, TRACE_ID, &head.trace.0);
    wire::bytes(out, SPAN_ID, &head.span.0);
    if !head.tracestate.is_empty() {
        wire::bytes(out, TRACE_STATE, tracestate::checked(head.tracestate).as_bytes());
    }
    if !head.parent.is_none() {
        wire::bytes(out, PARENT_SPAN_ID, &head.parent.0);
    }
    wire::begin(out, NAME, head.name.iter().map(|part| part.len()).sum());
    for part in head.name {
        out.extend_from_slice(part.as_bytes());
    }
    wire::number(out, KIND, kind_number(head.kind));
    wire::fixed64(out, START, head.start_ns);
    wire::fixed64(out, END, head.end_ns);
}

/// A status with the application's words; none unless it is set.
fn status(out: &mut Vec<u8>, status: SpanStatus, text: &str) {
    let (code, text) = match status {
        SpanStatus::Unset => return,
        // The words belong to an error (OpenTelemetry, "Set Status").
        SpanStatus::Ok => (1, ""),
        SpanStatus::Error => (2, text),
    };
    let mut message = Vec::new();
    if !text.is_empty() {
        wire::bytes(&mut message, STATUS_MESSAGE, text.as_bytes());
    }
    wire::number(&mut message, STATUS_CODE, code);
    wire::bytes(out, STATUS, &message);
}

/// Sampled, or it would not be here; and whether the parent is of another process, which is always known.
fn flags(is_parent_remote: bool) -> u32 {
    const SAMPLED: u32 = 1;
    const KNOWN: u32 = 0x100;
    const REMOTE: u32 = 0x200;
    SAMPLED | KNOWN | if is_parent_remote { REMOTE } else { 0 }
}

fn kind_number(kind: SpanKind) -> u64 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn request_attributes(
    attributes: &mut Attributes<'_>,
    worker: Option<u32>,
    record: &RequestRecord<'_>,
) {
    attributes.text("http.request.method", record.method.as_str());
    attributes.text_if_any("http.request.method_original", &record.method_text);
    attributes.text("http.route", &record.route);
    attributes.text_if_any("url.path", &record.path);
    // The table that a lost request is known from does not say.
    if record.outcome != Outcome::Lost {
        attributes.text("url.scheme", if record.is_https { "https" } else { "http" });
    }
    if let Some(status) = record.status {
        attributes.number("http.response.status_code", status.into());
    }
    attributes.text_if_any("server.address", &record.server_address);
    if record.server_port != 0 {
        attributes.number("server.port", record.server_port.into());
    }
    if let Some(client) = record.client {
        attributes.address("client.address", client);
    }
    attributes.text_if_any("user_agent.original", &record.user_agent);
    attributes.text("network.protocol.version", record.protocol.as_str());
    if let Some(error_type) = error_type(record) {
        attributes.text("error.type", &error_type);
    }
    if record.outcome != Outcome::Lost {
        attributes.number("http.request.body.size", record.request_bytes);
        attributes.number("http.response.body.size", record.response_bytes);
    }
    attributes.text_if_any("request.id", &record.request_id);
    attributes.worker(worker);
}

/// What went wrong, from a closed set; a 4xx is the client's business.
fn error_type(record: &RequestRecord<'_>) -> Option<Cow<'static, str>> {
    match (record.outcome, record.status) {
        (Outcome::Ok, Some(status @ 500..)) => Some(Cow::Owned(status.to_string())),
        (Outcome::Ok, _) => None,
        (Outcome::Aborted | Outcome::Timeout | Outcome::Panic | Outcome::Lost, _) => {
            Some(Cow::Borrowed(record.outcome.as_str()))
        }
    }
}

// opentelemetry/proto/trace/v1/trace.proto, Span and Status
const TRACE_ID: Field = 1;
const SPAN_ID: Field = 2;
const TRACE_STATE: Field = 3;
const PARENT_SPAN_ID: Field = 4;
const NAME: Field = 5;
const KIND: Field = 6;
const START: Field = 7;
const END: Field = 8;
const ATTRIBUTES: Field = 9;
const DROPPED_ATTRIBUTES: Field = 10;
const EVENTS: Field = 11;
const STATUS: Field = 15;
const FLAGS: Field = 16;
const STATUS_MESSAGE: Field = 2;
const STATUS_CODE: Field = 3;

#[cfg(test)]
mod tests;

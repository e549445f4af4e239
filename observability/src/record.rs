//! What a reader gets from a ring: one record, decoded and already checked.
//!
//! There are far more requests than anything else, and an observer is done with almost all of them at once: their texts
//! stay in the reader's copy of the ring. Whoever keeps one calls [`Record::into_owned`].
//!
//! How a record stands in the file is in `record/encode.rs` and `record/decode.rs`.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod ended;
pub(crate) mod words;

use std::borrow::Cow;
use std::net::IpAddr;

use crate::closed::{Level, LostReason, Method, Outcome, Protocol, Sampling, SpanKind, SpanStatus};
use crate::ids::{SpanId, TraceId};

/// One thing that happened, as a worker, the supervisor or the observer wrote it down.
#[derive(Clone, PartialEq, Debug)]
pub enum Record<'a> {
    /// A request ended: answered, aborted, timed out or panicked.
    Request(RequestRecord<'a>),
    /// A child span ended.
    Span(SpanRecord),
    /// A log event.
    Event(EventRecord),
    /// A handler panicked.
    Panic(PanicRecord),
    /// A request died with its worker.
    Lost(LostRecord<'a>),
}

impl Record<'_> {
    /// Wall clock nanoseconds by which records of several rings are merged: when it was written down.
    pub fn wall_ns(&self) -> u64 {
        match self {
            Self::Request(request) => request.end_wall_ns(),
            Self::Span(span) => span.start_ns.saturating_add(span.duration_ns),
            Self::Event(event) => event.wall_ns,
            Self::Panic(panic) => panic.wall_ns,
            Self::Lost(lost) => lost.request.end_wall_ns(),
        }
    }

    /// The kind by which dropped records are counted.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Request(_) | Self::Lost(_) => Kind::Request,
            Self::Span(_) => Kind::Span,
            Self::Event(_) | Self::Panic(_) => Kind::Event,
        }
    }

    /// The same with texts of its own, to be kept.
    pub fn into_owned(self) -> Record<'static> {
        match self {
            Self::Request(request) => Record::Request(request.into_owned()),
            Self::Span(span) => Record::Span(span),
            Self::Event(event) => Record::Event(event),
            Self::Panic(panic) => Record::Panic(panic),
            Self::Lost(lost) => {
                Record::Lost(LostRecord { request: lost.request.into_owned(), ..lost })
            }
        }
    }
}

/// Label `kind` of `saola_records_dropped_total`.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Kind {
    /// A request, finished or lost.
    Request,
    /// A child span.
    Span,
    /// An event or a panic.
    Event,
    /// A profile sample.
    Sample,
}

impl Kind {
    /// Every kind, in the order of the header's counters.
    pub const ALL: [Self; 4] = [Self::Request, Self::Span, Self::Event, Self::Sample];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Span => "span",
            Self::Event => "event",
            Self::Sample => "sample",
        }
    }

    /// Its place among the header's counters.
    pub(crate) fn number(self) -> usize {
        Self::ALL.iter().position(|other| *other == self).unwrap_or(0)
    }
}

/// A finished (or lost) request: its access line and its server span are both made of this.
#[derive(Clone, PartialEq, Debug)]
pub struct RequestRecord<'a> {
    /// When its head was complete, wall clock nanoseconds.
    pub start_wall_ns: u64,
    /// From then until its last body frame was handed over, monotonic nanoseconds.
    pub duration_ns: u64,
    /// Its trace, continued from `traceparent` or new.
    pub trace: TraceId,
    /// Its server span.
    pub span: SpanId,
    /// The caller's span; none for a root.
    pub parent: SpanId,
    /// Whether the parent came from outside.
    pub remote_parent: bool,
    /// Whether the client asked for `https`, of us or of a trusted proxy.
    pub is_https: bool,
    /// The route template, `unmatched` when no route was named.
    pub route: Cow<'a, str>,
    /// The type of what went wrong, when something did: `panic`, `response_body` …
    pub exception: Option<Cow<'a, str>>,
    /// Bytes of the request body that were read.
    pub request_bytes: u64,
    /// Bytes of the response body that were handed over.
    pub response_bytes: u64,
    /// The status that was sent; none if no response head went out.
    pub status: Option<u16>,
    /// The client's address; none on a unix socket.
    pub client: Option<IpAddr>,
    /// The client's port, 0 on a unix socket.
    pub client_port: u16,
    /// The port of the listener, 0 on a unix socket.
    pub server_port: u16,
    /// Profile samples taken while it ran.
    pub cpu_samples: u32,
    /// Its method.
    pub method: Method,
    /// Its protocol.
    pub protocol: Protocol,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether its trace is kept.
    pub sampling: Sampling,
    /// Its path without the query, at most 1,024 bytes.
    pub path: Cow<'a, str>,
    /// Its request id, at most 128 bytes.
    pub request_id: Cow<'a, str>,
    /// The `User-Agent` field, at most 256 bytes.
    pub user_agent: Cow<'a, str>,
    /// The host it was sent to, at most 255 bytes.
    pub server_address: Cow<'a, str>,
    /// The method as sent when [`Method::Other`], at most 16 bytes.
    pub method_text: Cow<'a, str>,
    /// The `tracestate` that came with its trace, at most 512 bytes.
    pub tracestate: Cow<'a, str>,
}

impl RequestRecord<'_> {
    /// When it ended, wall clock nanoseconds: start plus monotonic duration, so never before its start.
    pub fn end_wall_ns(&self) -> u64 {
        self.start_wall_ns.saturating_add(self.duration_ns)
    }

    /// The method for people: as it was sent, also when it is no known one.
    pub fn method_name(&self) -> &str {
        if self.method_text.is_empty() { self.method.as_str() } else { &self.method_text }
    }

    fn into_owned(self) -> RequestRecord<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        RequestRecord {
            route: own(self.route),
            exception: self.exception.map(own),
            path: own(self.path),
            request_id: own(self.request_id),
            user_agent: own(self.user_agent),
            server_address: own(self.server_address),
            method_text: own(self.method_text),
            tracestate: own(self.tracestate),
            ..self
        }
    }
}

/// A child span of a request.
#[derive(Clone, PartialEq, Debug)]
pub struct SpanRecord {
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
    /// The server span of the request it belongs to.
    pub request: SpanId,
    /// Its kind.
    pub kind: SpanKind,
    /// Its status.
    pub status: SpanStatus,
    /// What the status says, at most 256 bytes.
    pub status_text: String,
    /// Its name, at most 128 bytes.
    pub name: String,
    /// At most 64 attributes, keys of at most 64 and values of at most 1,024 bytes.
    pub attributes: Vec<(String, OwnedValue)>,
}

/// A log event.
#[derive(Clone, PartialEq, Debug)]
pub struct EventRecord {
    /// When it happened, wall clock nanoseconds.
    pub wall_ns: u64,
    /// Its level.
    pub level: Level,
    /// The module or part that wrote it.
    pub target: String,
    /// Its constant message, at most 4,096 bytes.
    pub message: String,
    /// The trace of the request it happened in, or none.
    pub trace: TraceId,
    /// The span of that request, or none.
    pub span: SpanId,
    /// The id of that request, or empty.
    pub request_id: String,
    /// At most 64 fields, keys of at most 64 and values of at most 4,096 bytes, in the order recorded.
    pub fields: Vec<(String, OwnedValue)>,
}

/// A handler's panic.
#[derive(Clone, PartialEq, Debug)]
pub struct PanicRecord {
    /// When it happened, wall clock nanoseconds.
    pub wall_ns: u64,
    /// The trace of the request it happened in, or none.
    pub trace: TraceId,
    /// The span of that request, or none.
    pub span: SpanId,
    /// The request's route template.
    pub route: String,
    /// The panic's message, at most 4,096 bytes.
    pub message: String,
    /// File, line and column.
    pub location: String,
    /// The stack, at most 8,192 bytes; may be empty.
    pub backtrace: String,
}

/// A request that died with its worker, as the supervisor found it in the in-flight table.
#[derive(Clone, PartialEq, Debug)]
pub struct LostRecord<'a> {
    /// What was known of it: outcome `lost`, no status, duration = its age at the death.
    pub request: RequestRecord<'a>,
    /// The slot of the dead worker.
    pub slot: u32,
    /// Its pid.
    pub pid: u32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The code it exited with.
    pub exit_code: Option<i32>,
    /// Why it died.
    pub reason: LostReason,
    /// 1; more when the in-flight table had overflowed and only a number is known.
    pub count: u64,
}

/// The value of a field or an attribute that a writer hands in.
#[derive(Copy, Clone, PartialEq, Debug)]
pub enum Value<'a> {
    /// Text.
    Str(&'a str),
    /// A number without a sign.
    U64(u64),
    /// A number with a sign.
    I64(i64),
    /// A number with a fraction.
    F64(f64),
    /// Yes or no.
    Bool(bool),
}

/// The value of a field or an attribute that a reader gets.
#[derive(Clone, PartialEq, Debug)]
pub enum OwnedValue {
    /// Text.
    Str(String),
    /// A number without a sign.
    U64(u64),
    /// A number with a sign.
    I64(i64),
    /// A number with a fraction.
    F64(f64),
    /// Yes or no.
    Bool(bool),
}

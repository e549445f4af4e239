//! A request record becomes a server span, and a span record one of its children: built directly, without the SDK's
//! tracer and sampler.

mod attributes;
mod note;

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use saola_observability::closed::{self, Method, Outcome, SpanStatus};
use saola_observability::record::{RequestRecord, SpanRecord};

use super::settings::SpanLimits;
use attributes::Attributes;
pub(crate) use note::Note;

/// Builds spans within their limits.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    limits: SpanLimits,
    scope: InstrumentationScope,
}

impl Builder {
    pub(crate) fn new(limits: SpanLimits) -> Self {
        let scope = InstrumentationScope::builder("saola").with_version(env!("CARGO_PKG_VERSION"));
        Self { limits, scope: scope.build() }
    }

    /// How many events a span may have.
    pub(crate) fn most_events(&self) -> usize {
        self.limits.events
    }

    /// The server span of a request, finished or lost.
    pub(crate) fn request(
        &self,
        worker: Option<u32>,
        record: &RequestRecord,
        inside: &Inside<'_>,
    ) -> SpanData {
        let method = match record.method {
            // Semantic conventions: a name never holds a method that is not known.
            Method::Other => "HTTP",
            known => known.as_str(),
        };
        let is_error = error_type(record).is_some() && record.outcome != Outcome::Aborted;
        let mut span = self.span(Facts {
            trace: record.trace.0,
            span: record.span.0,
            parent: record.parent.0,
            start_ns: record.start_wall_ns,
            duration_ns: record.duration_ns,
            kind: SpanKind::Server,
            name: format!("{method} {}", record.route),
            tracestate: &record.tracestate,
        });
        span.parent_span_is_remote = record.remote_parent;
        if is_error {
            span.status = Status::error("");
        }
        let mut attributes = Attributes::new(self.limits);
        request_attributes(&mut attributes, worker, record);
        if inside.is_profiled {
            attributes.text("pyroscope.profile.id", &record.span.to_string());
        }
        (span.attributes, span.dropped_attributes_count) = attributes.finish();
        let events = inside.notes.iter().map(|note| note.event(self.limits));
        let said = (inside.dropped > 0)
            .then(|| note::children_dropped(record.end_wall_ns(), inside.dropped));
        span.events.events = events.chain(said).collect();
        span
    }

    /// A child span.
    pub(crate) fn child(&self, worker: Option<u32>, record: &SpanRecord) -> SpanData {
        let mut span = self.span(Facts {
            trace: record.trace.0,
            span: record.span.0,
            parent: record.parent.0,
            start_ns: record.start_ns,
            duration_ns: record.duration_ns,
            kind: match record.kind {
                closed::SpanKind::Internal => SpanKind::Internal,
                closed::SpanKind::Client => SpanKind::Client,
                closed::SpanKind::Server => SpanKind::Server,
                closed::SpanKind::Producer => SpanKind::Producer,
                closed::SpanKind::Consumer => SpanKind::Consumer,
            },
            name: record.name.clone(),
            tracestate: "",
        });
        span.status = match record.status {
            SpanStatus::Unset => Status::Unset,
            SpanStatus::Ok => Status::Ok,
            SpanStatus::Error => Status::error(record.status_text.clone()),
        };
        let mut attributes = Attributes::new(self.limits);
        attributes.given(&record.attributes);
        attributes.worker(worker);
        (span.attributes, span.dropped_attributes_count) = attributes.finish();
        span
    }

    fn span(&self, facts: Facts<'_>) -> SpanData {
        let start_time = note::time(facts.start_ns);
        SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(facts.trace),
                SpanId::from_bytes(facts.span),
                TraceFlags::SAMPLED,
                false,
                // The worker dropped what was too long; what still does not parse is left out.
                TraceState::from_str(facts.tracestate).unwrap_or_default(),
            ),
            parent_span_id: SpanId::from_bytes(facts.parent),
            parent_span_is_remote: false,
            span_kind: facts.kind,
            name: Cow::Owned(facts.name),
            start_time,
            end_time: start_time + Duration::from_nanos(facts.duration_ns),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
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

/// About how much memory a span takes, for the bound of the queue.
pub(crate) fn bytes(span: &SpanData) -> usize {
    let text =
        |value: &Value| if let Value::String(text) = value { text.as_str().len() } else { 0 };
    let attribute = size_of::<KeyValue>();
    let attributes =
        span.attributes.iter().map(|pair| attribute + text(&pair.value)).sum::<usize>();
    let events = span.events.iter().map(|event| {
        128 + event.attributes.iter().map(|pair| attribute + text(&pair.value)).sum::<usize>()
    });
    size_of::<SpanData>() + span.name.len() + attributes + events.sum::<usize>()
}

struct Facts<'a> {
    trace: [u8; 16],
    span: [u8; 8],
    parent: [u8; 8],
    start_ns: u64,
    duration_ns: u64,
    kind: SpanKind,
    name: String,
    tracestate: &'a str,
}

fn request_attributes(attributes: &mut Attributes, worker: Option<u32>, record: &RequestRecord) {
    attributes.push("http.request.method", record.method.as_str());
    attributes.text_if_any("http.request.method_original", &record.method_text);
    attributes.text("http.route", &record.route);
    attributes.text_if_any("url.path", &record.path);
    // The table that a lost request is known from does not say.
    if record.outcome != Outcome::Lost {
        attributes.push("url.scheme", if record.is_https { "https" } else { "http" });
    }
    if let Some(status) = record.status {
        attributes.push("http.response.status_code", i64::from(status));
    }
    attributes.text_if_any("server.address", &record.server_address);
    if record.server_port != 0 {
        attributes.push("server.port", i64::from(record.server_port));
    }
    if let Some(client) = record.client {
        attributes.text("client.address", &client.to_string());
    }
    attributes.text_if_any("user_agent.original", &record.user_agent);
    attributes.push("network.protocol.version", record.protocol.as_str());
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
fn error_type(record: &RequestRecord) -> Option<Cow<'static, str>> {
    match (record.outcome, record.status) {
        (Outcome::Ok, Some(status @ 500..)) => Some(Cow::Owned(status.to_string())),
        (Outcome::Ok, _) => None,
        (Outcome::Aborted | Outcome::Timeout | Outcome::Panic | Outcome::Lost, _) => {
            Some(Cow::Borrowed(record.outcome.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logfmt::tests::request;

    fn value<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
        span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| &pair.value)
    }

    fn built(record: &RequestRecord) -> SpanData {
        Builder::new(SpanLimits::default()).request(Some(2), record, &Inside::default())
    }

    #[test]
    fn a_request_becomes_a_server_span() {
        let span = built(&request());
        assert_eq!(span.name, "GET /items/{id}");
        assert_eq!(span.span_kind, SpanKind::Server);
        assert_eq!(span.status, Status::Unset);
        assert_eq!(span.end_time.duration_since(span.start_time).unwrap().as_nanos(), 3_210_000);
        assert_eq!(value(&span, "http.response.status_code"), Some(&Value::I64(200)));
        assert_eq!(value(&span, "saola.worker"), Some(&Value::I64(2)));
        assert_eq!(value(&span, "url.path"), Some(&Value::from("/items/7")));
        assert_eq!(value(&span, "client.address"), Some(&Value::from("127.0.0.1")));
        assert_eq!(value(&span, "error.type"), None);
    }

    #[test]
    fn what_failed_is_an_error_and_what_the_client_did_is_not() {
        let of = |outcome, status| built(&RequestRecord { outcome, status, ..request() });
        let kind = |span: &SpanData| value(span, "error.type").map(ToString::to_string);
        let failed = of(Outcome::Ok, Some(503));
        assert_eq!((kind(&failed).as_deref(), &failed.status), (Some("503"), &Status::error("")));
        for outcome in [Outcome::Panic, Outcome::Timeout, Outcome::Lost] {
            let span = of(outcome, None);
            assert_eq!(kind(&span).as_deref(), Some(outcome.as_str()));
            assert_eq!(span.status, Status::error(""));
        }
        let aborted = of(Outcome::Aborted, None);
        assert_eq!((kind(&aborted).as_deref(), &aborted.status), (Some("aborted"), &Status::Unset));
        let missing = of(Outcome::Ok, Some(404));
        assert_eq!((kind(&missing), &missing.status), (None, &Status::Unset));
    }

    #[test]
    fn limits_hold() {
        let limits = SpanLimits { attributes: 3, value_bytes: 4, events: 0 };
        let span = Builder::new(limits).request(None, &request(), &Inside::default());
        assert_eq!(span.attributes.len(), 3);
        assert!(span.dropped_attributes_count > 5);
        assert_eq!(value(&span, "http.route"), Some(&Value::from("/ite")));
    }

    #[test]
    fn an_unknown_method_stays_out_of_the_name() {
        let record =
            RequestRecord { method: Method::Other, method_text: "BREW".into(), ..request() };
        let span = built(&record);
        assert_eq!(span.name, "HTTP /items/{id}");
        assert_eq!(value(&span, "http.request.method"), Some(&Value::from("_OTHER")));
        assert_eq!(value(&span, "http.request.method_original"), Some(&Value::from("BREW")));
    }
}

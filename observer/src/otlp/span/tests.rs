//! Encoded spans, read back with the messages that were generated from the standard's own files.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource as SentResource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use proptest::prelude::{any as any_of, *};
use prost::Message as _;
use saola_observability::closed::{Level, Protocol, Sampling};
use saola_observability::record::{EventRecord, OwnedValue, PanicRecord};

use super::*;
use crate::logfmt::tests::{hostile, request};
use crate::otlp::batch::Envelope;
use crate::otlp::resource::Resource;

fn decoded(encoded: &[u8]) -> Span {
    Span::decode(encoded).unwrap()
}

fn value<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    let pair = span.attributes.iter().find(|pair| pair.key == key)?;
    pair.value.as_ref()?.value.as_ref()
}

fn string(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn built(record: &RequestRecord<'_>) -> Span {
    let builder = Builder::new(SpanLimits::default());
    decoded(&builder.request(Some(2), record, &Inside::default()))
}

#[test]
fn a_request_becomes_a_server_span() {
    let span = built(&request());
    assert_eq!(span.name, "GET /items/{id}");
    assert_eq!(span.kind(), span::SpanKind::Server);
    assert_eq!(span.status, None);
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 3_210_000);
    assert_eq!(value(&span, "http.response.status_code"), Some(&Value::IntValue(200)));
    assert_eq!(value(&span, "saola.worker"), Some(&Value::IntValue(2)));
    assert_eq!(value(&span, "url.path"), Some(&string("/items/7")));
    assert_eq!(value(&span, "client.address"), Some(&string("127.0.0.1")));
    assert_eq!(value(&span, "error.type"), None);
}

#[test]
fn what_failed_is_an_error_and_what_the_client_did_is_not() {
    let of = |outcome, status| built(&RequestRecord { outcome, status, ..request() });
    let kind = |span: &Span| value(span, "error.type").cloned();
    let error = Some(Status { message: String::new(), code: StatusCode::Error.into() });
    let failed = of(Outcome::Ok, Some(503));
    assert_eq!((kind(&failed), &failed.status), (Some(string("503")), &error));
    for outcome in [Outcome::Panic, Outcome::Timeout, Outcome::Lost] {
        let span = of(outcome, None);
        assert_eq!((kind(&span), &span.status), (Some(string(outcome.as_str())), &error));
    }
    let aborted = of(Outcome::Aborted, None);
    assert_eq!((kind(&aborted), aborted.status), (Some(string("aborted")), None));
    let missing = of(Outcome::Ok, Some(404));
    assert_eq!((kind(&missing), missing.status), (None, None));
}

#[test]
fn limits_hold() {
    let limits = SpanLimits { attributes: 3, value_bytes: 4, events: 0 };
    let span = decoded(&Builder::new(limits).request(None, &request(), &Inside::default()));
    assert_eq!(span.attributes.len(), 3);
    assert!(span.dropped_attributes_count > 5);
    assert_eq!(value(&span, "http.route"), Some(&string("/ite")));
}

#[test]
fn an_unknown_method_stays_out_of_the_name() {
    let record = RequestRecord { method: Method::Other, method_text: "BREW".into(), ..request() };
    let span = built(&record);
    assert_eq!(span.name, "HTTP /items/{id}");
    assert_eq!(value(&span, "http.request.method"), Some(&string("_OTHER")));
    assert_eq!(value(&span, "http.request.method_original"), Some(&string("BREW")));
}

#[test]
fn a_request_tells_what_happened_in_it() {
    let panic = PanicRecord {
        wall_ns: 7,
        trace: TraceId::NONE,
        span: SpanId::NONE,
        route: String::new(),
        message: "oops".into(),
        location: "src/main.rs:1".into(),
        backtrace: String::new(),
    };
    let inside = Inside { notes: &[Note::Panic(panic)], dropped: 3, is_profiled: true };
    let builder = Builder::new(SpanLimits::default());
    let span = decoded(&builder.request(None, &request(), &inside));
    let [panic, dropped] = span.events.as_slice() else { panic!("{:?}", span.events) };
    assert_eq!((panic.name.as_str(), panic.time_unix_nano), ("exception", 7));
    let stack = panic.attributes.last().unwrap();
    assert_eq!(
        (stack.key.as_str(), stack.value.clone()),
        ("exception.stacktrace", Some(any(&OwnedValue::Str("src/main.rs:1".into()), 1_024)))
    );
    assert_eq!(dropped.name, "dropped children");
    assert_eq!(dropped.attributes, [pair("count", &OwnedValue::U64(3), 1_024)]);
    assert_eq!(value(&span, "pyroscope.profile.id"), Some(&string("3031323334353637")));
}

/// What stands for a value, of at most so many bytes.
fn any(value: &OwnedValue, most: usize) -> AnyValue {
    let value = match value {
        OwnedValue::Str(text) => {
            let mut text = text.clone();
            text.truncate(text.floor_char_boundary(most));
            Value::StringValue(text)
        }
        OwnedValue::U64(number) => Value::IntValue(i64::try_from(*number).unwrap_or(i64::MAX)),
        OwnedValue::I64(number) => Value::IntValue(*number),
        OwnedValue::F64(number) => Value::DoubleValue(*number),
        OwnedValue::Bool(yes) => Value::BoolValue(*yes),
    };
    AnyValue { value: Some(value) }
}

fn pair(key: &str, value: &OwnedValue, most: usize) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any(value, most)), ..KeyValue::default() }
}

/// The pairs that the limits leave, and how many they do not.
fn limited(pairs: &[(&str, OwnedValue)], limits: SpanLimits) -> (Vec<KeyValue>, u32) {
    let kept = pairs.iter().take(limits.attributes);
    let kept: Vec<_> = kept.map(|(key, value)| pair(key, value, limits.value_bytes)).collect();
    let dropped = u32::try_from(pairs.len() - kept.len()).unwrap();
    (kept, dropped)
}

/// The span of an ordinary request, as the documents want it; written without a look at the encoder.
fn expected(worker: Option<u32>, record: &RequestRecord<'_>, limits: SpanLimits) -> Span {
    let text = |text: &str| OwnedValue::Str(text.to_owned());
    let mut pairs = vec![("http.request.method", text("GET")), ("http.route", text(&record.route))];
    let may = |pairs: &mut Vec<_>, key, value: &str| {
        if !value.is_empty() {
            pairs.push((key, text(value)));
        }
    };
    may(&mut pairs, "url.path", &record.path);
    pairs.push(("url.scheme", text(if record.is_https { "https" } else { "http" })));
    pairs.extend(
        record.status.map(|status| ("http.response.status_code", OwnedValue::U64(status.into()))),
    );
    may(&mut pairs, "server.address", &record.server_address);
    if record.server_port != 0 {
        pairs.push(("server.port", OwnedValue::U64(record.server_port.into())));
    }
    pairs.extend(record.client.map(|client| ("client.address", text(&client.to_string()))));
    may(&mut pairs, "user_agent.original", &record.user_agent);
    pairs.push(("network.protocol.version", text("1.1")));
    pairs.push(("http.request.body.size", OwnedValue::U64(record.request_bytes)));
    pairs.push(("http.response.body.size", OwnedValue::U64(record.response_bytes)));
    may(&mut pairs, "request.id", &record.request_id);
    pairs.extend(worker.map(|worker| ("saola.worker", OwnedValue::U64(worker.into()))));
    let (attributes, dropped_attributes_count) = limited(&pairs, limits);
    let parent = record.parent.0;
    Span {
        trace_id: record.trace.0.to_vec(),
        span_id: record.span.0.to_vec(),
        parent_span_id: if parent == [0; 8] { Vec::new() } else { parent.to_vec() },
        flags: if record.remote_parent { 0x301 } else { 0x101 },
        name: format!("GET {}", record.route),
        kind: span::SpanKind::Server.into(),
        start_time_unix_nano: record.start_wall_ns,
        end_time_unix_nano: record.start_wall_ns + record.duration_ns,
        attributes,
        dropped_attributes_count,
        ..Span::default()
    }
}

fn any_value() -> impl Strategy<Value = OwnedValue> {
    prop_oneof![
        hostile().prop_map(OwnedValue::Str),
        any_of::<u64>().prop_map(OwnedValue::U64),
        any_of::<i64>().prop_map(OwnedValue::I64),
        any_of::<f64>()
            .prop_filter("equal to itself", |number| !number.is_nan())
            .prop_map(OwnedValue::F64),
        any_of::<bool>().prop_map(OwnedValue::Bool),
    ]
}

prop_compose! {
    fn any_limits()(attributes in 0_usize..20, value_bytes in prop_oneof![0_usize..8, 100_usize..2_000]) -> SpanLimits {
        SpanLimits { attributes, value_bytes, events: 32 }
    }
}

prop_compose! {
    fn any_request()(
        route in hostile(), path in hostile(), agent in hostile(), id in hostile(), host in hostile(),
        ids: (u128, u64, u64), start_wall_ns in 1..u64::MAX / 2, duration_ns in 0..u64::MAX / 2,
        numbers: (u64, u64, u16), client: Option<std::net::IpAddr>, flags: (bool, bool),
        status in proptest::option::of(100_u16..500),
    ) -> RequestRecord<'static> {
        RequestRecord {
            start_wall_ns, duration_ns,
            trace: TraceId((ids.0 | 1).to_be_bytes()),
            span: SpanId((ids.1 | 1).to_be_bytes()),
            parent: SpanId(ids.2.to_be_bytes()),
            remote_parent: flags.0, is_https: flags.1,
            route: route.into(), path: path.into(), user_agent: agent.into(), request_id: id.into(),
            server_address: host.into(),
            request_bytes: numbers.0, response_bytes: numbers.1, server_port: numbers.2,
            client, status, outcome: Outcome::Ok, protocol: Protocol::Http11,
            sampling: Sampling::Ratio,
            ..request()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn any_request_reads_back_as_the_standard_reads(
        record in any_request(), worker: Option<u32>, limits in any_limits(),
    ) {
        let encoded = Builder::new(limits).request(worker, &record, &Inside::default());
        let read = decoded(&encoded);
        prop_assert_eq!(&read, &expected(worker, &record, limits));
        // Nothing stands there that the standard does not know.
        prop_assert_eq!(read.encode_to_vec(), encoded.to_vec());
    }

    #[test]
    fn any_child_reads_back_as_the_standard_reads(
        name in "[a-z]{1,9}", text in hostile(), ids: (u128, u64, u64),
        fields in proptest::collection::vec(("[a-z_]{1,60}", any_value()), 0..40),
        limits in any_limits(),
    ) {
        let record = SpanRecord {
            start_ns: 5, duration_ns: 6,
            trace: TraceId((ids.0 | 1).to_be_bytes()),
            span: SpanId((ids.1 | 1).to_be_bytes()),
            parent: SpanId((ids.2 | 1).to_be_bytes()),
            request: SpanId::NONE,
            kind: SpanKind::Client, status: SpanStatus::Error,
            status_text: text.clone(), name: name.clone(), attributes: fields,
        };
        let given: Vec<_> = record.attributes.iter().map(|(key, value)| {
            let is_secret = crate::logfmt::is_secret(key);
            (key.as_str(), if is_secret { OwnedValue::Str("***".into()) } else { value.clone() })
        }).collect();
        let (attributes, dropped_attributes_count) = limited(&given, limits);
        let encoded = Builder::new(limits).child(None, &record);
        let read = decoded(&encoded);
        prop_assert_eq!(&read, &Span {
            trace_id: record.trace.0.to_vec(),
            span_id: record.span.0.to_vec(),
            parent_span_id: record.parent.0.to_vec(),
            flags: 0x101,
            name,
            kind: span::SpanKind::Client.into(),
            start_time_unix_nano: 5,
            end_time_unix_nano: 11,
            attributes,
            dropped_attributes_count,
            status: Some(Status { message: text, code: StatusCode::Error.into() }),
            ..Span::default()
        });
        prop_assert_eq!(read.encode_to_vec(), encoded.to_vec());
    }

    #[test]
    fn any_error_reads_back_as_an_event(
        message in "[a-z ]{1,20}", target in hostile(),
        fields in proptest::collection::vec(("[a-z]{1,5}", any_value()), 0..20),
        limits in any_limits(),
    ) {
        let error = EventRecord {
            wall_ns: 9, level: Level::Error, target: target.clone(), message: message.clone(),
            trace: TraceId::NONE, span: SpanId::NONE, request_id: String::new(), fields: fields.clone(),
        };
        let mut pairs = vec![
            ("level", OwnedValue::Str("error".into())), ("target", OwnedValue::Str(target)),
        ];
        pairs.extend(fields.iter().map(|(key, value)| (key.as_str(), value.clone())));
        let (attributes, dropped_attributes_count) = limited(&pairs, limits);
        let encoded = Note::Error(error).event(limits);
        let read = Event::decode(&*encoded).unwrap();
        prop_assert_eq!(&read, &Event {
            time_unix_nano: 9, name: message, attributes, dropped_attributes_count,
        });
        prop_assert_eq!(read.encode_to_vec(), encoded);
    }

    #[test]
    fn any_batch_reads_back_with_who_it_is_from(
        records in proptest::collection::vec(any_request(), 0..6), name in "[a-z]{1,300}",
        given in proptest::collection::vec(("[a-z.]{1,9}", hostile()), 0..5),
    ) {
        let resource = Resource {
            name, version: "1.2".into(), instance: "host:80".into(), host: String::new(),
            attributes: given,
        };
        let builder = Builder::new(SpanLimits::default());
        let spans: Vec<Encoded> = records.iter()
            .map(|record| builder.request(None, record, &Inside::default())).collect();
        let batch = Envelope::new(&resource).close(spans.iter().map(|span| &**span));
        let read = ExportTraceServiceRequest::decode(&*batch).unwrap();
        let attributes = resource.all().into_iter()
            .map(|(key, value)| pair(key, &OwnedValue::Str(value.to_owned()), usize::MAX)).collect();
        let scope = InstrumentationScope {
            name: "saola".into(), version: env!("CARGO_PKG_VERSION").into(), ..InstrumentationScope::default()
        };
        prop_assert_eq!(&read, &ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(SentResource { attributes, ..SentResource::default() }),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans: spans.iter().map(|span| decoded(span)).collect(),
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        });
        prop_assert_eq!(read.encode_to_vec(), batch.to_vec());
    }
}

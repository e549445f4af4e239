//! Spans at the collector: which, with what in them, and that they agree with the lines.

use std::collections::BTreeSet;

use hyper::Request;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use crate::collector::{Collector, Got, Mode};
use crate::load::{Connections, Load};
use crate::metrics::Metrics;
use crate::server::{Server, Slot};
use crate::setup::Setup;
use crate::wait;

/// A server that exports often, to `collector`.
pub(crate) fn traced(collector: &Collector) -> Setup {
    Setup::new()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
}

#[test]
fn every_sampled_request_is_one_server_span_and_every_line_has_its_trace() {
    let collector = Collector::start(Mode::Answer);
    let server =
        traced(&collector).args(["--workers", "3", "--trace-rate-limit", "100000"]).start();
    let load = Load::start(&server.address(), 3, Connections::Kept, "/api/items/7");
    load.until_more(150);
    let tally = load.stop();
    tally.expect_no_loss();
    for path in ["/nope", "/api/exception", "/api/server-error"] {
        server.get(path);
    }
    // The end exports what is left.
    assert_eq!(server.stop(), 0);
    let (lines, spans) = (server.lines_of("request"), collector.spans());
    assert_eq!(u64::try_from(lines.len()).unwrap(), tally.sent() + 3);
    let of_lines: BTreeSet<_> = lines
        .iter()
        .map(|line| (line.get("trace_id").to_owned(), line.get("span_id").to_owned()))
        .collect();
    let is_server = |got: &&Got| got.span.kind == i32::from(SpanKind::Server);
    let of_spans: Vec<_> =
        spans.iter().filter(is_server).map(|got| (got.trace_id(), got.span_id())).collect();
    assert_eq!(of_spans.len(), lines.len(), "one span each");
    assert_eq!(of_spans.into_iter().collect::<BTreeSet<_>>(), of_lines);
}

#[test]
fn a_server_span_has_the_attributes_of_the_contract() {
    let collector = Collector::start(Mode::Answer);
    let setup = traced(&collector).env("OTEL_SERVICE_NAME", "shop");
    let server = setup
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.instance.id=one")
        .start();
    let (host, port) = (server.address(), server.address().split(':').nth(1).unwrap().to_owned());
    let request =
        Request::post("/api/items?secret=1").header("host", host).header("user-agent", "tests 1.0");
    let answer = server.send(request.body(r#"{"name":"x"}"#).unwrap());
    let line = server.access_line(answer.expect_status(201).request_id());
    let got = collector.span_of(answer.request_id());
    assert_eq!(
        (got.trace_id().as_str(), got.span_id().as_str()),
        (line.get("trace_id"), line.get("span_id"))
    );
    assert_eq!(
        (got.span.name.as_str(), got.parent_id().as_str(), got.scope.as_str()),
        ("POST /api/items", "", "saola")
    );
    let (worker, size) = (line.get("worker"), answer.text().len().to_string());
    let expected = [
        ("http.request.method", "POST"),
        ("http.route", "/api/items"),
        ("url.path", "/api/items"),
        ("url.scheme", "http"),
        ("http.response.status_code", "201"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
        ("client.address", "127.0.0.1"),
        ("user_agent.original", "tests 1.0"),
        ("network.protocol.version", "1.1"),
        ("http.request.body.size", "12"),
        ("http.response.body.size", &size),
        ("saola.worker", worker),
    ];
    for (key, value) in expected {
        assert_eq!(got.get(key), value, "{key}");
    }
    let resource = [
        ("service.name", "shop"),
        ("deployment.environment.name", "test"),
        ("service.instance.id", "one"),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    for (key, value) in resource {
        assert_eq!(got.resource.get(key).map_or("", String::as_str), value, "{key}");
    }
    assert!(got.span.end_time_unix_nano > got.span.start_time_unix_nano);
    assert!(!format!("{got:?}").contains("secret"), "no query in a span");
    assert_eq!(line.get("service"), "shop");
}

#[test]
fn a_continued_trace_has_its_caller_as_parent() {
    let collector = Collector::start(Mode::Answer);
    let server = traced(&collector).start();
    let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = server.send(Request::get("/").header("traceparent", header).body("").unwrap());
    let got = collector.span_of(answer.request_id());
    assert_eq!(
        (got.trace_id(), got.parent_id()),
        ("4bf92f3577b34da6a3ce929d0e0e4736".to_owned(), "00f067aa0ba902b7".to_owned())
    );
}

#[test]
fn a_caller_that_does_not_sample_is_followed_but_for_errors() {
    let collector = Collector::start(Mode::Answer);
    let server = traced(&collector).start();
    let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let ask = |path: &str| {
        server.send(Request::get(path).header("traceparent", header).body("").unwrap())
    };
    let quiet = ask("/");
    let failed = ask("/api/server-error");
    collector.span_of(failed.request_id());
    assert_eq!(server.stop(), 0);
    assert!(collector.spans().iter().all(|got| got.get("request.id") != quiet.request_id()));
}

#[test]
fn a_ratio_of_nothing_keeps_what_failed_or_was_slow() {
    let collector = Collector::start(Mode::Answer);
    let setup = traced(&collector)
        .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        .env("OTEL_TRACES_SAMPLER_ARG", "0");
    let server = setup.args(["--slow-request", "300ms"]).start();
    for path in ["/", "/nope", "/api/items/7"] {
        server.get(path);
    }
    let kept: BTreeSet<_> = ["/api/server-error", "/api/exception", "/api/slow?ms=400"]
        .map(|path| server.get(path).request_id().to_owned())
        .into();
    assert_eq!(server.stop(), 0);
    let got: BTreeSet<_> =
        collector.spans().iter().map(|got| got.get("request.id").to_owned()).collect();
    assert_eq!(got, kept);
}

#[test]
fn a_span_that_failed_says_so_and_one_that_was_refused_does_not() {
    let collector = Collector::start(Mode::Answer);
    let server = traced(&collector).start();
    let error = i32::from(StatusCode::Error);
    let cases = [
        ("/api/server-error", "500", error),
        ("/api/exception", "panic", error),
        ("/nope", "", 0),
        ("/", "", 0),
    ];
    for (path, error_type, code) in cases {
        let got = collector.span_of(server.get(path).request_id());
        let status = got.span.status.clone().unwrap_or_default();
        assert_eq!((got.get("error.type"), status.code), (error_type, code), "{path}");
        assert_eq!(status.message, "", "{path}");
    }
}

#[test]
fn a_lost_request_is_an_error_span_with_the_ids_of_its_line() {
    let collector = Collector::start(Mode::Answer);
    let server = traced(&collector).args(["--workers", "1"]).start();
    let load = Load::start(&server.address(), 1, Connections::Fresh, "/api/slow?ms=20000");
    server.until("it runs", |metrics| metrics.sum("http_server_active_requests") == 1);
    server.kill(Slot(0));
    let line = server.until_line("it is told", |line| line.get("outcome") == "lost");
    let got = collector.span_of(line.get("request_id"));
    assert_eq!(
        (got.trace_id().as_str(), got.span_id().as_str()),
        (line.get("trace_id"), line.get("span_id"))
    );
    assert_eq!(
        (got.get("error.type"), got.span.status.clone().unwrap_or_default().code),
        ("lost", i32::from(StatusCode::Error))
    );
    assert_eq!(got.get("http.route"), "/api/slow");
    server.stop_at_once();
    load.stop();
}

#[test]
fn a_trace_rate_limit_of_zero_is_none() {
    let collector = Collector::start(Mode::Answer);
    let server = traced(&collector).args(["--trace-rate-limit", "0"]).start();
    let answers = ["/", "/api/server-error"].map(|path| server.get(path));
    for answer in &answers {
        collector.span_of(answer.request_id());
    }
}

#[test]
fn a_trace_rate_limit_bounds_what_callers_can_force() {
    let collector = Collector::start(Mode::Answer);
    let server = traced(&collector).args(["--workers", "1", "--trace-rate-limit", "1"]).start();
    let since = std::time::Instant::now();
    for _ in 0..100 {
        server.get("/").expect_status(200);
    }
    // One token at the start, and one for each second that has passed.
    let most = usize::try_from(since.elapsed().as_secs()).unwrap() + 2;
    server.until("all have ended", |metrics| {
        metrics.sum("http_server_request_duration_seconds_count") == 100
    });
    let limited =
        |metrics: &Metrics| metrics.value("saola_spans_dropped_total", &[("reason", "rate_limit")]);
    server.until("each is exported or counted", |metrics| {
        metrics.sum("saola_spans_exported_total") + limited(metrics) == 100
    });
    let limited = usize::try_from(limited(&server.metrics())).unwrap();
    assert_eq!(server.stop(), 0);
    let kept = collector.spans().len();
    assert!((1..=most).contains(&kept), "{kept} of at most {most}");
    assert_eq!(kept + limited, 100, "sent and counted");
}

#[test]
fn exported_spans_are_counted() {
    let collector = Collector::start(Mode::Answer);
    let server = traced(&collector).start();
    for _ in 0..20 {
        server.get("/");
    }
    server.until("all are exported", |metrics| metrics.sum("saola_spans_exported_total") == 20);
    assert_eq!(collector.spans().len(), 20);
}

#[test]
fn without_an_endpoint_nothing_is_attempted_and_nothing_said() {
    let server = Server::start([]);
    for _ in 0..5 {
        server.get("/api/exception");
    }
    server.until("all have ended", |metrics| {
        metrics.sum("http_server_request_duration_seconds_count") == 5
    });
    let metrics = server.metrics();
    assert_eq!(
        (metrics.sum("saola_spans_exported_total"), metrics.sum("saola_spans_dropped_total")),
        (0, 0)
    );
    assert_eq!(server.stop(), 0);
    let about_export = |text: &String| text.contains("export") || text.contains(":4317");
    assert!(!server.stdout().lines().iter().any(about_export));
    assert!(!server.stderr().lines().iter().any(about_export));
}

#[test]
fn a_killed_observer_loses_no_span() {
    let collector = Collector::start(Mode::Answer);
    let server = traced(&collector).args(["--trace-rate-limit", "100000"]).start();
    let load = Load::start(&server.address(), 2, Connections::Kept, "/api/items/7");
    for _ in 0..2 {
        load.until_more(50);
        let observer = server.until_whole(2).observer.unwrap();
        nix::sys::signal::kill(observer, nix::sys::signal::Signal::SIGKILL).unwrap();
        wait::until("another observer runs", || {
            server.pids().observer.is_some_and(|pid| pid != observer)
        });
    }
    load.until_more(50);
    let tally = load.stop();
    tally.expect_no_loss();
    let missing = || {
        let got: BTreeSet<_> =
            collector.spans().iter().map(|got| got.get("request.id").to_owned()).collect();
        tally.answered.keys().filter(|id| !got.contains(*id)).cloned().collect::<Vec<_>>()
    };
    wait::until_or(
        "every span has come",
        || missing().is_empty(),
        || format!("of {}: {:?}", tally.sent(), missing()),
    );
}

//! Collectors that do not work: no request notices, and an operator is told once.

use tonic::Code;

use crate::certificates::Authority;
use crate::collector::{Collector, Mode};
use crate::collector_http::{HttpCollector, Mode as HttpMode};
use crate::load::{Connections, Load};
use crate::posts::Reply;
use crate::server::Server;
use crate::setup::Setup;
use crate::tracing::traced;

const EXPORTED: &str = "saola_spans_exported_total";
const DROPPED: &str = "saola_spans_dropped_total";

/// Serves under load until the failure is told; then makes the collector work, and waits for recovery.
fn survives(
    mut collector: Collector,
    setup: Setup,
    heal: impl FnOnce(&mut Collector),
) -> (Server, Collector) {
    let server = setup.args(["--trace-rate-limit", "100000"]).start();
    let load = Load::start(&server.address(), 2, Connections::Kept, "/api/items/7");
    server.until_line("the failure is told", |line| line.is("trace export failed"));
    load.until_more(50);
    load.stop().expect_no_loss();
    assert_eq!(server.metrics().sum(EXPORTED), 0);
    heal(&mut collector);
    server.until("it recovers by itself", |metrics| metrics.sum(EXPORTED) > 0);
    let told = server.lines_of("trace export failed");
    assert_eq!(told.len(), 1, "once a minute");
    assert_eq!(
        (told[0].get("level"), told[0].get("endpoint").contains("127.0.0.1")),
        ("warn", true),
        "{}",
        told[0].text
    );
    (server, collector)
}

#[test]
fn a_collector_that_refuses_changes_no_answer_and_is_told_once() {
    let collector = Collector::refusing();
    let setup = traced(&collector);
    let (server, _collector) = survives(collector, setup, Collector::listen);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_collector_that_hangs_changes_no_answer_and_is_told_once() {
    let collector = Collector::start(Mode::Hang);
    let setup = traced(&collector)
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "300")
        .env("OTEL_BSP_EXPORT_TIMEOUT", "300");
    let (server, _collector) = survives(collector, setup, |collector| collector.set(Mode::Answer));
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_collector_that_is_unavailable_gets_every_span_later() {
    let collector = Collector::start(Mode::Fail(Code::Unavailable));
    let setup = traced(&collector);
    let (server, collector) = survives(collector, setup, |collector| collector.set(Mode::Answer));
    let answer = server.get("/");
    collector.span_of(answer.request_id());
    assert_eq!(server.stop(), 0);
    let metrics = server.lines_of("request").len();
    assert!(collector.spans().len() >= metrics, "{} of {metrics}", collector.spans().len());
}

#[test]
fn spans_that_a_collector_rejects_are_counted_and_not_sent_again() {
    let collector = Collector::start(Mode::Fail(Code::InvalidArgument));
    let server = traced(&collector).start();
    server.get("/");
    server.until("it is dropped as rejected", |metrics| {
        metrics.value(DROPPED, &[("reason", "rejected")]) == 1
    });
    collector.set(Mode::Answer);
    let next = server.get("/");
    collector.span_of(next.request_id());
    assert_eq!(collector.spans().len(), 1);
    // The collector has it before its answer is back.
    server.until("the next one is counted", |metrics| metrics.sum(EXPORTED) == 1);
}

#[test]
fn a_stop_does_not_wait_for_a_collector_that_hangs() {
    let collector = Collector::start(Mode::Hang);
    let server = traced(&collector).start();
    server.get("/");
    server.until_true("an export hangs", || collector.calls() > 0);
    // The export timeout is 30 s, the deadline of every wait 10 s.
    assert_eq!(server.stop(), 0);
    let lost = server.lines_of("telemetry lost at shutdown");
    assert_eq!(lost.iter().map(|line| line.get("spans").to_owned()).collect::<Vec<_>>(), ["1"]);
}

#[test]
fn a_wrong_endpoint_is_a_mistake_of_the_settings() {
    let setup = Setup::new().env("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url");
    let ended = setup.run();
    assert_eq!(ended.code, 64, "{}", ended.stderr);
    assert!(ended.stderr.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{}", ended.stderr);
}

/// A server that exports often over HTTP, to `url`.
fn traced_over_http(url: &str) -> Setup {
    Setup::new()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "300")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
}

#[test]
fn whatever_a_collector_over_http_does_no_request_is_lost_and_each_span_is_sent_or_counted() {
    let answer = |status, headers| Reply::Answer { status, headers, body: Vec::new() };
    let faults = [
        Reply::status("400 Bad Request"),
        answer("429 Too Many Requests", "retry-after: 1\r\n"),
        answer("503 Service Unavailable", ""),
        Reply::status("500 Internal Server Error"),
        Reply::Silence,
        Reply::Close,
    ];
    for fault in faults {
        let collector = HttpCollector::start(HttpMode::Fault(fault.clone()));
        let setup = traced_over_http(collector.url()).args(["--trace-rate-limit", "100000"]);
        let server = setup.start();
        let load = Load::start(&server.address(), 2, Connections::Kept, "/health");
        server.until_line(&format!("{fault:?} is told"), |line| line.is("trace export failed"));
        load.until_more(50);
        let tally = load.stop();
        tally.expect_no_loss();
        assert!(collector.spans().is_empty(), "{fault:?}");
        collector.set(HttpMode::Take);
        server.until(&format!("after {fault:?} all spans are accounted for"), |metrics| {
            metrics.sum(EXPORTED) + metrics.sum(DROPPED) == tally.sent()
        });
        let last = server.get("/");
        collector.span_of(last.request_id());
        let taken = u64::try_from(collector.spans().len()).unwrap();
        server.until(&format!("after {fault:?} what was taken is counted"), |metrics| {
            metrics.sum(EXPORTED) == taken
        });
        assert_eq!(server.lines_of("trace export failed").len(), 1, "once a minute: {fault:?}");
        assert_eq!(server.stop(), 0);
    }
}

#[test]
fn spans_that_a_collector_takes_in_part_are_counted_apart() {
    let collector = HttpCollector::start(HttpMode::TakeAllButOne);
    let server = traced_over_http(collector.url()).start();
    for _ in 0..20 {
        server.get("/");
    }
    server.until("each is exported or rejected", |metrics| {
        let rejected = metrics.value(DROPPED, &[("reason", "rejected")]);
        rejected > 0 && metrics.sum(EXPORTED) + rejected == 20
    });
    let taken = u64::try_from(collector.spans().len()).unwrap();
    assert_eq!(server.metrics().sum(EXPORTED), taken);
}

#[test]
fn an_export_over_tls_reaches_whom_the_certificate_names_and_nobody_else() {
    let authority = Authority::new();
    let collector = HttpCollector::start_secure(&authority);
    let trusting = traced_over_http(collector.url())
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", &authority.file())
        .start();
    let answer = trusting.get("/");
    collector.span_of(answer.request_id());
    assert_eq!(trusting.stop(), 0);

    let stranger = Authority::new();
    let wary = traced_over_http(collector.url())
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", &stranger.file())
        .start();
    let refused = wary.get("/").expect_status(200).request_id().to_owned();
    wary.until_line("that it cannot be trusted is told", |line| line.is("trace export failed"));
    assert!(collector.spans().iter().all(|got| got.get("request.id") != refused));
    assert_eq!(wary.stop(), 0);
}

#[test]
fn a_collector_whose_name_nobody_knows_or_that_speaks_something_else_costs_spans_alone() {
    let plain = HttpCollector::start(HttpMode::Take);
    let not_tls = plain.url().replace("http://127.0.0.1", "https://localhost");
    let authority = Authority::new();
    for endpoint in ["http://collector.invalid:4318", &not_tls] {
        let server = traced_over_http(endpoint)
            .env("OTEL_EXPORTER_OTLP_CERTIFICATE", &authority.file())
            .start();
        let load = Load::start(&server.address(), 2, Connections::Kept, "/health");
        server.until_line("it is told", |line| line.is("trace export failed"));
        load.until_more(50);
        load.stop().expect_no_loss();
        assert_eq!(server.metrics().sum(EXPORTED), 0);
        assert_eq!(server.stop(), 0);
    }
}

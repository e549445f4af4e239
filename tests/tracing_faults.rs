//! Collectors that do not work: no request notices, and an operator is told once.

use tonic::Code;

use crate::collector::{Collector, Mode};
use crate::load::{Connections, Load};
use crate::server::Server;
use crate::tracing::traced;

const EXPORTED: &str = "saola_spans_exported_total";

/// Serves under load until the failure is told; then makes the collector work, and waits for recovery.
fn survives(
    mut collector: Collector,
    setup: crate::setup::Setup,
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
        metrics.value("saola_spans_dropped_total", &[("reason", "rejected")]) == 1
    });
    collector.set(Mode::Answer);
    let next = server.get("/");
    collector.span_of(next.request_id());
    assert_eq!(collector.spans().len(), 1);
    assert_eq!(server.metrics().sum(EXPORTED), 1);
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
    let setup = crate::setup::Setup::new().env("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url");
    let ended = setup.run();
    assert_eq!(ended.code, 64, "{}", ended.stderr);
    assert!(ended.stderr.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{}", ended.stderr);
}

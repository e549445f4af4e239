//! How much requests leave behind, as `--telemetry` says.

use crate::setup::Setup;

const COUNT: &str = "http_server_request_duration_seconds_count";

#[test]
fn counters_alone_leave_no_lines() {
    let server = Setup::new().args(["--telemetry", "metrics", "--workers", "1"]).start();
    for _ in 0..5 {
        server.get("/api/items/7");
    }
    server.until("all are counted", |metrics| metrics.sum(COUNT) == 5);
    assert_eq!(server.metrics().sum("http_server_requests_started_total"), 5);
    assert_eq!(server.stop(), 0);
    assert!(server.lines_of("request").is_empty());
    assert_eq!(server.lines_of("stopped").len(), 1, "the server's own lines stay");
}

#[test]
fn without_telemetry_nothing_is_counted_and_nobody_observes() {
    let setup = Setup::new().args(["--telemetry", "off", "--workers", "1"]);
    let server = setup.start_without_waiting();
    server.until_true("the worker is there", || server.pids().workers.len() == 1);
    let address = crate::wait::until_some("it says where it listens", || {
        let lines = server.stderr().lines();
        let line = lines.iter().find(|line| line.contains("msg=listening"))?.clone();
        crate::lines::Line::parse(&line).get("address").to_owned().into()
    });
    let answer = crate::client::get(&address, "/api/items/7");
    assert_eq!((answer.status, answer.request_id().len()), (200, 32));
    let metrics = crate::client::get(&address, "/metrics");
    let metrics = crate::metrics::Metrics::parse(metrics.expect_status(200).text());
    assert_eq!(metrics.sum(COUNT), 0);
    assert_eq!(server.pids().observer, None);
    assert_eq!(server.stop(), 0);
}

#[test]
fn another_word_is_refused_with_all_it_may_be() {
    let ended = Setup::new().args(["check", "--telemetry", "none"]).run();
    assert_eq!(ended.code, 64);
    assert!(ended.stderr.contains("one of off, metrics, full"), "{}", ended.stderr);
    let ended = Setup::new().args(["check", "--telemetry", "off"]).run();
    assert_eq!(ended.code, 0);
    assert!(ended.stderr.contains("warning: telemetry=off"), "{}", ended.stderr);
}

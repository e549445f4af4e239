//! Every request is counted once, in every signal alike.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::client;
use crate::lines::{ACCESS_KEYS, Line};
use crate::load::{Connections, Load, Tally};
use crate::metrics::{Metrics, Sample, assert_no_fall};
use crate::server::Server;

const STARTED: &str = "http_server_requests_started_total";
const FINISHED: &str = "http_server_request_duration_seconds_count";
const LOST: &str = "http_server_requests_lost_total";
const ACTIVE: &str = "http_server_active_requests";

#[test]
fn a_load_leaves_as_many_counted_requests_as_it_sent() {
    // No line is left out, so that lines can be counted against requests.
    let server = Server::start(["--workers", "3", "--access-log-exclude", "/never"]);
    let seconds = if is_long() { "10" } else { "3" };
    let mut load = Command::new(env!("CARGO_BIN_EXE_saola"));
    load.args([
        "load",
        "50",
        &format!("http://{}", server.address()),
        "--seconds",
        seconds,
        "--mix",
        "healthy",
        "--json",
    ]);
    let output = load.env_clear().output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report} {}", String::from_utf8_lossy(&output.stderr));
    let sent = report["sent"].as_u64().unwrap();
    assert!(sent >= 140, "{report}");
    // With those that made its users and objects, those that deleted them, and what checkouts ask the inventory.
    let inventory = |metrics: &Metrics| {
        let routed = |sample: &&Sample| sample.label("http_route").starts_with("/inventory/");
        metrics.of(FINISHED).filter(routed).map(Sample::count).sum::<u64>()
    };
    let requests = report["requests"].as_u64().unwrap();
    assert!(requests > sent, "{report}");
    // The tool waits for its last answer, so none is in flight.
    server.until("every request has ended", |metrics| {
        metrics.sum(FINISHED) == requests + inventory(metrics) && metrics.sum(ACTIVE) == 0
    });
    let metrics = server.metrics();
    let all = requests + inventory(&metrics);
    assert_eq!(metrics.sum(STARTED), all);
    server.until_true("every request has its line", || count(&server.lines_of("request")) == all);
}

#[test]
fn the_load_script_runs_the_tool() {
    let server = Server::start([]);
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/load.sh"));
    script.args([
        "40",
        &format!("http://{}", server.address()),
        "--count",
        "20",
        "--mix",
        "healthy",
    ]);
    let output = script.env("SAOLA_BIN", env!("CARGO_BIN_EXE_saola")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("sent 20 in"), "{text}");
    server.until("all are counted", |metrics| metrics.sum(FINISHED) > 20);
}

#[test]
fn every_request_has_exactly_one_line_and_one_observation() {
    let server = Server::start(["--workers", "3"]);
    let address = server.address();
    let loads = [
        Load::start(&address, 3, Connections::Kept, "/api/items/3"),
        Load::start(&address, 2, Connections::Fresh, "/nope-but-200-is-not-asked"),
    ];
    loads[0].until_more(200);
    loads[1].until_more(100);
    let mut tally = Tally::default();
    for load in loads {
        let books = load.stop();
        tally.answered.extend(books.answered);
        assert!(books.failed.is_empty(), "{:?}", books.failed);
    }
    let sent = tally.sent();
    server.until_true("every request has its line", || count(&server.lines_of("request")) >= sent);
    assert_eq!(server.stop(), 0);
    let lines = server.lines_of("request");
    assert_eq!(count(&lines), sent, "one line each");
    for (id, status) in ids(&lines) {
        assert_eq!(tally.answered.get(&id), Some(&status), "{id}");
    }
}

#[test]
fn an_access_line_has_the_keys_of_the_contract_in_their_order() {
    let server = Server::start([]);
    let request = hyper::Request::post("/api/items?secret=1").header("user-agent", "tests 1.0");
    let answer = server.send(request.body(r#"{"name":"x"}"#).unwrap());
    let line = server.access_line(answer.expect_status(201).request_id());
    assert_eq!(line.keys(), ACCESS_KEYS);
    assert_eq!((line.get("target"), line.get("service")), ("saola::access", "saola"));
    let expected = [
        ("method", "POST"),
        ("path", "/api/items"),
        ("route", "/api/items"),
        ("status", "201"),
        ("outcome", "ok"),
        ("request_bytes", "12"),
        ("client", "127.0.0.1"),
        ("user_agent", "tests 1.0"),
    ];
    for (key, value) in expected {
        assert_eq!(line.get(key), value, "{key}");
    }
    assert_eq!(line.number("response_bytes"), u64::try_from(answer.text().len()).unwrap());
    assert!(line.get("time").len() == 27 && line.get("time").ends_with('Z'), "{}", line.text);
    assert!(
        line.get("duration_ms").split_once('.').is_some_and(|(_, digits)| digits.len() == 3),
        "{}",
        line.text
    );
    let is_id = |key: &str, len: usize| {
        line.get(key).len() == len && line.get(key).bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    assert!(is_id("trace_id", 32) && is_id("span_id", 16), "{}", line.text);
}

#[test]
fn started_is_finished_plus_lost_plus_in_flight_in_every_scrape() {
    let server = Server::start(["--workers", "3"]);
    let address = server.address();
    let slow = Load::start(&address, 4, Connections::Kept, "/api/slow?ms=20");
    let quick = Load::start(&address, 2, Connections::Fresh, "/api/items");
    let mut last = server.metrics();
    for _ in 0..if is_long() { 1_000 } else { 100 } {
        let metrics = server.metrics();
        assert_no_fall(&last, &metrics);
        assert_balance(&metrics);
        last = metrics;
    }
    slow.stop().expect_no_loss();
    quick.stop().expect_no_loss();
}

#[test]
fn the_books_balance_while_workers_are_killed() {
    let server = Server::start(["--workers", "3"]);
    let address = server.address();
    let load = Load::start(&address, 4, Connections::Kept, "/api/slow?ms=10");
    let mut last = server.metrics();
    for round in 0..60 {
        if round % 10 == 5 {
            let (_, worker) = server.pids().workers.pop_first().unwrap();
            // It may have died of the last kill just now.
            let _gone = nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGKILL);
        }
        let metrics = server.metrics();
        assert_no_fall(&last, &metrics);
        assert_balance(&metrics);
        last = metrics;
    }
    let tally = load.stop();
    assert!(tally.sent() > 0);
}

#[test]
fn both_listeners_tell_the_same() {
    let server = Server::start(["--workers", "3"]);
    for path in ["/", "/api/items/7", "/nope", "/api/exception"] {
        server.get(path);
    }
    let of_service =
        || Metrics::parse(server.get("/metrics").expect_status(200).text()).cumulative();
    let http = |series: &BTreeMap<String, f64>| {
        let is_told = |name: &&String| {
            name.starts_with("http_server") || name.starts_with("saola_worker_restarts")
        };
        let of = series.keys().filter(is_told).map(|name| (name.clone(), series[name]));
        of.filter(|(name, _)| !name.contains("/metrics")).collect::<BTreeMap<_, _>>()
    };
    server.until("the four requests have ended", |metrics| metrics.sum(FINISHED) >= 4);
    let (service, admin) = (http(&of_service()), http(&server.metrics().cumulative()));
    let differs = |(name, value): (&String, &f64)| {
        // The scrape of the service is a request itself: it has started when it looks.
        let is_own =
            name.starts_with(STARTED) || name.contains("body_bytes") || name.contains("_bucket");
        (!is_own && admin.get(name) != Some(value))
            .then(|| format!("{name}: {value} and {:?}", admin.get(name)))
    };
    let differences: Vec<_> = service.iter().filter_map(differs).collect();
    assert!(differences.is_empty(), "{differences:?}");
    assert!(service.len() > 50, "{service:?}");
}

#[test]
fn the_names_of_the_contract_are_there_from_the_first_scrape() {
    let server = Server::start([]);
    server.get("/").expect_status(200);
    server.until_whole(2);
    let metrics = server.metrics();
    let names = [
        STARTED,
        FINISHED,
        "http_server_request_body_bytes_total",
        "http_server_response_body_bytes_total",
        "http_server_request_timeouts_total",
        "http_server_requests_rejected_total",
        "saola_build_info",
        "saola_workers_configured",
        "saola_generation",
        "saola_degraded",
        "saola_worker_up",
        "saola_worker_restarts_total",
        "saola_worker_boot_seconds_count",
        "saola_worker_heartbeat_age_seconds",
        "saola_worker_event_loop_lag_seconds",
        "saola_worker_event_loop_busy_ratio",
        "saola_connections_active",
        "saola_connections_limit",
        "saola_connections_accepted_total",
        "saola_accept_queue_limit",
        "saola_records_dropped_total",
        "saola_log_lines_total",
        "saola_log_lines_dropped_total",
        "saola_spans_exported_total",
        "saola_spans_dropped_total",
        "saola_slots_bad",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ];
    let missing: Vec<_> =
        names.into_iter().filter(|name| metrics.of(name).next().is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!((metrics.sum("saola_workers_configured"), metrics.sum("saola_worker_up")), (2, 2));
    let has_pid = metrics.cumulative().keys().any(|series| series.contains("pid"));
    assert!(!has_pid, "a worker is named by its slot");
}

#[test]
fn a_scrape_is_compressed_when_asked_and_open_metrics_when_preferred() {
    let server = Server::start([]);
    server.get("/").expect_status(200);
    let ask = |name: &str, value: &str| {
        let request = hyper::Request::get("/metrics").header(name, value).body("").unwrap();
        client::send(&server.admin(), request).unwrap()
    };
    assert_eq!(ask("accept-encoding", "gzip").header("content-encoding"), "gzip");
    let open = ask("accept", "application/openmetrics-text;version=1.0.0");
    assert!(open.header("content-type").starts_with("application/openmetrics-text"));
    assert!(open.text().ends_with("# EOF\n"));
}

/// started = finished + lost + in flight. A scrape reads the cells one after the other while requests go on, so what
/// ends or begins within the reading may stand on one side only: at most the requests of the clients at that moment.
fn assert_balance(metrics: &Metrics) {
    let started = metrics.sum(STARTED);
    let others = metrics.sum(FINISHED) + metrics.sum(LOST) + metrics.sum(ACTIVE);
    assert!(started.abs_diff(others) <= 6, "started {started}, the others {others}");
}

fn ids(lines: &[Line]) -> BTreeMap<String, u16> {
    let pairs: Vec<_> = lines
        .iter()
        .map(|line| (line.get("request_id").to_owned(), line.get("status").parse().unwrap()))
        .collect();
    let unique: BTreeSet<_> = pairs.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(unique.len(), pairs.len(), "a request has two lines");
    pairs.into_iter().collect()
}

fn count(lines: &[Line]) -> u64 {
    u64::try_from(lines.len()).unwrap()
}

/// Whether the acceptance tests take the times of the issue, not shorter ones.
pub(crate) fn is_long() -> bool {
    std::env::vars_os().any(|(name, value)| name == "SAOLA_LONG" && value == "1")
}

//! Workers, observers and supervisors that are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};

use crate::accounting::is_long;
use crate::client;
use crate::collector::{Collector, Mode};
use crate::lines::Line;
use crate::load::{Connections, Load};
use crate::metrics::assert_no_fall;
use crate::server::{Server, Slot, is_empty};
use crate::setup::Setup;
use crate::tracing::traced;
use crate::wait::until_within;
use crate::wire::Wire;

const RESTARTS: &str = "saola_worker_restarts_total";
const LOST: &str = "http_server_requests_lost_total";

#[test]
fn a_killed_worker_takes_no_count_with_it() {
    let server = Server::start(["--workers", "2"]);
    for _ in 0..10 {
        server.get("/api/items/7").expect_status(200);
    }
    server.kill(Slot(0));
    server.until("the worker is replaced", |metrics| metrics.sum(RESTARTS) == 1);
    assert_eq!(server.metrics().sum("http_server_request_duration_seconds_count"), 10);
}

#[test]
fn a_death_says_what_the_worker_has_served_and_not_those_before_it() {
    let server = Server::start(["--workers", "1"]);
    for (lives, served) in [(1, 7), (2, 3)] {
        for _ in 0..served {
            server.get("/api/items/7").expect_status(200);
        }
        let mut running = Wire::connect(&server.address()).unwrap();
        running.send("GET /api/slow?ms=20000 HTTP/1.1\r\nHost: a\r\n\r\n");
        server.until("one more runs", |metrics| metrics.sum("http_server_active_requests") == 1);
        server.kill(Slot(0));
        server.until_true("it is told", || server.lines_of("worker died").len() == lives);
        let death = server.lines_of("worker died").pop().unwrap();
        assert_eq!((death.number("requests"), death.number("requests_lost")), (served, 1));
        server.until("the next one serves", |metrics| metrics.sum("saola_worker_up") == 1);
    }
}

#[test]
fn ten_killed_workers_under_load_lower_no_counter_and_are_each_reported() {
    let server = Server::start(["--workers", "3"]);
    server.until_whole(3);
    let most_files = server.files().len();
    let load = Load::start(&server.address(), 6, Connections::Kept, "/api/slow?ms=5");
    let mut before = server.metrics();
    for round in 1..=10_u64 {
        load.until_more(20);
        server.kill(Slot(u32::try_from(round % 3).unwrap()));
        server.until("the death is counted and the slot full again", |metrics| {
            assert_no_fall(&before, metrics);
            before = metrics.clone();
            metrics.sum(RESTARTS) == round && metrics.sum("saola_worker_up") == 3
        });
        assert!(server.files().len() <= most_files, "{:?}", server.files());
    }
    load.until_more(20);
    let tally = load.stop();
    server.until("nobody is active", |metrics| metrics.sum("http_server_active_requests") == 0);
    let metrics = server.metrics();
    assert_eq!(server.stop(), 0);

    let deaths = server.lines_of("worker died");
    assert_eq!(deaths.len(), 10);
    for death in &deaths {
        assert_eq!(
            (death.get("signal"), death.get("cause")),
            ("SIGKILL", "signal"),
            "{}",
            death.text
        );
    }
    let lost = lost_lines(&server);
    let reported: u64 = deaths.iter().map(|death| death.number("requests_lost")).sum();
    assert_eq!((reported, metrics.sum(LOST)), (count(&lost), count(&lost)));
    for line in &lost {
        assert!(
            tally.failed.contains_key(line.get("request_id")),
            "no client missed {}",
            line.text
        );
        assert_eq!(
            (line.get("trace_id").len(), line.get("span_id").len()),
            (32, 16),
            "{}",
            line.text
        );
    }
    let finished = server.lines_of("request").len() - lost.len();
    assert_eq!(
        u64::try_from(finished).unwrap(),
        metrics.sum("http_server_request_duration_seconds_count")
    );
}

#[test]
fn what_a_killed_worker_was_doing_is_reported_request_by_request() {
    let server = Server::start(["--workers", "1"]);
    let load = Load::start(&server.address(), 5, Connections::Fresh, "/api/slow?ms=20000");
    server.until("five requests run", |metrics| metrics.sum("http_server_active_requests") == 5);
    server.kill(Slot(0));
    server.until("all five are lost", |metrics| {
        metrics.value(LOST, &[("http_route", "/api/slow"), ("reason", "crash")]) == 5
    });
    server.until_true("all five have their line", || lost_lines(&server).len() == 5);
    let death = server.until_line("the death is told", |line| line.is("worker died"));
    assert_eq!(death.number("requests_lost"), 5);
    let lines = lost_lines(&server);
    for line in &lines {
        let facts = [
            ("level", "error"),
            ("method", "GET"),
            ("path", "/api/slow"),
            ("route", "/api/slow"),
            ("reason", "crash"),
            ("signal", "SIGKILL"),
            ("worker", "0"),
            ("client", "127.0.0.1"),
        ];
        for (key, value) in facts {
            assert_eq!(line.get(key), value, "{}", line.text);
        }
        assert!(!line.has("status"), "{}", line.text);
    }
    load.ask_no_more();
    server.stop_at_once();
    let failed = load.stop().failed;
    assert!(lines.iter().all(|line| failed.contains_key(line.get("request_id"))), "{failed:?}");
}

#[test]
fn a_killed_observer_is_replaced_and_no_request_or_line_goes_missing() {
    // Each death makes the supervisor wait longer: a ring must hold what comes in seconds without an observer.
    let server = Server::start(["--workers", "2", "--ring-bytes", "4MiB"]);
    let load = Load::start(&server.address(), 4, Connections::Kept, "/api/items/7");
    let mut last = server.metrics();
    for _ in 0..5 {
        load.until_more(50);
        let observer = server.until_whole(2).observer.unwrap();
        kill(observer, Signal::SIGKILL).unwrap();
        server.until_true("another observer runs", || {
            server.pids().observer.is_some_and(|pid| pid != observer)
        });
        server.until("it answers", |metrics| {
            assert_no_fall(&last, metrics);
            last = metrics.clone();
            true
        });
    }
    load.until_more(50);
    let tally = load.stop();
    tally.expect_no_loss();
    assert_eq!(server.stop(), 0);
    let mut times: BTreeMap<String, u64> = BTreeMap::new();
    for line in server.lines_of("request") {
        *times.entry(line.get("request_id").to_owned()).or_default() += 1;
    }
    let untold: Vec<_> = tally.answered.keys().filter(|id| !times.contains_key(*id)).collect();
    let others =
        || -> Vec<Line> { server.lines().into_iter().filter(|line| !line.is("request")).collect() };
    assert!(untold.is_empty(), "no line of {untold:?}; others: {:#?}", others());
    assert_eq!(times.len(), tally.answered.len(), "each line is of a request");
    // At most one write of 4096 bytes is repeated for each death, and a line has more than 200.
    let repeated: u64 = times.values().map(|times| times - 1).sum();
    assert!(repeated <= 5 * 20, "{repeated} lines stand twice");
    let deaths = server.lines_of("observer died").len()
        + server.stderr().lines().iter().filter(|line| line.contains("observer died")).count();
    assert_eq!(deaths, 5);
}

#[test]
fn a_killed_supervisor_leaves_nobody_and_frees_its_port() {
    let server = Server::start(["--workers", "3"]);
    server.until_whole(3);
    server.get("/").expect_status(200);
    let address = server.address();
    server.signal(Signal::SIGKILL);
    assert_eq!(server.wait_for_exit(), -1);
    server.until_true("all its processes are gone", || is_empty(server.supervisor()));
    assert!(client::try_get(&address, "/").is_err());

    let next = Setup::new().in_folder_of(&server).args(["--bind", &address]).start();
    next.get("/").expect_status(200);
    let lines = server.stdout().to_end();
    let last = Line::parse(lines.last().unwrap());
    assert!(last.has("msg"), "the last line is whole: {}", last.text);
    assert_eq!(next.stop(), 0);
}

#[test]
fn requests_that_a_killed_supervisor_left_behind_are_answered_or_reported() {
    let server = Server::start(["--workers", "1"]);
    let load = Load::start(&server.address(), 3, Connections::Fresh, "/api/slow?ms=300");
    server.until("they run", |metrics| metrics.sum("http_server_active_requests") == 3);
    server.signal(Signal::SIGKILL);
    server.until_true("all its processes are gone", || is_empty(server.supervisor()));
    let tally = load.stop();
    assert!(tally.failed.is_empty(), "what was accepted is answered: {:?}", tally.failed);
}

#[test]
fn what_a_supervisor_and_an_observer_that_die_together_have_not_told_the_next_start_tells() {
    let server = Server::start(["--workers", "2"]);
    server.until_whole(2);
    let observer = server.pids().observer.unwrap();
    // It reads nothing any more, and its rings fill.
    kill(observer, Signal::SIGSTOP).unwrap();
    let before = server.lines_of("request").len();
    let answers: Vec<_> = (0..40).map(|_| server.get("/api/items/7")).collect();
    let ids: BTreeSet<_> =
        answers.iter().map(|answer| answer.header("x-request-id").to_owned()).collect();
    assert_eq!((server.lines_of("request").len(), ids.len()), (before, 40));
    kill(observer, Signal::SIGKILL).unwrap();
    server.signal(Signal::SIGKILL);
    server.until_true("nobody is left", || is_empty(server.supervisor()));
    let next = Setup::new().in_folder_of(&server).start();
    next.until_true("every line has come", || {
        let lines = next.lines_of("request");
        let told: BTreeSet<_> =
            lines.iter().map(|line| line.get("request_id").to_owned()).collect();
        assert_eq!(told.len(), lines.len(), "a request is told twice");
        ids.is_subset(&told)
    });
    next.until_true("the old files are deleted", || {
        let is_old = |path: &std::path::PathBuf| path.to_string_lossy().contains("epoch-000001");
        !next.files().iter().any(is_old)
    });
    assert_eq!(next.stop(), 0);
}

#[test]
fn a_worker_that_ends_by_itself_is_replaced_whatever_its_code() {
    let server = Setup::of_example("misfit").args(["--workers", "1"]).start();
    for (round, code) in (1..).zip([0, 1, 3, 4, 42]) {
        assert!(client::try_get(&server.address(), &format!("/exit/{code}")).is_err());
        server.until("it is replaced", |metrics| {
            metrics.sum(RESTARTS) == round && metrics.sum("saola_worker_up") == 1
        });
        server.get("/").expect_status(200);
    }
    let died = server.lines_of("worker died");
    let codes: Vec<_> = died.iter().map(|line| line.get("status").to_owned()).collect();
    assert_eq!(codes, ["0", "1", "3", "4", "42"]);
    assert!(died.iter().all(|line| line.number("requests_lost") == 1));
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_handler_that_aborts_the_process_costs_its_own_request() {
    let server = Setup::of_example("misfit").args(["--workers", "2"]).start();
    assert!(client::try_get(&server.address(), "/abort").is_err());
    let death = server.until_line("the death is told", |line| line.is("worker died"));
    assert_eq!((death.get("signal"), death.number("requests_lost")), ("SIGABRT", 1));
    let line = server.until_line("the request is told", |line| line.get("outcome") == "lost");
    assert_eq!((line.get("path"), line.get("signal")), ("/abort", "SIGABRT"));
    server.get("/").expect_status(200);
}

pub(crate) fn lost_lines(server: &Server) -> Vec<Line> {
    server.lines_of("request").into_iter().filter(|line| line.get("outcome") == "lost").collect()
}

fn count(lines: &[Line]) -> u64 {
    u64::try_from(lines.len()).unwrap()
}

#[test]
fn an_observer_that_is_killed_again_and_again_loses_neither_line_nor_span() {
    let collector = Collector::start(Mode::Answer);
    let server =
        traced(&collector).args(["--workers", "2", "--trace-rate-limit", "100000"]).start();
    let load = Load::start(&server.address(), 2, Connections::Kept, "/api/slow?ms=20");
    let mut last = server.metrics();
    // Each respawn waits twice as long as the one before, up to 10 s: a hundred take a quarter of an hour.
    for _ in 0..if is_long() { 100 } else { 4 } {
        load.until_more(30);
        let observer = server.until_whole(2).observer.unwrap();
        kill(observer, Signal::SIGKILL).unwrap();
        until_within(Duration::from_secs(30), "another observer runs", || {
            server.pids().observer.is_some_and(|pid| pid != observer)
        });
        server.until("no counter of it has fallen", |metrics| {
            assert_no_fall(&last, metrics);
            last = metrics.clone();
            true
        });
    }
    load.until_more(30);
    let tally = load.stop();
    tally.expect_no_loss();
    assert_eq!(server.stop(), 0);
    let sent: BTreeSet<_> = tally.answered.keys().cloned().collect();
    let lines = server.lines_of("request");
    let told: BTreeSet<_> = lines.iter().map(|line| line.get("request_id").to_owned()).collect();
    assert_eq!(told, sent, "lines");
    let spans = collector.spans();
    let got: BTreeSet<_> = spans.iter().map(|got| got.get("request.id").to_owned()).collect();
    assert_eq!(got, sent, "spans");
}

#[test]
fn a_killed_observer_takes_no_count_of_lines_with_it() {
    let server = Server::start(["--workers", "2"]);
    let load = Load::start(&server.address(), 8, Connections::Kept, "/");
    for _ in 0..5 {
        load.until_more(500);
        let observer = server.until_whole(2).observer.unwrap();
        kill(observer, Signal::SIGKILL).unwrap();
    }
    load.until_more(500);
    load.stop().expect_no_loss();
    // A death may hit a write(2) that is not counted yet, one in a thousand; and a few lines are not of requests.
    let (lines_of_a_write, others) = (4_096 / 150, 30);
    server.until("every line is counted", |metrics| {
        let finished = metrics.sum("http_server_request_duration_seconds_count");
        let dropped = metrics.sum("saola_records_dropped_total");
        let lines = count(&server.lines_of("request"));
        let counted = metrics.sum("saola_log_lines_total");
        lines + dropped >= finished && lines.abs_diff(counted) <= lines_of_a_write + others
    });
}

#[test]
fn the_last_request_comes_out_whatever_ends_the_server() {
    for how in ["SIGTERM to the group", "SIGINT to the group", "SIGKILL of the supervisor"] {
        let collector = Collector::start(Mode::Answer);
        let server = traced(&collector).args(["--workers", "1"]).start();
        let id = server.get("/api/items/7").request_id().to_owned();
        let group = server.supervisor();
        match how {
            "SIGTERM to the group" => killpg(group, Signal::SIGTERM).unwrap(),
            "SIGINT to the group" => killpg(group, Signal::SIGINT).unwrap(),
            _ => server.signal(Signal::SIGKILL),
        }
        server.until_true(&format!("all are gone after {how}"), || is_empty(group));
        let lines = server.stdout().to_end();
        assert!(lines.iter().any(|line| line.contains(&id)), "{how}: its line");
        assert!(collector.spans().iter().any(|got| got.get("request.id") == id), "{how}: its span");
    }
}

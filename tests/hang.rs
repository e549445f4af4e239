//! Workers that live and do not work.

use nix::sys::signal::{Signal, kill};

use crate::death::lost_lines;
use crate::load::{Connections, Load};
use crate::server::{Server, Slot};
use crate::setup::Setup;

const RESTARTS: &str = "saola_worker_restarts_total";

#[test]
fn a_stopped_worker_is_replaced_and_reported() {
    let server = Server::start(["--workers", "2", "--timeout", "1s", "--abort-grace", "100ms"]);
    let stopped = server.worker(Slot(1));
    kill(stopped, Signal::SIGSTOP).unwrap();
    server.until("it is replaced", |metrics| {
        metrics.value(RESTARTS, &[("reason", "timeout")]) == 1
            && metrics.sum("saola_worker_up") == 2
    });
    assert_ne!(server.worker(Slot(1)), stopped);
    let stuck = server.until_line("it is told", |line| line.is("worker stuck"));
    assert_eq!((stuck.get("level"), stuck.get("slot")), ("error", "1"));
    let died = server.until_line("its end is told", |line| line.is("worker died"));
    assert_eq!(died.get("slot"), "1");
    assert_eq!((stuck.get("state"), died.get("cause")), ("T", "stopped"), "{}", died.text);
    server.get("/").expect_status(200);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_blocked_event_loop_is_found_and_its_request_named() {
    let setup = Setup::of_example("misfit").args([
        "--workers",
        "2",
        "--timeout",
        "1s",
        "--abort-grace",
        "100ms",
    ]);
    let server = setup.start();
    let load = Load::start(&server.address(), 1, Connections::Fresh, "/block");
    server.until("a worker is replaced", |metrics| {
        metrics.value(RESTARTS, &[("reason", "timeout")]) >= 1
    });
    let stuck = server.until_line("it is told", |line| line.is("worker stuck"));
    let lost = server.until_line("the request is told", |line| line.get("outcome") == "lost");
    assert_eq!((lost.get("route"), lost.get("reason")), ("/block", "timeout"));
    let ids = (stuck.get("route"), stuck.get("request_trace_id"), stuck.get("oldest_request_id"));
    assert_eq!(ids, ("/block", lost.get("trace_id"), lost.get("request_id")));
    server.stop_at_once();
    let failed = load.stop().failed;
    assert!(lost_lines(&server).iter().all(|line| failed.contains_key(line.get("request_id"))));
}

#[test]
fn siblings_serve_while_a_worker_is_blocked() {
    let server = Setup::of_example("misfit").args(["--workers", "2"]).start();
    let blocker = Load::start(&server.address(), 1, Connections::Kept, "/block");
    server.until("it blocks", |metrics| {
        metrics.value("http_server_active_requests", &[("http_route", "/block")]) == 1
    });
    // The blocked worker may hold one connection more, the one that its accept thread has taken; not a second one.
    let load = Load::start(&server.address(), 2, Connections::Fresh, "/");
    load.until_more(100);
    server.stop_at_once();
    load.stop();
    blocker.stop();
}

#[test]
fn a_stopped_supervisor_kills_nobody_when_it_goes_on() {
    let server = Server::start(["--workers", "2", "--timeout", "1s"]);
    let before = server.until_whole(2).workers;
    server.signal(Signal::SIGSTOP);
    // Twice the timeout must pass; the admin listener's own clock says when.
    let since = || server.admin_get("/status").json()["uptime_seconds"].as_f64().unwrap();
    let start = since();
    server.until_true("two timeouts have passed", || since() > start + 2.0);
    server.get("/").expect_status(200);
    server.signal(Signal::SIGCONT);
    let after = since();
    server.until_true("it has looked again", || since() > after + 0.5);
    assert_eq!(server.pids().workers, before);
    assert_eq!(server.stop(), 0);
    assert!(server.lines_of("worker died").is_empty());
}

//! Too many clients, too few descriptors, and handlers that hold the event loop.

use crate::server::{Server, Slot};
use crate::setup::Setup;
use crate::wire::Wire;

#[test]
fn a_server_without_descriptors_waits_answers_now_and_then_and_recovers() {
    let server = Setup::of_example("misfit").descriptors(128).args(["--workers", "1"]).start();
    let address = server.address();
    let mut keeper = Wire::connect(&address).unwrap();
    assert_eq!(keeper.get("/hoard/70", "hoard").unwrap().status, 200);
    let crowd: Vec<_> = (0..200).map(|_| Wire::connect(&address).unwrap()).collect();
    let refused = |server: &Server| {
        server.metrics().value("http_server_requests_rejected_total", &[("reason", "descriptors")])
    };
    server.until("one is refused", |metrics| {
        metrics.value("http_server_requests_rejected_total", &[("reason", "descriptors")]) > 0
    });
    // From one refusal to the next but one passes at least a second: a loop that spins would use most of it.
    let (begin, ticks) = (refused(&server), cpu_ticks(&server));
    server.until("another two are refused", |metrics| {
        metrics.value("http_server_requests_rejected_total", &[("reason", "descriptors")])
            >= begin + 2
    });
    let used = cpu_ticks(&server) - ticks;
    assert!(used <= 15, "{used} hundredths of a second");
    assert_eq!(keeper.get("/", "served meanwhile").unwrap().status, 200);
    assert_eq!(keeper.get("/hoard/0", "released").unwrap().status, 200);
    drop(crowd);
    assert_eq!(server.get("/").status, 200, "it accepts again");
    assert_eq!(server.lines_of("no descriptor for a connection").len(), 1);
    assert_eq!(server.stop(), 0);
}

/// What the first worker has used, as `/proc` counts it: hundredths of a second.
fn cpu_ticks(server: &Server) -> u64 {
    let pid = server.pids().workers[&Slot(0)];
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_handler_that_holds_the_event_loop_is_named() {
    let server = Setup::of_example("misfit").args(["--workers", "1"]).start();
    let answer = server.get("/hold");
    answer.expect_status(200);
    let line = server.until_line("it is named", |line| line.is("a request held the event loop"));
    assert_eq!(line.get("request_id"), answer.request_id());
    assert!(line.get("held_ms").parse::<u64>().unwrap() >= 40);
    assert_eq!(server.stop(), 0);
}

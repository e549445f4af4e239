//! Too many clients, too few descriptors, and handlers that hold the event loop.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::server::{Server, Slot};
use crate::setup::Setup;
use crate::wait::DEADLINE;
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
    // From one refusal to the third after it pass at least two seconds: a loop that spins would use most of them, and a
    // twentieth is what it may.
    let (begin, ticks) = (refused(&server), cpu_ticks(&server));
    server.until("another three are refused", |metrics| {
        metrics.value("http_server_requests_rejected_total", &[("reason", "descriptors")])
            >= begin + 3
    });
    let used = cpu_ticks(&server) - ticks;
    assert!(used <= 10, "{used} hundredths of a second");
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

#[test]
fn an_upload_that_nobody_reads_never_costs_its_client_the_status() {
    // By each of four clients, of each size.
    const EACH: usize = 125;
    let server = Setup::of_example("misfit").args(["--access-log", "off"]).start();
    let address = server.address();
    // Within the limit and not wanted; over the limit.
    for (size, status) in [(1 << 20, "404"), (4 << 20, "413")] {
        let body = vec![b'x'; size];
        let upload = || {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let head =
                format!("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).expect("what is sent is read, by somebody");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("no reset");
            assert_eq!(answer.split(' ').nth(1), Some(status));
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..EACH).for_each(|_| upload()));
            }
        });
    }
    assert_eq!(server.stop(), 0);
}

//! The admin listener: what it refuses, whom it serves meanwhile, and that it tells the truth while workers die.

use hyper::Request;
use nix::sys::signal::{Signal, kill};

use crate::client;
use crate::metrics::{Metrics, assert_no_fall};
use crate::output::thread;
use crate::server::{Server, Slot};
use crate::wait;
use crate::wire::Wire;

#[test]
fn what_the_admin_listener_refuses_it_refuses_in_one_line() {
    let server = Server::start(["--workers", "1", "--profile-hz", "0"]);
    let ask = |request: Request<&'static str>| client::send(&server.admin(), request).unwrap();
    let get = |path: &str| Request::get(path).body("").unwrap();
    for (request, status, body) in [
        (get("/nope"), 404, "not found"),
        (get("/metrics/"), 404, "not found"),
        (Request::delete("/status").body("").unwrap(), 405, "method not allowed"),
        (Request::get("/health").body("x").unwrap(), 400, "a request here has no body"),
        (get("/debug/requests?min_ms=-1"), 400, "min_ms must be"),
        (get("/debug/requests?route=a&route=b"), 400, "a key may stand once"),
        (get("/debug/pprof/heap"), 501, NO_HEAP),
        (get("/debug/pprof/profile"), 501, "--profile-hz 100"),
        (
            Request::get("/").header("host", "evil.example").body("").unwrap(),
            403,
            "host not allowed",
        ),
    ] {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = ask(request);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert!(answer.text().contains(body), "{what}: {}", answer.text());
        assert_eq!(answer.text().lines().count(), 1, "{what}");
        let headers = ["cache-control", "x-content-type-options"].map(|name| answer.header(name));
        assert_eq!(headers, ["no-store", "nosniff"], "{what}");
    }
    let head = ask(Request::head("/metrics").body("").unwrap());
    assert_eq!((head.status, head.bytes().len()), (200, 0));
    assert!(head.header("content-length").parse::<u64>().unwrap() > 1_000);
    for path in ["/", "/health", "/debug/pprof/", "/status", "/debug/requests"] {
        let answer = ask(get(path));
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{path}");
    }
}

/// The program can be built to answer.
const NO_HEAP: &str = if cfg!(feature = "jemalloc") {
    "heap profiles are off: start the server with _RJEM_MALLOC_CONF=prof:true in its environment"
} else {
    "heap profiles need another allocator: build the program with the feature jemalloc"
};

#[test]
fn a_seventeenth_connection_is_closed_and_a_free_place_is_given_again() {
    let server = Server::start(["--workers", "1"]);
    let ask = |wire: &mut Wire| {
        wire.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
        wire.answer().map(|reply| reply.status)
    };
    let mut kept: Vec<_> = (0..16).map(|_| Wire::connect(&server.admin()).unwrap()).collect();
    for wire in &mut kept {
        assert_eq!(ask(wire), Ok(200));
    }
    assert!(ask(&mut Wire::connect(&server.admin()).unwrap()).is_err(), "closed without an answer");
    kept.pop();
    wait::until("the place is free", || {
        ask(&mut Wire::connect(&server.admin()).unwrap()) == Ok(200)
    });
}

#[test]
fn who_leaves_frees_the_profile_and_others_are_served_meanwhile() {
    let server = Server::start(["--workers", "1"]);
    server.until_observed(1);
    let mut leaving = Wire::connect(&server.admin()).unwrap();
    leaving.send("GET /debug/pprof/profile?seconds=300 HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let taken = |status: u16| {
        let answer =
            client::get(&server.admin(), "/debug/pprof/profile?seconds=1&format=collapsed");
        assert!([200, 503].contains(&answer.status), "{}", answer.text());
        if answer.status == 503 {
            assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
        }
        answer.status == status
    };
    wait::until("the first has the profile", || taken(503));
    server.admin_get("/health").expect_status(200);
    server.admin_get("/ready").expect_status(200);
    server.metrics();
    drop(leaving);
    wait::until("it is free", || taken(200));
}

#[test]
fn a_hundred_scrapes_while_workers_die_parse_and_never_fall() {
    let server = Server::start(["--workers", "2"]);
    server.until_observed(2);
    let admin = server.admin();
    let scraping = thread(move || {
        let mut last: Option<Metrics> = None;
        for _ in 0..100 {
            let now = Metrics::parse(client::get(&admin, "/metrics").expect_status(200).text());
            if let Some(last) = &last {
                assert_no_fall(last, &now);
            }
            client::get(&admin, "/health").expect_status(200);
            last = Some(now);
        }
    });
    while !scraping.is_finished() {
        for slot in [Slot(0), Slot(1)] {
            let next = || server.pids().workers.get(&slot).copied();
            let killed = wait::until_some("it runs", next);
            // It may have ended by itself.
            let _gone = kill(killed, Signal::SIGKILL);
            wait::until("it is replaced, or the scrapes are over", || {
                next().is_some_and(|pid| pid != killed) || scraping.is_finished()
            });
        }
    }
    scraping.join().unwrap();
}

//! Applications without a framework.

use std::collections::BTreeSet;

use hyper::Request;
use nix::sys::signal::Signal;

use crate::setup::Setup;
use crate::wire::Wire;

#[test]
fn a_plain_tower_service_is_served_and_names_its_routes() {
    let server = Setup::of_example("tower").args(["--workers", "1"]).start();
    let answer = server.send(Request::post("/count").body("hello").unwrap());
    assert_eq!(answer.expect_status(200).text(), "5 bytes\n");
    assert_eq!(server.access_line(answer.request_id()).get("route"), "/count");
    let answer = server.get("/other");
    let line = server.access_line(answer.expect_status(404).request_id());
    assert_eq!(line.get("route"), "unmatched");
    assert_eq!(server.stop(), 0);
}

#[test]
fn the_guide_shows_what_the_examples_do() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let examples =
        ["hello", "tower", "plain", "grpc"].map(|name| read(&format!("examples/{name}.rs")));
    let page = read("docs/serving.md");
    let shown: Vec<_> =
        page.split("```rust\n").skip(1).map(|rest| rest.split("```").next()).collect();
    assert_eq!(shown.len(), examples.len());
    for (example, shown) in examples.iter().zip(shown) {
        assert!(example.contains(shown.unwrap()), "no example has this:\n{}", shown.unwrap());
    }
}

#[test]
fn workers_that_were_forked_together_never_say_the_same_id() {
    let server =
        Setup::of_example("misfit").args(["--workers", "4", "--access-log", "off"]).start();
    let mut ids = BTreeSet::new();
    for _ in 0..500 {
        let mut wires = [0; 4].map(|_| Wire::connect(&server.address()).unwrap());
        for wire in &mut wires {
            wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for wire in &mut wires {
            let reply = wire.answer().unwrap();
            assert!(ids.insert(reply.header("x-request-id").to_owned()), "{reply:?}");
        }
    }
    let metrics = server.metrics();
    for worker in ["0", "1", "2", "3"] {
        let taken = metrics.value("saola_connections_accepted_total", &[("worker", worker)]);
        assert!(taken > 100, "worker {worker} was hardly asked: {taken}");
    }
    assert_eq!(server.stop(), 0);
}

#[test]
fn an_upgraded_stream_outlives_a_reload_until_it_has_said_goodbye() {
    let server = Setup::of_example("misfit").args(["--workers", "1"]).start();
    let mut wire = Wire::connect(&server.address()).unwrap();
    wire.send("GET /echo HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(wire.answer().unwrap().status, 101);
    server.signal(Signal::SIGHUP);
    assert_eq!(wire.rest(), b"bye");
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.stop(), 0);
}

#[test]
fn routes_of_axum_are_known_by_their_templates_wherever_they_stand() {
    let server = Setup::of_example("misfit").start();
    for (path, route, status) in [
        ("/nested/7", "/nested/{id}", 200),
        ("/merged/7", "/merged/{id}", 200),
        ("/nested/7/nowhere", "unmatched", 404),
        ("/nowhere/7", "unmatched", 404),
    ] {
        let answer = server.get(path);
        answer.expect_status(status);
        assert_eq!(server.access_line(answer.request_id()).get("route"), route, "{path}");
    }
    assert_eq!(server.stop(), 0);
}

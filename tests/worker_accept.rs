//! How connections come to workers, in each way of accepting: what a worker holds that cannot serve, and what is lost
//! with one that is killed, replaced or stopped.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::load::{Connections, Load};
use crate::server::Slot;
use crate::setup::Setup;
use crate::supervision_load::is_long;
use crate::wait;
use crate::wire::Wire;

const SHARED: [&str; 2] = ["--accept", "exclusive"];
const TOKIO: [&str; 2] = ["--accept", "tokio"];
const OWN: [&str; 2] = ["--reuse-port", "on"];

#[test]
fn a_worker_whose_loop_is_blocked_holds_one_connection_at_most() {
    for way in [SHARED, TOKIO] {
        let args = ["--workers", "2", "--timeout", "0", "--access-log", "off"];
        let server = Setup::of_example("misfit").args(args).args(way).start();
        let mut stuck = Wire::connect(&server.address()).unwrap();
        stuck.send("GET /block HTTP/1.1\r\nHost: a\r\n\r\n");
        server.until("it is served", |metrics| metrics.sum("http_server_active_requests") == 1);
        let ask = |_| {
            let mut client = TcpStream::connect(server.address()).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
            client
        };
        let clients: Vec<_> = (0..20).map(ask).collect();
        let mut held = 0;
        for mut client in clients {
            client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            held += u32::from(client.read(&mut [0; 16]).is_err());
        }
        assert!(held <= 1, "{held} of 20 wait for the blocked worker, {way:?}");
        server.stop_at_once();
    }
}

#[test]
fn a_kill_costs_what_was_accepted_and_not_answered_and_that_is_two_at_most() {
    let kills = if is_long() { 17 } else { 5 };
    for way in [SHARED, TOKIO, OWN] {
        // So many that the pauses after the deaths of one slot leave somebody to kill.
        let server = Setup::new().args(["--workers", "4"]).args(way).start();
        server.until_whole(4);
        let load = Load::start(&server.address(), 8, Connections::Fresh, "/");
        load.until_more(50);
        let start = Instant::now();
        for turn in 1..=kills {
            let workers = server.pids().workers;
            let victim = workers.values().nth(turn % workers.len()).expect("somebody lives");
            kill(*victim, Signal::SIGKILL).expect("the victim lives");
            let due = start + Duration::from_millis(300) * u32::try_from(turn).unwrap();
            wait::pause(due.saturating_duration_since(Instant::now()));
        }
        let tally = load.stop();
        server.until("nobody is active", |metrics| metrics.sum("http_server_active_requests") == 0);
        println!("{way:?}: {kills} kills, {} of {} lost", tally.failed.len(), tally.sent());
        assert!(tally.failed.len() <= 2 * kills, "{kills} kills: {:?}", tally.failed);
        let metrics = server.metrics();
        assert_eq!(
            metrics.sum("http_server_requests_started_total"),
            metrics.sum("http_server_request_duration_seconds_count")
                + metrics.sum("http_server_requests_lost_total"),
            "started = finished + lost"
        );
        assert_eq!(server.stop(), 0);
    }
}

#[test]
fn a_worker_that_is_new_gets_the_next_clients_until_it_has_its_share() {
    let server = Setup::of_example("misfit").args(["--workers", "2"]).start();
    // One after the other: each finds both workers waiting, or as soon as the machine lets them.
    let connect = |number: u32| -> Vec<Wire> {
        let address = server.address();
        let connect = |_| {
            let mut wire = Wire::connect(&address).unwrap();
            wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(wire.answer().unwrap().status, 200);
            wire
        };
        (0..number).map(connect).collect()
    };
    let taken = || {
        let metrics = server.metrics();
        ["0", "1"]
            .map(|worker| metrics.value("saola_connections_accepted_total", &[("worker", worker)]))
    };
    let mut kept = connect(64);
    let [of_victim, of_other] = taken();
    server.kill(Slot(0));
    wait::until("its successor accepts", || {
        server.get("/").expect_status(200);
        taken()[0] > of_victim
    });
    // Dealt in turns the other would always have as many more as it has now.
    let is_even = |_| {
        kept.extend(connect(10));
        let [new, other] = taken();
        other.saturating_sub(new - of_victim) < of_other / 2
    };
    assert!((0..20).any(is_even), "of the clients that came then: {:?}", taken());
    server.stop_at_once();
}

#[test]
fn reloads_and_a_stop_lose_nothing_however_connections_are_accepted() {
    for way in [SHARED, TOKIO, OWN] {
        let args = ["--workers", "3", "--access-log", "errors"];
        let server = Setup::new().args(args).args(way).start();
        let loads = [Connections::Kept, Connections::Fresh]
            .map(|kind| Load::start(&server.address(), 8, kind, "/"));
        for generation in 2..5 {
            server.signal(Signal::SIGHUP);
            server.until("a new generation serves", |metrics| {
                metrics.sum("saola_generation") == generation
            });
            for load in &loads {
                load.until_more(200);
            }
        }
        assert_eq!(server.stop(), 0);
        for load in loads {
            load.stop().expect_no_loss();
        }
    }
}

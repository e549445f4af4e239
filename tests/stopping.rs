//! Signals that end a server.

use nix::sys::signal::Signal;

use crate::load::{Connections, Load};
use crate::output::thread;
use crate::server::Server;
use crate::setup::Setup;
use crate::wire::{Failure, Wire};

#[test]
fn a_stop_under_load_answers_everything_accepted() {
    let server = Server::start(["--workers", "3"]);
    let kept = Load::start(&server.address(), 4, Connections::Kept, "/api/slow?ms=10");
    let fresh = Load::start(&server.address(), 2, Connections::Fresh, "/api/items/7");
    kept.until_more(100);
    fresh.until_more(100);
    assert_eq!(server.stop(), 0);
    let (kept, fresh) = (kept.stop(), fresh.stop());
    kept.expect_no_loss();
    fresh.expect_no_loss();
    let lines = server.lines_of("request");
    assert_eq!(
        u64::try_from(lines.len()).unwrap(),
        kept.sent() + fresh.sent(),
        "each has its line"
    );
    assert!(lines.iter().all(|line| line.get("outcome") == "ok"));
    let stopped = server.lines_of("stopped");
    assert_eq!((stopped.len(), stopped[0].get("forced")), (1, "0"));
    let told: Vec<_> =
        server.lines_of("stopping").iter().map(|line| line.get("signal").to_owned()).collect();
    assert_eq!(told, ["SIGTERM"]);
}

#[test]
fn what_was_asked_just_before_a_stop_has_its_line() {
    for _ in 0..5 {
        let server = Server::start(["--workers", "3"]);
        let mut wires: Vec<_> = (0..3).map(|_| Wire::connect(&server.address()).unwrap()).collect();
        for number in 0..20 {
            for wire in &mut wires {
                assert_eq!(wire.get("/", &format!("late-{number}")).unwrap().status, 200);
            }
        }
        assert_eq!(server.stop(), 0);
        assert_eq!(server.lines_of("request").len(), 60);
    }
}

#[test]
fn a_stop_ends_idle_connections_cleanly() {
    let server = Server::start([]);
    let mut wires: Vec<_> = (0..4).map(|_| Wire::connect(&server.address()).unwrap()).collect();
    for wire in &mut wires {
        assert_eq!(wire.get("/", "idler").unwrap().status, 200);
    }
    // The grace is 30 s, the deadline of every wait 10 s: ending at all within it is ending early.
    assert_eq!(server.stop(), 0);
    assert!(wires.iter_mut().all(Wire::ends_cleanly), "FIN, not RST");
}

#[test]
fn requests_in_flight_are_answered_before_the_end() {
    let server = Server::start([]);
    let address = server.address();
    let ask = |number: u32| {
        let mut wire = Wire::connect(&address).unwrap();
        thread(move || wire.get("/api/slow?ms=800", &format!("slow-{number}")))
    };
    let slow: Vec<_> = (0..8).map(ask).collect();
    server.until("all eight run", |metrics| metrics.sum("http_server_active_requests") == 8);
    assert_eq!(server.stop(), 0);
    for request in slow {
        let reply = request.join().unwrap().unwrap();
        assert_eq!((reply.status, reply.closes()), (200, true), "{}", reply.head);
    }
}

#[test]
fn nobody_is_accepted_after_a_stop_has_begun() {
    let server = Server::start([]);
    let address = server.address();
    let mut slow = Wire::connect(&address).unwrap();
    let request = thread(move || slow.get("/api/slow?ms=1500", "slow"));
    server.until("it runs", |metrics| metrics.sum("http_server_active_requests") == 1);
    server.signal(Signal::SIGTERM);
    server.until_true("the port refuses", || {
        matches!(Wire::connect(&address).err(), Some(Failure::Refused))
    });
    assert_eq!(server.wait_for_end(), 0);
    assert_eq!(request.join().unwrap().unwrap().status, 200);
}

#[test]
fn a_second_signal_makes_the_stop_quick() {
    for second in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT] {
        let server = Server::start([]);
        let load = Load::start(&server.address(), 2, Connections::Fresh, "/api/slow?ms=25000");
        server.until("they run", |metrics| metrics.sum("http_server_active_requests") == 2);
        load.ask_no_more();
        server.signal(Signal::SIGINT);
        server.until_line("the stop has begun", |line| {
            line.is("stopping") && line.get("cause") == "graceful"
        });
        server.signal(second);
        assert_eq!(server.wait_for_end(), 0);
        assert!(
            server.lines_of("stopping").iter().any(|line| line.get("cause") == "quick"),
            "{second}"
        );
        load.stop();
    }
}

#[test]
fn a_quit_is_quick_at_once_and_says_what_it_cost() {
    let server = Server::start([]);
    let load = Load::start(&server.address(), 3, Connections::Fresh, "/api/slow?ms=25000");
    server.until("they run", |metrics| metrics.sum("http_server_active_requests") == 3);
    load.ask_no_more();
    assert_eq!(server.stop_at_once(), 0);
    let failed = load.stop().failed;
    assert_eq!(failed.len(), 3);
    for id in failed.keys() {
        let line = server.access_line(id);
        assert!(["lost", "aborted"].contains(&line.get("outcome")), "{}", line.text);
    }
}

#[test]
fn a_request_over_the_grace_is_cut_and_told() {
    let server = Server::start(["--graceful-timeout", "500ms"]);
    let load = Load::start(&server.address(), 1, Connections::Fresh, "/api/slow?ms=25000");
    server.until("it runs", |metrics| metrics.sum("http_server_active_requests") == 1);
    load.ask_no_more();
    assert_eq!(server.stop(), 0);
    let failed = load.stop().failed;
    assert_eq!(failed.len(), 1);
    let line = server.access_line(failed.keys().next().unwrap());
    assert!(["lost", "aborted"].contains(&line.get("outcome")), "{}", line.text);
    let stopped = server.lines_of("stopped");
    assert_eq!(stopped.iter().map(|line| line.number("forced")).collect::<Vec<_>>(), [1]);
}

#[test]
fn an_interrupt_of_the_whole_group_is_one_graceful_stop() {
    let server = Server::start([]);
    let mut wire = Wire::connect(&server.address()).unwrap();
    let request = thread(move || wire.get("/api/slow?ms=800", "slow"));
    server.until("it runs", |metrics| metrics.sum("http_server_active_requests") == 1);
    nix::sys::signal::killpg(server.supervisor(), Signal::SIGINT).unwrap();
    assert_eq!(server.wait_for_end(), 0);
    assert_eq!(request.join().unwrap().unwrap().status, 200);
    assert_eq!(server.lines_of("stopping").len(), 1);
    assert!(server.lines_of("worker died").is_empty());
}

#[test]
fn a_stop_while_it_starts_is_a_stop() {
    let setup = Setup::new().args(["--workers", "8"]);
    let server = setup.start_without_waiting();
    server.until_true("somebody is there", || {
        !server.stdout().lines().is_empty() || server.pids().observer.is_some()
    });
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_signal_for_nothing_costs_nothing() {
    let server = Server::start([]);
    let before = server.until_whole(2).workers;
    server.signal(Signal::SIGUSR1);
    server.until_line("it says so", |line| line.is("nothing to reopen"));
    server.get("/").expect_status(200);
    assert_eq!(server.pids().workers, before);
}

#[test]
fn workers_can_be_added_and_taken_away() {
    let server = Server::start(["--workers", "2", "--max-workers", "3"]);
    let load = Load::start(&server.address(), 3, Connections::Kept, "/api/items/7");
    server.signal(Signal::SIGTTIN);
    server.until("a third worker serves", |metrics| metrics.sum("saola_worker_up") == 3);
    server.signal(Signal::SIGTTIN);
    server.until_line("a fourth is refused", |line| line.is("change refused"));
    server.signal(Signal::SIGTTOU);
    server.until("it is two again", |metrics| metrics.sum("saola_worker_up") == 2);
    load.until_more(20);
    load.stop().expect_no_loss();
}

#[test]
fn a_reload_under_load_replaces_every_worker_and_loses_nothing() {
    let server = Server::start(["--workers", "3"]);
    let before = server.until_whole(3).workers;
    let kept = Load::start(&server.address(), 3, Connections::Kept, "/api/items/7");
    let fresh = Load::start(&server.address(), 2, Connections::Fresh, "/api/items/7");
    kept.until_more(20);
    server.signal(Signal::SIGHUP);
    server.until_line("it has reloaded", |line| line.is("reloaded"));
    server.until_true("only new workers are left", || {
        let now = server.pids().workers;
        now.len() == 3 && now.values().all(|pid| !before.values().any(|old| old == pid))
    });
    kept.until_more(20);
    kept.stop().expect_no_loss();
    fresh.stop().expect_no_loss();
    assert_eq!(server.metrics().value("saola_reloads_total", &[("result", "success")]), 1);
    assert_eq!(server.stop(), 0);
}

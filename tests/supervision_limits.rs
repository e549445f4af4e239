//! Workers that are too old or too big, that die again and again, or that never come to serve.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::load::{Connections, Load};
use crate::server::{Server, Slot};
use crate::setup::Setup;
use crate::supervision_load::is_long;
use crate::wait;

const RESTARTS: &str = "saola_worker_restarts_total";

fn status(server: &Server) -> serde_json::Value {
    let ended = Setup::new().in_folder_of(server).args(["status", "--json"]).run();
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stderr))
}

#[test]
fn a_worker_over_max_memory_is_replaced_by_a_successor_that_serves_first() {
    let args = ["--workers", "2", "--max-memory", "150MiB"];
    let server = Setup::of_example("misfit").args(args).start();
    let load = Load::start(&server.address(), 4, Connections::Kept, "/");
    crate::client::get(&server.address(), "/grow/200").expect_status(200);
    // Two samples, ten seconds apart.
    wait::until_within(Duration::from_secs(40), "it is replaced", || {
        let metrics = server.metrics();
        assert!(metrics.sum("saola_worker_up") >= 2, "never fewer than configured");
        metrics.value(RESTARTS, &[("reason", "memory")]) == 1
    });
    load.until_more(20);
    load.stop().expect_no_loss();
    let granted = server.lines_of("recycle granted");
    assert_eq!((granted.len(), granted[0].get("cause")), (1, "max_memory"));
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_worker_over_max_memory_hard_leaves_at_once() {
    let server =
        Setup::of_example("misfit").args(["--workers", "2", "--max-memory-hard", "150MiB"]).start();
    crate::client::get(&server.address(), "/grow/200").expect_status(200);
    wait::until_within(Duration::from_secs(30), "it is replaced", || {
        server.metrics().value(RESTARTS, &[("reason", "memory")]) == 1
    });
    let line = server.until_line("it has drained", |line| line.is("worker drained"));
    assert_eq!(line.get("cause"), "max_memory_hard");
    server.get("/").expect_status(200);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_worker_over_max_lifetime_is_replaced_without_a_loss() {
    if !is_long() {
        println!("SKIPPED: the shortest max_lifetime is a minute; SAOLA_LONG=1 runs it");
        return;
    }
    let server = Server::start(["--workers", "2", "--max-lifetime", "60s"]);
    let load = Load::start(&server.address(), 4, Connections::Kept, "/");
    wait::until_within(Duration::from_secs(90), "both are replaced", || {
        let metrics = server.metrics();
        assert!(metrics.sum("saola_worker_up") >= 2, "never fewer than configured");
        metrics.value(RESTARTS, &[("reason", "max_requests")]) >= 2
    });
    load.stop().expect_no_loss();
    assert!(server.lines_of("recycle granted").iter().all(|line| line.get("cause") == "lifetime"));
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_server_whose_workers_never_serve_again_gives_up_when_it_was_told_to() {
    let setup = Setup::of_example("misfit");
    let fault = setup.folder().join("fault");
    let server = setup
        .env("MISFIT_FILE", fault.to_str().unwrap())
        .args(["--workers", "2", "--give-up", "2s"])
        .start();
    std::fs::write(&fault, "error").unwrap();
    for slot in [0, 1] {
        server.kill(Slot(slot));
    }
    assert_eq!(server.wait_for_end(), 3);
    assert_eq!(server.lines_of("given up").len(), 1);
}

#[test]
fn a_worker_that_beats_and_accepts_nobody_is_replaced_and_the_queue_is_served() {
    let server = Server::start(["--workers", "1", "--timeout", "1s", "--abort-grace", "100ms"]);
    let worker = server.worker(Slot(0));
    // Without a descriptor to spare it cannot accept, and its loop turns all the same.
    let limit = std::process::Command::new("prlimit")
        .args(["--pid", &worker.to_string(), "--nofile=4:4"])
        .status();
    if !limit.is_ok_and(|status| status.success()) {
        println!("SKIPPED: there is no prlimit here");
        return;
    }
    // One or two may be taken by descriptors that were there before.
    let load = Load::start(&server.address(), 4, Connections::Fresh, "/");
    let stuck = server.until_line("it is found", |line| line.is("worker stuck"));
    assert_eq!(stuck.get("cause"), "accept_stalled", "{}", stuck.text);
    load.until_more(20);
    assert_ne!(server.worker(Slot(0)), worker);
    drop(load.stop());
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_crash_loop_backs_off_within_its_budget_shows_degraded_and_recovers_by_itself() {
    let setup = Setup::of_example("misfit");
    let fault = setup.folder().join("fault");
    let server = setup.env("MISFIT_FILE", fault.to_str().unwrap()).args(["--workers", "4"]).start();
    // One worker stays: the others cannot boot any more.
    std::fs::write(&fault, "error").unwrap();
    for slot in 0..3 {
        server.kill(Slot(slot));
    }
    wait::until_within(Duration::from_secs(30), "it is degraded", || {
        server.metrics().sum("saola_degraded") == 1
    });
    assert_eq!(status(&server)["degraded"], true);
    server.get("/").expect_status(200);
    assert_eq!(server.admin_get("/ready").status, 200, "one worker serves");
    let deaths = server.metrics().value(RESTARTS, &[("reason", "crash")]);
    assert!(deaths <= 4 * (1 + 10 + 6), "{deaths} deaths");
    let pauses = server.lines_of("worker died");
    let of_slot = |slot: &str| -> Vec<u64> {
        let lines = pauses.iter().filter(|line| line.get("slot") == slot);
        lines.map(|line| line.number("next_try_ms")).collect()
    };
    let first = of_slot("0");
    assert!(first.windows(2).all(|pair| pair[1] > pair[0] || pair[1] > 8_000), "{first:?}");
    std::fs::remove_file(&fault).unwrap();
    wait::until_within(Duration::from_mins(1), "it recovers", || {
        server.metrics().sum("saola_degraded") == 0
    });
    assert_eq!(status(&server)["workers"]["ready"], 4);
    server.until_line("it is said", |line| line.is("recovered"));
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_storm_of_kills_leaves_a_supervisor_that_bounds_its_forks_and_its_lines() {
    let server = Server::start(["--workers", "4"]);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        for victim in server.pids().workers.into_values() {
            // It may have died of the last blow.
            let _gone = kill(victim, Signal::SIGKILL);
        }
        wait::pause(Duration::from_millis(20));
    }
    server.until("it is degraded or whole", |metrics| {
        metrics.sum("saola_degraded") == 1 || metrics.sum("saola_worker_up") == 4
    });
    let deaths = server.metrics().value(RESTARTS, &[("reason", "crash")]);
    assert!(deaths <= 4 * (1 + 10 + 6), "{deaths} deaths");
    assert!(server.lines_of("worker died").len() <= 50);
    wait::until_within(Duration::from_mins(1), "all serve again", || {
        server.metrics().sum("saola_worker_up") == 4
    });
    server.get("/").expect_status(200);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_long_boot_is_no_hang_and_one_without_end_is_ended() {
    let setup = Setup::of_example("misfit");
    let fault = setup.folder().join("fault");
    let server = setup
        .env("MISFIT_FILE", fault.to_str().unwrap())
        .args(["--timeout", "1s", "--boot-timeout", "4s"])
        .start();
    let old = server.until_whole(2).workers;
    let reload = |text: &str| {
        std::fs::write(&fault, text).unwrap();
        Setup::new().in_folder_of(&server).args(["reload", "--wait"]).run()
    };
    let load = Load::start(&server.address(), 4, Connections::Kept, "/");
    let never = reload("never");
    assert_eq!(never.code, 3, "{}", never.stderr);
    assert!(never.stderr.contains("boot_timeout"), "{}", never.stderr);
    assert_eq!(server.pids().workers, old);
    let busy = reload("busy");
    assert_eq!(busy.code, 0, "{}", busy.stderr);
    load.until_more(20);
    load.stop().expect_no_loss();
    assert!(server.lines_of("worker stuck").is_empty());
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_machine_whose_cores_others_take_still_reaps_and_replaces() {
    let server = Server::start(["--workers", "2"]);
    let cores = std::thread::available_parallelism().unwrap().get();
    let hogs: Vec<_> = (0..2 * cores).map(|_| Hog::start()).collect();
    for killed in 1..=3 {
        server.kill(Slot(0));
        server.until("it is reaped and replaced", |metrics| {
            metrics.sum(RESTARTS) == killed && metrics.sum("saola_worker_up") == 2
        });
        server.get("/").expect_status(200);
    }
    // Only those that were killed: nobody was taken for hung.
    let killed =
        server.lines_of("worker died").iter().filter(|line| line.get("cause") == "signal").count();
    assert_eq!((killed, server.lines_of("worker died").len()), (3, 3));
    drop(hogs);
    assert_eq!(server.stop(), 0);
}

/// A process that takes all it gets of a core, until this is dropped.
struct Hog(Child);

impl Hog {
    fn start() -> Self {
        Self(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap())
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

//! The promises of the supervisor, measured on the real binary. `SAOLA_LONG=1` runs them at full length.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::load::{Connections, Load, Tally};
use crate::server::{Server, is_empty};
use crate::setup::Setup;
use crate::wait;

pub(crate) fn is_long() -> bool {
    std::env::vars().any(|(name, value)| name == "SAOLA_LONG" && value == "1")
}

/// Clients that keep their connections, clients that come anew each time.
fn both_loads(server: &Server, clients: usize) -> [Load; 2] {
    let address = server.address();
    [Connections::Kept, Connections::Fresh].map(|kind| Load::start(&address, clients, kind, "/"))
}

fn stop(loads: [Load; 2]) -> u64 {
    let mut sent = 0;
    for tally in loads.map(Load::stop) {
        let Tally { refused, .. } = tally;
        tally.expect_no_loss();
        assert_eq!(refused, 0, "connections were refused");
        sent += tally.sent();
    }
    sent
}

fn until_generation(server: &Server, generation: u64) {
    server
        .until("a new generation serves", |metrics| metrics.sum("saola_generation") == generation);
}

#[test]
fn reloads_under_load_lose_nothing() {
    let (reloads, most) = if is_long() { (20, 40_000) } else { (5, 1_000) };
    let clients: &[usize] = if is_long() { &[16, 64] } else { &[16] };
    for &clients in clients {
        let server = Setup::new().args(["--workers", "4", "--access-log", "errors"]).start();
        let loads = both_loads(&server, clients);
        for generation in 0..reloads {
            server.signal(Signal::SIGHUP);
            until_generation(&server, generation + 2);
            loads[0].until_more(most / reloads / 2);
            loads[1].until_more(most / reloads / 2);
        }
        let sent = stop(loads);
        assert!(sent >= most, "{sent} requests only");
        println!("{reloads} reloads, {clients} + {clients} clients: 0 of {sent} requests lost");
        assert_eq!(server.stop(), 0);
    }
}

#[test]
fn reloads_lose_nothing_and_do_not_stall_while_new_workers_take_two_seconds() {
    let setup = Setup::of_example("misfit");
    let fault = setup.folder().join("fault");
    let server =
        setup.env("MISFIT_FILE", fault.to_str().unwrap()).args(["--access-log", "errors"]).start();
    std::fs::write(&fault, "slow").unwrap();
    let reloads = if is_long() { 5 } else { 1 };
    let loads = both_loads(&server, 16);
    for generation in 0..reloads {
        server.signal(Signal::SIGHUP);
        // While it boots the old ones answer: a stall would break the deadline of this wait.
        let begun = Instant::now();
        loads[0].until_more(200);
        assert!(begun.elapsed() < Duration::from_secs(2), "stalled for {:?}", begun.elapsed());
        until_generation(&server, generation + 2);
    }
    let sent = stop(loads);
    println!("{reloads} reloads with boots of 2 s: 0 of {sent} requests lost");
    assert_eq!(server.stop(), 0);
}

#[test]
fn every_request_that_dies_with_a_worker_is_reported_once() {
    let turns = if is_long() { 66 } else { 7 };
    // So many that the pauses after the deaths of one slot never leave a turn without a victim.
    let server = Setup::new().args(["--workers", "16", "--max-workers", "16"]).start();
    let load = Load::start(&server.address(), 64, Connections::Kept, "/api/slow?ms=10");
    let start = Instant::now();
    let mut killed = None;
    for turn in 1..=turns {
        let alive = server.pids().workers;
        let after = alive.iter().find(|(slot, _)| Some(**slot) > killed);
        let (&slot, &victim) = after.or_else(|| alive.iter().next()).expect("somebody lives");
        killed = Some(slot);
        kill(victim, Signal::SIGKILL).expect("the victim lives");
        // To the clock, not from the last kill: a busy machine is to see as many.
        let due = start + Duration::from_millis(300) * turn;
        wait::pause(due.saturating_duration_since(Instant::now()));
    }
    let tally = load.stop();
    server.until("nobody is active", |metrics| metrics.sum("http_server_active_requests") == 0);
    let lost_of = |server: &Server| -> Vec<String> {
        let lines =
            server.lines_of("request").into_iter().filter(|line| line.get("outcome") == "lost");
        lines.map(|line| line.get("request_id").to_owned()).collect()
    };
    let metrics = server.metrics();
    let lost = metrics.sum("http_server_requests_lost_total");
    server.until_true("every loss has its line", || {
        u64::try_from(lost_of(&server).len()).unwrap() == lost
    });
    let started = metrics.sum("http_server_requests_started_total");
    let finished = metrics.sum("http_server_request_duration_seconds_count");
    assert_eq!(started, finished + lost, "started = finished + lost");
    let ids = lost_of(&server);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "a request is reported twice");
    for id in &ids {
        assert!(tally.failed.contains_key(id), "no client missed {id}");
    }
    println!(
        "{turns} kills in {:?}, {} sent, {} failed, {lost} reported lost",
        start.elapsed(),
        tally.sent(),
        tally.failed.len()
    );
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_killed_supervisor_leaves_no_process_and_a_free_port_within_200_ms() {
    let server = Server::start(["--workers", "4"]);
    server.get("/").expect_status(200);
    let address = server.address();
    let begun = Instant::now();
    server.signal(Signal::SIGKILL);
    server.until_true("nobody is left", || is_empty(server.supervisor()));
    let gone = begun.elapsed();
    std::net::TcpListener::bind(&address).unwrap_or_else(|error| panic!("{address}: {error}"));
    println!("nobody left and the port free after {gone:?}");
    // A bound for a machine that is busy; alone it is the promise itself.
    let bound = if is_long() { 200 } else { 2_000 };
    assert!(gone < Duration::from_millis(bound), "{gone:?}");
    let next = Setup::new().in_folder_of(&server).start();
    next.get("/").expect_status(200);
    assert_eq!(next.stop(), 0);
}

#[test]
fn restarts_leak_neither_descriptors_nor_memory_nor_files_nor_zombies() {
    let restarts: u64 = if is_long() { 1_000 } else { 60 };
    let args = ["--workers", "4", "--max-workers", "4", "--graceful-timeout", "1s"];
    let server = Setup::new().args(args).start();
    let observer = server.until_whole(4).observer.unwrap();
    // Reloads that overlap use every slot there can be: three generations of four. Each is a file that the supervisor and
    // the observer map and keep open, whoever lives in it.
    let slots = || server.files().iter().filter(|file| is_slot(file)).count();
    let mut generation = 1;
    while slots() < 12 {
        let load = Load::start(&server.address(), 8, Connections::Kept, "/api/slow?ms=300");
        load.until_more(8);
        for _ in 0..2 {
            generation += 1;
            server.signal(Signal::SIGHUP);
            until_generation(&server, generation);
        }
        drop(load.stop());
    }
    server.until("four serve", |metrics| metrics.sum("saola_worker_up") == 4);
    server.until_whole(4);
    let (files, before) = (server.files().len(), [server.supervisor(), observer].map(size));
    for _ in 0..restarts / 4 {
        generation += 1;
        server.signal(Signal::SIGHUP);
        until_generation(&server, generation);
    }
    server.until_whole(4);
    let after = [server.supervisor(), observer].map(size);
    println!(
        "{restarts} restarts: (descriptors, KiB) {before:?} -> {after:?}, files {files} -> {}",
        server.files().len()
    );
    for (before, after) in before.into_iter().zip(after) {
        // A scrape or a command may be open at the moment of either look.
        assert!(after.0 <= before.0 + 3, "descriptors: {before:?} -> {after:?}");
        assert!(after.1 <= before.1 + 4_096, "memory: {before:?} -> {after:?}");
    }
    assert_eq!(slots(), 12);
    assert!(server.files().len() <= files);
    // One may just have ended.
    server.until_true("no zombie is left", || zombies_of(server.supervisor()) == 0);
    assert_eq!(server.stop(), 0);
}

fn is_slot(file: &std::path::Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("slot-"))
}

/// Open descriptors and KiB of anonymous memory. Not of private: a page of the program is private or shared by what the servers
/// of other tests do.
fn size(pid: Pid) -> (usize, u64) {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let anonymous = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = anonymous.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
    (descriptors, kib.unwrap())
}

fn zombies_of(parent: Pid) -> usize {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
        .unwrap_or_default();
    let is_zombie = |pid: &&str| {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    };
    children.split_ascii_whitespace().filter(is_zombie).count()
}

//! `reuse_port`: every worker has a socket, and so an accept queue, of its own, and none of them is lost with its worker.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::load::{Connections, Load};
use crate::server::{Server, Slot};
use crate::setup::Setup;
use crate::supervision_upgrade::{Releases, upgrade};
use crate::wire::Wire;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn setup(workers: &str) -> Setup {
    let args = ["--workers", workers, "--max-workers", "8", "--reuse-port", "on"];
    Setup::of_example("misfit").args(args).args(["--timeout", "0", "--access-log", "off"])
}

/// Inodes of the sockets that listen on the server's port, as the kernel lists them.
pub(crate) fn listening(server: &Server) -> BTreeSet<u64> {
    let port: u16 = server.address().rsplit(':').next().unwrap().parse().unwrap();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[3] == "0A" && row[1].ends_with(&format!(":{port:04X}")))
        .map(|row| row[9].parse().unwrap())
        .collect()
}

/// Of all sockets that a process has open.
fn sockets(pid: Pid) -> BTreeSet<u64> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|descriptor| {
            let target = std::fs::read_link(descriptor.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// What each worker accepts from.
fn queues(server: &Server) -> Vec<BTreeSet<u64>> {
    let listening = listening(server);
    let workers = server.pids().workers.into_values();
    workers.map(|pid| sockets(pid).intersection(&listening).copied().collect()).collect()
}

/// Each worker has one socket, no two the same, and there is none without a worker.
pub(crate) fn is_dealt(server: &Server, workers: usize) -> bool {
    let queues = queues(server);
    let all: BTreeSet<u64> = queues.iter().flatten().copied().collect();
    queues.len() == workers
        && queues.iter().all(|queue| queue.len() == 1)
        && all.len() == workers
        && all == listening(server)
}

/// Clients that have asked, and wait.
fn ask(server: &Server, clients: usize) -> Vec<Wire> {
    let client = |_| {
        let mut wire = Wire::connect(&server.address()).unwrap();
        wire.send(REQUEST);
        wire
    };
    (0..clients).map(client).collect()
}

/// How many of them get their answer.
fn answered(clients: Vec<Wire>) -> usize {
    clients.into_iter().filter_map(|mut wire| wire.answer().ok()).count()
}

#[test]
fn each_worker_has_a_queue_of_its_own_through_reload_death_and_other_numbers() {
    let server = setup("3").start();
    server.until_true("every worker has its queue", || is_dealt(&server, 3));
    let first = listening(&server);
    server.signal(Signal::SIGHUP);
    server.until("a new generation serves", |metrics| metrics.sum("saola_generation") == 2);
    server.until_true("it has the queues of the old one", || is_dealt(&server, 3));
    assert_eq!(listening(&server), first);
    let slot = *server.pids().workers.keys().next().unwrap();
    let dead = server.kill(slot);
    server.until_true("the dead worker has an heir", || {
        is_dealt(&server, 3) && !server.pids().workers.values().any(|pid| *pid == dead)
    });
    assert_eq!(listening(&server), first);
    server.signal(Signal::SIGTTIN);
    server.until_true("one more has one more", || is_dealt(&server, 4));
    assert!(listening(&server).is_superset(&first));
    for workers in [3, 2] {
        server.signal(Signal::SIGTTOU);
        server.until_true("nobody listens for who has left", || is_dealt(&server, workers));
    }
    assert_eq!(server.stop(), 0);
}

#[test]
fn who_waits_for_a_worker_that_is_killed_is_served_by_its_successor() {
    let server = setup("2").start();
    let mut stuck = Wire::connect(&server.address()).unwrap();
    stuck.send("GET /block HTTP/1.1\r\nHost: a\r\n\r\n");
    server.until("it is served", |metrics| metrics.sum("http_server_active_requests") == 1);
    let clients = ask(&server, 64);
    // The other one serves its half at once; those of the blocked one wait in its queue.
    let waiting = || server.metrics().sum("saola_accept_queue_length");
    server.until_true("some wait for the blocked one", || (5..64).contains(&waiting()));
    for pid in server.pids().workers.into_values() {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    let answered = answered(clients);
    // The blocked one had accepted one, and the other may have held one.
    assert!(answered >= 62, "{answered} of 64 are served");
    assert_eq!(server.stop(), 0);
}

#[test]
fn who_waits_for_a_worker_that_is_let_go_is_served_by_the_others() {
    let server = setup("3").start();
    server.until_true("every worker has its queue", || is_dealt(&server, 3));
    let oldest = server.freeze(Slot(0));
    let clients = ask(&server, 64);
    server.signal(Signal::SIGTTOU);
    server.until_true("one is let go", || !server.lines_of("workers changed").is_empty());
    // It is stopped all the while, and could serve nobody.
    assert_eq!(answered(clients), 64);
    kill(oldest, Signal::SIGCONT).unwrap();
    server.until_true("its queue has gone with it", || is_dealt(&server, 2));
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_worker_gets_no_connection_before_it_can_serve() {
    let setup = setup("2");
    let fault = setup.folder().join("fault");
    let server = setup.env("MISFIT_FILE", fault.to_str().unwrap()).start();
    std::fs::write(&fault, "never").unwrap();
    server.signal(Signal::SIGTTIN);
    server.until_true("the third boots", || server.pids().workers.len() == 3);
    // A third of them would wait until it is killed for its boot.
    let begun = Instant::now();
    assert_eq!(answered(ask(&server, 64)), 64);
    assert!(begun.elapsed() < Duration::from_secs(10));
    server.stop_at_once();
}

/// Settings of a file that says all that there is to say, which can be written anew.
struct File {
    path: PathBuf,
    rest: String,
}

impl File {
    fn of(setup: &Setup, more: &str) -> Self {
        let run_dir = setup.folder().join("run");
        let rest = format!(
            "bind = \"127.0.0.1:0\"\nadmin_bind = \"127.0.0.1:0\"\nrun_dir = \"{}\"\n\
             max_workers = 8\nreuse_port = \"on\"\naccess_log = \"errors\"\n{more}\n",
            run_dir.display()
        );
        Self { path: setup.folder().join("saola.toml"), rest }
    }

    fn write(&self, workers: u32) {
        std::fs::write(&self.path, format!("workers = {workers}\n{}", self.rest)).unwrap();
    }

    fn args(&self) -> [&str; 2] {
        ["--config", self.path.to_str().unwrap()]
    }
}

#[test]
fn neither_reloads_nor_other_numbers_of_workers_lose_a_request() {
    let setup = Setup::new().bare();
    let file = File::of(&setup, "");
    file.write(4);
    let server = setup.args(file.args()).start();
    let loads = [Connections::Kept, Connections::Fresh]
        .map(|kind| Load::start(&server.address(), 16, kind, "/"));
    let more = || loads.iter().for_each(|load| load.until_more(300));
    more();
    for (generation, workers) in [(2, 2), (3, 5), (4, 3)] {
        file.write(workers);
        server.signal(Signal::SIGHUP);
        server.until("a new generation serves", |metrics| {
            metrics.sum("saola_generation") == generation
        });
        more();
    }
    for signal in [Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGTTOU] {
        server.signal(signal);
        more();
    }
    server.until_true("every worker has its queue", || is_dealt(&server, 2));
    more();
    assert_eq!(server.stop(), 0);
    for load in loads {
        load.stop().expect_no_loss();
    }
}

/// A server of four, and a new release of two, for which the old workers stand by for so long.
fn four_that_become_two(probation: &str) -> (Server, PathBuf) {
    let setup = Setup::new().bare();
    let releases = Releases::in_folder(setup.folder());
    let file = File::of(&setup, &format!("upgrade_probation = \"{probation}\""));
    file.write(4);
    let server = setup.program(&releases.path("1")).args(file.args()).start();
    server.until_true("every worker has its queue", || is_dealt(&server, 4));
    file.write(2);
    (server, releases.make("2", "none"))
}

#[test]
fn nobody_waits_for_workers_that_stand_by_where_the_new_ones_are_fewer() {
    let (server, path) = four_that_become_two("1m");
    let ended = Setup::new().in_folder_of(&server).args(["upgrade", path.to_str().unwrap()]).run();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    server.until_line("it is on probation", |line| line.is("upgrade on probation"));
    assert_eq!(answered(ask(&server, 64)), 64);
    assert_eq!(server.stop(), 0);
}

#[test]
fn an_upgrade_to_fewer_workers_loses_no_request() {
    let (server, path) = four_that_become_two("500ms");
    let loads = [Connections::Kept, Connections::Fresh]
        .map(|kind| Load::start(&server.address(), 16, kind, "/"));
    loads[1].until_more(300);
    let ended = upgrade(&server, &path);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    loads[1].until_more(300);
    server.until_true("the queues of who has left are gone", || is_dealt(&server, 2));
    for load in loads {
        load.stop().expect_no_loss();
    }
    assert_eq!(server.stop(), 0);
}

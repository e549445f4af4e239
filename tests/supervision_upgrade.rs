//! Upgrades to another program in place: nothing is lost, and what does not work comes back.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::load::{Connections, Load};
use crate::server::Server;
use crate::setup::{Ended, Setup};
use crate::supervision_load::is_long;
use crate::worker_queues::{is_dealt, listening};

/// Releases of one application in the folder of a test.
pub(crate) struct Releases(PathBuf);

impl Releases {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        let releases = Self(folder.to_owned());
        // By another process: what we copied ourselves, a child that another test forks meanwhile would hold open for
        // writing, and no program runs that somebody writes.
        let copied =
            Command::new("cp").arg(Setup::example("release")).arg(releases.path("1")).status();
        assert!(copied.unwrap().success());
        releases.make("1", "none");
        releases
    }

    pub(crate) fn path(&self, version: &str) -> PathBuf {
        self.0.join(format!("release-{version}"))
    }

    /// Another name of the same program, which is another release by the files beside it.
    pub(crate) fn make(&self, version: &str, fault: &str) -> PathBuf {
        let path = self.path(version);
        if !path.exists() {
            std::fs::hard_link(self.path("1"), &path).unwrap();
        }
        std::fs::write(self.0.join(format!("release-{version}.version")), version).unwrap();
        std::fs::write(self.0.join(format!("release-{version}.fault")), fault).unwrap();
        path
    }
}

/// A server of release 1, with the program's releases.
fn start(args: &[&str]) -> (Server, Releases) {
    let setup = Setup::new();
    let releases = Releases::in_folder(setup.folder());
    let config = setup.folder().join("saola.toml");
    std::fs::write(&config, "").unwrap();
    let server = setup
        .program(&releases.path("1"))
        .env("SAOLA_CONFIG", config.to_str().unwrap())
        .args(["--access-log", "errors"])
        .args(args.iter().copied())
        .start();
    (server, releases)
}

pub(crate) fn upgrade(server: &Server, path: &Path) -> Ended {
    let path = path.to_str().unwrap();
    // Two boots, a probation and a drain: a crowded machine takes its time for each.
    let limit = Duration::from_mins(1);
    Setup::new().in_folder_of(server).args(["upgrade", path, "--wait"]).run_within(limit)
}

fn workers(server: &Server) -> BTreeSet<Pid> {
    server.pids().workers.into_values().collect()
}

fn both_loads(server: &Server, clients: usize) -> [Load; 3] {
    let load = |kind, path| Load::start(&server.address(), clients, kind, path);
    [load(Connections::Kept, "/"), load(Connections::Fresh, "/"), load(Connections::Kept, "/slow")]
}

fn expect_no_loss(loads: [Load; 3]) -> u64 {
    let mut sent = 0;
    for load in loads {
        load.until_more(20);
        let tally = load.stop();
        tally.expect_no_loss();
        assert_eq!(tally.refused, 0, "connections were refused");
        sent += tally.sent();
    }
    sent
}

fn status(server: &Server) -> serde_json::Value {
    let ended = Setup::new().in_folder_of(server).args(["status", "--json"]).run();
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stderr))
}

fn version(server: &Server) -> String {
    server.get("/").text().to_owned()
}

#[test]
fn an_upgrade_under_load_loses_nothing_keeps_the_pid_and_counts_on() {
    let (server, releases) = start(&["--workers", "2", "--upgrade-probation", "2s"]);
    let old = workers(&server);
    let observer = server.pids().observer;
    let loads = both_loads(&server, 8);
    loads[0].until_more(50);
    let before = server.metrics().sum("http_server_requests_started_total");
    let ended = upgrade(&server, &releases.make("2", "none"));
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("generation 2 serves"), "{}", ended.stdout);
    server.until_true("the old have left", || workers(&server).is_disjoint(&old));
    let sent = expect_no_loss(loads);
    println!("upgrade: 0 of {sent} requests lost");
    assert_eq!(version(&server), "2");
    let facts = status(&server);
    assert_eq!(facts["pid"], server.supervisor().as_raw());
    assert_eq!((&facts["version"], &facts["generation"]), (&"2".into(), &2.into()));
    assert_eq!(facts["last_upgrade"]["result"], "success");
    server.until("counters go on", |metrics| {
        metrics.value("saola_upgrades_total", &[("result", "success")]) == 1
            && metrics.sum("http_server_requests_started_total") >= before + sent / 2
    });
    assert_ne!(server.pids().observer, observer, "the observer is of the new program");
    let line = server.until_line("it is said", |line| line.is("upgraded"));
    assert_eq!((line.get("from"), line.get("to")), ("1", "2"));
    let drained = server.lines_of("worker drained");
    assert!(drained.iter().all(|line| line.get("cause") == "upgrade"), "{drained:?}");
    assert_eq!(drained.len(), 2);
    assert_eq!(server.stop(), 0);
}

#[test]
fn an_upgrade_hands_every_queue_of_a_worker_to_one_of_the_new_program() {
    let args = ["--workers", "3", "--upgrade-probation", "1s", "--reuse-port", "on"];
    let (server, releases) = start(&args);
    let queues = listening(&server);
    let loads = both_loads(&server, 8);
    loads[1].until_more(50);
    let ended = upgrade(&server, &releases.make("2", "none"));
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    server.until_true("each has one of the queues", || is_dealt(&server, 3));
    assert_eq!(listening(&server), queues);
    expect_no_loss(loads);
    assert_eq!(server.stop(), 0);
}

#[test]
fn only_a_restart_gives_each_worker_a_queue() {
    let (server, releases) = start(&[]);
    let config = server.folder().path().join("saola.toml");
    std::fs::write(config, "reuse_port = \"on\"\n").unwrap();
    let upgraded = upgrade(&server, &releases.make("2", "none"));
    let reload = ["reload", "--wait"];
    let reloaded = Setup::new().in_folder_of(&server).args(reload).run();
    let refused = [(upgraded, 3, "needs a restart"), (reloaded, 64, "needs an upgrade or restart")];
    for (ended, code, what) in refused {
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("reuse_port changed: {what}")), "{}", ended.stderr);
    }
    assert_eq!(version(&server), "1");
    assert_eq!(server.stop(), 0);
}

#[test]
fn upgrades_under_a_full_load_lose_nothing() {
    let (upgrades, crowds): (u32, &[usize]) = if is_long() { (10, &[16, 64]) } else { (2, &[16]) };
    for &clients in crowds {
        let args = ["--workers", "4", "--upgrade-probation", "500ms"];
        let (server, releases) = start(&args);
        let loads = [Connections::Kept, Connections::Fresh]
            .map(|kind| Load::start(&server.address(), clients, kind, "/"));
        for number in 2..upgrades + 2 {
            let ended = upgrade(&server, &releases.make(&number.to_string(), "none"));
            assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
            loads[0].until_more(100);
            loads[1].until_more(100);
        }
        let mut sent = 0;
        for tally in loads.map(Load::stop) {
            tally.expect_no_loss();
            assert_eq!(tally.refused, 0, "connections were refused");
            sent += tally.sent();
        }
        println!("{upgrades} upgrades, {clients} + {clients} clients: 0 of {sent} requests lost");
        let expected = (upgrades + 1).to_string();
        assert_eq!(version(&server), expected);
        assert_eq!(server.stop(), 0);
    }
}

#[test]
fn usr2_runs_what_stands_where_the_server_was_started_from_again_and_again() {
    let setup = Setup::new();
    let releases = Releases::in_folder(setup.folder());
    let link = setup.folder().join("current");
    let point_to = |path: &Path| {
        let _none = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(path, &link).unwrap();
    };
    point_to(&releases.path("1"));
    let server = setup.program(&link).args(["--upgrade-probation", "100ms"]).start();
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", server.supervisor())).unwrap().count();
    server.until_whole(2);
    // Those of the slots that two generations take in turn are open from the first upgrade on.
    let mut before = 0;
    for version in ["2", "3", "4"] {
        point_to(&releases.make(version, "none"));
        server.signal(Signal::SIGUSR2);
        server.until_line("it is done", |line| line.is("upgraded") && line.get("to") == version);
        assert_eq!(self::version(&server), version);
        server.until_true("the old have left", || workers(&server).len() == 2);
        if before == 0 {
            before = descriptors();
        }
    }
    server.until_true("all is as it was", || workers(&server).len() == 2);
    server.until_true("no descriptor is left open", || descriptors() <= before);
    assert_eq!(server.metrics().value("saola_upgrades_total", &[("result", "success")]), 3);
    assert_eq!(server.stop(), 0);
}

/// The old one serves, nothing is lost, and everybody is told.
fn is_refused(fault: &str, stage: &str, code: i32, reason: &str) {
    let (server, releases) = start(&["--boot-timeout", "4s", "--upgrade-probation", "2s"]);
    let old = workers(&server);
    let loads = both_loads(&server, 4);
    loads[0].until_more(20);
    let path = match fault {
        "missing" => releases.path("nowhere"),
        "not executable" => {
            let path = releases.path("2");
            std::fs::write(&path, "#!/bin/sh\n").unwrap();
            path
        }
        "garbage" => {
            let path = releases.path("2");
            std::fs::write(&path, b"\x7fELF\x02\x01\x01 of another machine").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        }
        fault => releases.make("2", fault),
    };
    let ended = upgrade(&server, &path);
    assert_eq!(ended.code, code, "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains(reason), "{}", ended.stderr);
    let is_told = |line: &crate::lines::Line| {
        (line.is("upgrade failed") || line.is("upgrade rolled back")) && line.get("stage") == stage
    };
    let line = server.until_line("it is said why", is_told);
    assert!(line.get("error").contains(reason), "{}", line.text);
    if fault == "dies" {
        // What runs in a worker that dies dies with it, whatever program it is.
        loads.map(Load::stop).iter().for_each(|tally| assert!(tally.failed.len() <= 4));
    } else {
        expect_no_loss(loads);
    }
    assert_eq!(version(&server), "1");
    server.until("it is counted", |metrics| {
        metrics.value("saola_upgrades_total", &[("result", "error")]) == 1
    });
    let facts = status(&server);
    assert_eq!((&facts["version"], &facts["generation"]), (&"1".into(), &1.into()));
    assert_eq!(facts["last_upgrade"]["result"], "error");
    server.until_true("the old serve", || workers(&server) == old);
    // And it can be tried again.
    std::fs::remove_file(releases.path("2")).ok();
    std::fs::write(server.folder().path().join("saola.toml"), "").unwrap();
    let ended = upgrade(&server, &releases.make("2", "none"));
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(version(&server), "2");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_program_that_is_missing_is_refused() {
    is_refused("missing", "rehearsal", 64, "No such file");
}

#[test]
fn a_program_that_may_not_be_run_is_refused() {
    is_refused("not executable", "rehearsal", 64, "Permission denied");
}

#[test]
fn a_program_of_another_machine_is_refused() {
    is_refused("garbage", "rehearsal", 64, "cannot run");
}

#[test]
fn a_program_that_exits_is_refused() {
    is_refused("exits", "rehearsal", 3, "exit 9");
}

#[test]
fn a_program_that_hangs_is_refused_at_the_boot_timeout() {
    is_refused("hangs", "rehearsal", 3, "boot_timeout");
}

#[test]
fn a_program_that_cannot_load_is_refused() {
    is_refused("load", "rehearsal", 4, "this release cannot load");
}

#[test]
fn a_program_whose_workers_cannot_load_when_it_counts_is_rolled_back() {
    is_refused("late", "load", 4, "this release cannot load any more");
}

#[test]
fn a_program_whose_workers_die_on_probation_is_rolled_back() {
    is_refused("dies", "exit", 3, "exit");
}

#[test]
fn a_program_that_finds_wrong_settings_when_it_takes_over_is_rolled_back() {
    is_refused("unsettled", "settings", 64, "saola.toml");
}

#[test]
fn other_changes_are_refused_during_an_upgrade_and_term_ends_it() {
    let (server, releases) = start(&["--workers", "2", "--upgrade-probation", "30s"]);
    let path = releases.make("2", "slow");
    let ended = Setup::new().in_folder_of(&server).args(["upgrade", path.to_str().unwrap()]).run();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for signal in [Signal::SIGUSR2, Signal::SIGHUP, Signal::SIGTTIN] {
        server.signal(signal);
    }
    for command in [vec!["reload", "--wait"], vec!["workers", "+1"], vec!["upgrade", "--wait"]] {
        let ended = Setup::new().in_folder_of(&server).args(command.iter().copied()).run();
        assert_eq!(ended.code, 75, "{command:?}: {}", ended.stderr);
    }
    server.until_line("it is on probation", |line| line.is("upgrade on probation"));
    let states = status(&server);
    let standing_by = states["slots"].as_array().unwrap().iter();
    assert_eq!(standing_by.filter(|slot| slot["state"] == "standby").count(), 2);
    assert_eq!(
        server.lines_of("change refused").first().unwrap().get("error"),
        "an upgrade is under way"
    );
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_worker_that_dies_while_the_program_is_replaced_is_replaced_too() {
    let (server, releases) = start(&["--workers", "2", "--upgrade-probation", "500ms"]);
    let path = releases.make("2", "slow");
    let ended = Setup::new().in_folder_of(&server).args(["upgrade", path.to_str().unwrap()]).run();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    server.until_true("the new program runs", || {
        std::fs::read_link(format!("/proc/{}/exe", server.supervisor()))
            .is_ok_and(|exe| exe == path)
    });
    server.kill(crate::server::Slot(0));
    server.until_line("it goes on", |line| line.is("upgraded"));
    server.until_true("all serve", || workers(&server).len() == 2);
    assert_eq!(server.lines_of("worker died").len(), 1);
    assert_eq!(version(&server), "2");
    assert_eq!(server.stop(), 0);
}

#[test]
fn sockets_with_files_pidfile_and_lock_stay_over_an_upgrade_and_go_with_the_server() {
    let setup = Setup::new();
    let releases = Releases::in_folder(setup.folder());
    let folder = setup.folder().to_owned();
    let (socket, pidfile) = (folder.join("here.sock"), folder.join("pid"));
    let bind = format!("unix:{}", socket.display());
    let server = setup
        .program(&releases.path("1"))
        .args(["--bind", &bind, "--pidfile", pidfile.to_str().unwrap()])
        .args(["--upgrade-probation", "100ms", "--chdir", folder.to_str().unwrap()])
        .start();
    let inode =
        |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let before = inode(&socket);
    let ended = upgrade(&server, &releases.make("2", "none"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(inode(&socket), before, "the same socket");
    assert_eq!(crate::client::get(&bind, "/").text(), "2");
    let pid = server.supervisor().to_string();
    let second = Setup::new().args(["--pidfile", pidfile.to_str().unwrap()]).run();
    assert_eq!(second.code, 6, "{}", second.stderr);
    assert!(second.stderr.contains(&pid), "{}", second.stderr);
    let third = Setup::new().in_folder_of(&server).run();
    assert_eq!(third.code, 6, "{}", third.stderr);
    assert_eq!(server.stop(), 0);
    assert!(!socket.exists() && !pidfile.exists());
}

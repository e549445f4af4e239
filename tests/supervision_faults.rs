//! Signals in every order, hostile operators, and resources that are missing.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};

use crate::load::{Connections, Load};
use crate::server::{Server, Slot, is_empty};
use crate::setup::Setup;
use crate::supervision_load::is_long;
use crate::wait;
use crate::wire::Wire;

const RESTARTS: &str = "saola_worker_restarts_total";

#[test]
fn fifty_reloads_ten_milliseconds_apart_are_few_and_lose_nothing() {
    let server =
        Server::start(["--workers", "2", "--max-workers", "2", "--graceful-timeout", "2s"]);
    let load = Load::start(&server.address(), 8, Connections::Kept, "/");
    let fresh = Load::start(&server.address(), 4, Connections::Fresh, "/");
    for _ in 0..50 {
        server.signal(Signal::SIGHUP);
        wait::pause(Duration::from_millis(10));
    }
    server.until_true("all that began have ended", || {
        server.lines_of("reloading").len() == server.lines_of("reloaded").len()
    });
    load.until_more(50);
    load.stop().expect_no_loss();
    fresh.stop().expect_no_loss();
    server.until_whole(2);
    let slots =
        server.files().iter().filter(|file| file.to_string_lossy().contains("slot-")).count();
    assert!(slots <= 6, "{slots} slot files");
    assert_eq!(server.stop(), 0);
}

#[test]
fn old_generations_that_cannot_drain_are_cut_oldest_first_and_told() {
    let server = Setup::of_example("misfit")
        .args(["--workers", "1", "--max-old-generations", "1", "--graceful-timeout", "60s"])
        .start();
    let hung = Load::start(&server.address(), 1, Connections::Fresh, "/wait");
    server.until("it runs", |metrics| metrics.sum("http_server_active_requests") == 1);
    for generation in 2..=3 {
        server.signal(Signal::SIGHUP);
        server.until("a new one serves", |metrics| metrics.sum("saola_generation") == generation);
    }
    let lost = server.until_line("its request is told", |line| line.get("outcome") == "lost");
    assert_eq!((lost.get("route"), lost.get("reason")), ("/wait", "drain"));
    hung.ask_no_more();
    server.stop_at_once();
    drop(hung.stop());
}

#[test]
fn the_number_of_workers_follows_a_reload_and_ttou_under_load() {
    let setup = Setup::new();
    let config = setup.folder().join("saola.toml");
    let set = |workers: u32| {
        std::fs::write(&config, format!("workers = {workers}\nmax_workers = 6\n")).unwrap();
    };
    set(4);
    let folder = setup.folder().join("run");
    let args = ["--config", config.to_str().unwrap(), "--run-dir", folder.to_str().unwrap()];
    let binds = ["--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"];
    let server = setup.bare().args(args).args(binds).start();
    let load = Load::start(&server.address(), 6, Connections::Kept, "/");
    let until = |workers: u64| {
        server.until("so many serve", |metrics| metrics.sum("saola_worker_up") == workers);
    };
    for (generation, workers) in [(2, 2), (3, 6)] {
        set(workers);
        server.signal(Signal::SIGHUP);
        server.until("it reloads", |metrics| metrics.sum("saola_generation") == generation);
        until(workers.into());
    }
    let oldest = server.worker(Slot(server.pids().workers.keys().next().unwrap().0));
    server.signal(Signal::SIGTTOU);
    until(5);
    // What TTOU has made of it survives a death and a reload with the same number.
    kill(*server.pids().workers.values().next().unwrap(), Signal::SIGKILL).unwrap();
    server.until("the death is counted", |m| m.value(RESTARTS, &[("reason", "crash")]) == 1);
    until(5);
    server.signal(Signal::SIGHUP);
    server.until("it reloads", |metrics| metrics.sum("saola_generation") == 4);
    until(5);
    assert!(!server.pids().workers.values().any(|pid| *pid == oldest), "the oldest has left");
    load.until_more(20);
    assert!(load.stop().failed.len() <= 6, "only what the killed one had");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_hundred_ttin_and_ttou_stay_within_bounds_and_say_so_briefly() {
    let server = Server::start(["--workers", "2", "--max-workers", "4"]);
    for (signal, number) in [(Signal::SIGTTIN, 4), (Signal::SIGTTOU, 1)] {
        for _ in 0..100 {
            server.signal(signal);
            wait::pause(Duration::from_millis(1));
        }
        server.until("the bound is reached", |metrics| metrics.sum("saola_worker_up") == number);
    }
    assert!(server.lines_of("change refused").len() <= 8);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_storm_of_signals_leaves_a_server_that_answers_and_stops() {
    let server = Server::start(["--workers", "2", "--max-workers", "4"]);
    let signals = [
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGWINCH,
        Signal::SIGCHLD,
        Signal::SIGPIPE,
    ];
    let mut random = 7_u64;
    for _ in 0..if is_long() { 10_000 } else { 1_000 } {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = usize::try_from(random >> 33).unwrap() % signals.len();
        server.signal(signals[pick]);
    }
    // A reload, or this, ends a pause.
    server.until_true("it takes commands", || {
        Setup::new().in_folder_of(&server).args(["workers", "resume"]).run().code == 0
    });
    server.get("/").expect_status(200);
    let workers = server.metrics().sum("saola_workers_configured");
    assert!((1..=4).contains(&workers), "{workers}");
    assert_eq!(server.stop(), 0);
}

#[test]
fn connections_wait_while_workers_pause_or_are_stopped_and_then_all_are_served() {
    let server = Server::start(["--workers", "2", "--timeout", "10s"]);
    let queue = |count: usize| -> Vec<Wire> {
        let wires = (0..count).map(|_| Wire::connect(&server.address()).unwrap());
        wires
            .map(|mut wire| {
                wire.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
                wire
            })
            .collect()
    };
    let all_answered = |wires: Vec<Wire>| {
        for mut wire in wires {
            assert_eq!(wire.answer().unwrap().status, 200);
        }
    };
    server.signal(Signal::SIGWINCH);
    server.until_line("it pauses", |line| line.is("paused"));
    let before = server.metrics().sum("http_server_requests_started_total");
    let waiting = queue(50);
    server.until("they wait", |metrics| metrics.sum("saola_accept_queue_length") >= 40);
    assert_eq!(server.metrics().sum("http_server_requests_started_total"), before);
    Setup::new().in_folder_of(&server).args(["workers", "resume"]).run();
    all_answered(waiting);
    // Stopped for less than the timeout: nobody is killed for it.
    let workers = server.pids().workers;
    for pid in workers.values() {
        kill(*pid, Signal::SIGSTOP).unwrap();
    }
    let waiting = queue(50);
    wait::pause(Duration::from_secs(2));
    for pid in workers.values() {
        kill(*pid, Signal::SIGCONT).unwrap();
    }
    all_answered(waiting);
    assert_eq!(server.pids().workers, workers);
    assert_eq!(server.stop(), 0);
}

#[test]
fn what_is_queued_when_a_stop_begins_is_served() {
    let server = Server::start(["--workers", "1"]);
    let busy = Load::start(&server.address(), 4, Connections::Kept, "/api/slow?ms=50");
    busy.until_more(4);
    let worker = server.worker(Slot(0));
    kill(worker, Signal::SIGSTOP).unwrap();
    let mut wires: Vec<_> = (0..200).map(|_| Wire::connect(&server.address()).unwrap()).collect();
    for wire in &mut wires {
        wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    server.signal(Signal::SIGTERM);
    kill(worker, Signal::SIGCONT).unwrap();
    for mut wire in wires {
        let reply = wire.answer().expect("served or refused, not reset");
        assert!([200, 503].contains(&reply.status), "{}", reply.head);
    }
    drop(busy.stop());
    assert_eq!(server.wait_for_end(), 0);
}

#[test]
fn operators_who_are_silent_endless_or_somebody_else_cannot_slow_the_server() {
    let setup = Setup::new();
    let pass = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(setup.folder(), pass).unwrap();
    let server = setup.args(["--workers", "2"]).start();
    let socket = server.run_dir().join("control.sock");
    let silent: Vec<_> = (0..100).filter_map(|_| UnixStream::connect(&socket).ok()).collect();
    server.kill(Slot(0));
    server.until("a death is seen all the same", |m| m.sum(RESTARTS) == 1);
    drop(silent);
    let mut endless = UnixStream::connect(&socket).unwrap();
    endless.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let megabyte = vec![b'x'; 1 << 20];
    let sent = (0..10).take_while(|_| endless.write_all(&megabyte).is_ok()).count();
    assert!(sent < 10, "a line of 10 MB is not read to its end");
    server.until_true("others are served", || {
        Setup::new().in_folder_of(&server).args(["status"]).run().code == 0
    });
    if nix::unistd::geteuid().is_root() {
        // The mode of the socket keeps others out; where it does not, the peer's user is asked.
        for path in [server.run_dir(), socket.clone()] {
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777))
                .unwrap();
        }
        let script = "$s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die; print <$s>";
        let mut other = Command::new("setpriv");
        other.args([
            "--reuid",
            "65534",
            "--clear-groups",
            "perl",
            "-MIO::Socket::UNIX",
            "-e",
            script,
        ]);
        match other.arg(&socket).stderr(Stdio::null()).output() {
            Ok(output) if output.status.success() => {
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(said.contains("\"code\":77"), "{said}");
                let line = server.until_line("it is told", |line| line.is("control refused"));
                assert_eq!(line.get("from_uid"), "65534");
            }
            _ => println!("SKIPPED: no setpriv and perl to be somebody else with"),
        }
    }
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_server_that_is_killed_while_it_spawns_leaves_no_orphan() {
    for round in 0..if is_long() { 200 } else { 20 } {
        let server = Setup::new().args(["--workers", "4"]).start_without_waiting();
        wait::pause(Duration::from_millis(round % 20));
        server.signal(Signal::SIGKILL);
        server.until_true("nobody is left", || is_empty(server.supervisor()));
    }
}

#[test]
fn of_two_that_start_at_once_one_serves_and_the_other_changes_nothing() {
    for _ in 0..if is_long() { 50 } else { 8 } {
        let one = Setup::new().args(["--workers", "1"]).start_without_waiting();
        let two = Setup::new().in_folder_of(&one).args(["--workers", "1"]).start_without_waiting();
        let pair = [one, two];
        let has_started =
            |server: &Server| server.stdout().lines().iter().any(|l| l.contains("msg=started"));
        wait::until("one serves", || pair.iter().any(has_started));
        let (winner, loser) =
            if has_started(&pair[0]) { (&pair[0], &pair[1]) } else { (&pair[1], &pair[0]) };
        assert_eq!(loser.wait_for_exit(), 6);
        winner.get("/").expect_status(200);
        assert_eq!(winner.stop(), 0);
    }
}

#[test]
fn requests_of_a_server_that_died_as_a_whole_are_told_once_by_the_next() {
    let server = Setup::of_example("misfit").args(["--workers", "2"]).start();
    let hung = Load::start(&server.address(), 2, Connections::Fresh, "/wait");
    server.until("they run", |metrics| metrics.sum("http_server_active_requests") == 2);
    hung.ask_no_more();
    killpg(server.supervisor(), Signal::SIGKILL).unwrap();
    server.until_true("nobody is left", || is_empty(server.supervisor()));
    let next = Setup::of_example("misfit").in_folder_of(&server).start();
    let lost = || {
        let lines = next.lines_of("request").into_iter();
        lines.filter(|line| line.get("outcome") == "lost").collect::<Vec<_>>()
    };
    next.until_true("both are told", || lost().len() == 2);
    assert!(
        lost()
            .iter()
            .all(|line| line.get("reason") == "supervisor" && line.get("route") == "/wait")
    );
    next.until("and counted", |metrics| {
        metrics.value("http_server_requests_lost_total", &[("reason", "supervisor")]) == 2
    });
    assert_eq!(next.stop(), 0);
    assert_eq!(lost().len(), 2, "once");
}

#[test]
fn a_server_that_may_not_fork_serves_on_and_recovers() {
    let group =
        std::path::PathBuf::from(format!("/sys/fs/cgroup/pids/saola-test-{}", std::process::id()));
    if std::fs::create_dir(&group).is_err() {
        println!("SKIPPED: no cgroup of processes can be made here");
        return;
    }
    let server = Server::start_within(&group, ["--workers", "2"]);
    server.until_whole(2);
    // Fewer than there are: who lives stays, and nobody comes.
    let limit = std::fs::write(group.join("pids.max"), "1");
    server.kill(Slot(0));
    server.until_true("the fork fails", || {
        server.lines_of("worker died").iter().any(|line| line.get("cause") == "fork")
    });
    server.get("/").expect_status(200);
    let lift = std::fs::write(group.join("pids.max"), "max");
    server.until("it recovers", |metrics| metrics.sum("saola_worker_up") == 2);
    assert_eq!(server.stop(), 0);
    wait::until("the group is empty", || std::fs::remove_dir(&group).is_ok());
    limit.and(lift).unwrap();
}

#[test]
fn slot_files_that_others_delete_or_cut_are_left_behind_by_all_together() {
    let server = Server::start(["--workers", "2", "--graceful-timeout", "2s"]);
    let load = Load::start(&server.address(), 4, Connections::Kept, "/");
    load.until_more(20);
    let slot = server.run_dir().join("epoch-000001/slot-0001");
    std::fs::remove_file(&slot).unwrap();
    let told = server.until_line("it is told", |line| line.is("slot damaged"));
    assert_eq!((told.get("slot"), told.get("level")), ("1", "error"));
    server.until_line("a new generation serves", |line| line.is("reloaded"));
    load.until_more(20);
    load.stop().expect_no_loss();
    assert_eq!(
        std::fs::read_link(server.run_dir().join("current")).unwrap().to_str(),
        Some("epoch-000002")
    );
    server.until("the metrics are back", |metrics| {
        metrics.sum("saola_worker_up") == 2
            && metrics.sum("saola_slots_bad") == 0
            && metrics.sum("saola_generation") == 2
    });
    let before = server.metrics().sum("http_server_requests_started_total");
    server.get("/").expect_status(200);
    server.until("they count on", |m| m.sum("http_server_requests_started_total") > before);
    assert_eq!(server.stop(), 0);
}

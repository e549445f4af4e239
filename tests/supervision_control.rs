//! Operators: the control socket and its commands, reloads with other settings, recycling.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::load::{Connections, Load};
use crate::metrics::Metrics;
use crate::server::Server;
use crate::setup::{Ended, Setup};
use crate::supervision_load::is_long;

/// Runs a command against a server.
fn command(server: &Server, args: &[&str]) -> Ended {
    Setup::new().in_folder_of(server).args(args.iter().copied()).run()
}

fn status(server: &Server) -> serde_json::Value {
    let ended = command(server, &["status", "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

fn workers(server: &Server) -> BTreeSet<Pid> {
    server.pids().workers.into_values().collect()
}

#[test]
fn status_shows_the_server_and_fails_with_69_without_one() {
    let server = Server::start(["--workers", "2"]);
    let facts = status(&server);
    assert_eq!(facts["pid"], server.supervisor().as_raw());
    assert_eq!((&facts["phase"], &facts["generation"]), (&"running".into(), &1.into()));
    assert_eq!(facts["slots"].as_array().map(Vec::len), Some(2));
    assert_eq!(facts["listeners"][0]["address"], server.address());
    let text = command(&server, &["status"]);
    assert!(text.stdout.contains("2/2 workers"), "{}", text.stdout);
    assert_eq!(server.stop(), 0);
    let nobody = command(&server, &["status"]);
    assert_eq!(nobody.code, 69, "{}", nobody.stderr);
    assert!(nobody.stderr.contains("no supervisor is reachable"), "{}", nobody.stderr);
}

#[test]
fn reload_wait_returns_when_the_new_generation_serves() {
    let server = Server::start(["--workers", "2"]);
    let old = workers(&server);
    let observer = server.pids().observer;
    let ended = command(&server, &["reload", "--wait"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("generation 2"), "{}", ended.stdout);
    server.until_true("the old have left", || workers(&server).is_disjoint(&old));
    assert_eq!(server.pids().observer, observer, "the observer's settings are the same");
    assert_eq!(status(&server)["last_reload"]["result"], "success");
    assert_eq!(server.stop(), 0);
}

#[test]
fn reload_with_wrong_settings_exits_64_with_every_mistake_and_changes_nothing() {
    let setup = Setup::new();
    let config = setup.folder().join("saola.toml");
    std::fs::write(&config, "graceful_timeout = \"5s\"\n").unwrap();
    let server = setup.args(["--config", config.to_str().unwrap()]).start();
    let old = workers(&server);
    std::fs::write(&config, "timeout = \"soon\"\nwrokers = 2\n").unwrap();
    let ended = Setup::new().in_folder_of(&server).args(["reload", "--wait"]).run();
    assert_eq!(ended.code, 64, "{}", ended.stderr);
    for mistake in ["timeout", "did you mean workers"] {
        assert!(ended.stderr.contains(mistake), "{}", ended.stderr);
    }
    assert_eq!(workers(&server), old);
    let line = server.until_line("the reload failed", |line| line.is("reload failed"));
    assert_eq!(line.get("stage"), "settings");
    assert_eq!(server.metrics().value("saola_reloads_total", &[("result", "error")]), 1);
    assert_eq!(server.stop(), 0);
}

#[test]
fn reload_takes_new_settings_to_workers_listeners_and_observer() {
    let setup = Setup::new();
    let config = setup.folder().join("saola.toml");
    let socket = setup.folder().join("more.sock");
    std::fs::write(&config, "server_header = \"first\"\n").unwrap();
    let server = setup.args(["--config", config.to_str().unwrap()]).start();
    assert_eq!(server.get("/").header("server"), "first");
    let observer = server.pids().observer;
    std::fs::write(
        &config,
        "server_header = \"second\"\naccess_log = \"off\"\nmax_old_generations = 1\n",
    )
    .unwrap();
    let ended = Setup::new().in_folder_of(&server).args(["reload", "--wait"]).run();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(server.get("/").header("server"), "second");
    server.until_true("the observer is another", || {
        let now = server.pids().observer;
        now.is_some() && now != observer
    });
    assert!(!socket.exists());
    assert_eq!(server.stop(), 0);
}

#[test]
fn reload_binds_a_new_address_first_and_a_taken_one_exits_5() {
    let setup = Setup::new();
    let config = setup.folder().join("saola.toml");
    let (one, two) = (setup.folder().join("one.sock"), setup.folder().join("two.sock"));
    let bind = |paths: &[&std::path::Path]| {
        let quoted: Vec<_> =
            paths.iter().map(|path| format!("\"unix:{}\"", path.display())).collect();
        std::fs::write(&config, format!("bind = [{}]\n", quoted.join(", "))).unwrap();
    };
    bind(&[&one]);
    let run_dir = setup.folder().join("run");
    let run_dir = run_dir.to_str().unwrap();
    let args = [
        "--config",
        config.to_str().unwrap(),
        "--run-dir",
        run_dir,
        "--workers",
        "2",
        "--admin-bind",
        "off",
    ];
    let server = setup.bare().args(args).start();
    let reload =
        || Setup::new().in_folder_of(&server).bare().args(args).args(["reload", "--wait"]).run();
    bind(&[&one, &two]);
    assert_eq!(reload().code, 0);
    crate::client::get(&format!("unix:{}", two.display()), "/").expect_status(200);
    bind(&[&two]);
    assert_eq!(reload().code, 0);
    server.until_true("the removed one is gone", || !one.exists());
    crate::client::get(&format!("unix:{}", two.display()), "/").expect_status(200);
    let taken = std::os::unix::net::UnixListener::bind(&one).unwrap();
    bind(&[&one, &two]);
    let ended = reload();
    assert_eq!(ended.code, 5, "{}", ended.stderr);
    drop(taken);
    crate::client::get(&format!("unix:{}", two.display()), "/").expect_status(200);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_new_generation_that_cannot_load_is_discarded_and_the_old_serves_without_a_failure() {
    let setup = Setup::of_example("misfit");
    let fault = setup.folder().join("fault");
    let server = setup.env("MISFIT_FILE", fault.to_str().unwrap()).start();
    let old = workers(&server);
    let load = Load::start(&server.address(), 8, Connections::Kept, "/");
    for (text, code) in [("error", 4), ("panic", 3)] {
        std::fs::write(&fault, text).unwrap();
        let ended =
            Setup::of_example("misfit").in_folder_of(&server).args(["reload", "--wait"]).run();
        assert_eq!(ended.code, code, "{}", ended.stderr);
        load.until_more(50);
    }
    load.stop().expect_no_loss();
    assert_eq!(workers(&server), old);
    server.until_true("both failures are told", || server.lines_of("reload failed").len() == 2);
    assert_eq!(server.stop(), 0);
}

#[test]
fn workers_are_counted_retired_paused_and_dumped_by_command() {
    let server = Server::start(["--workers", "2", "--max-workers", "4"]);
    let more = command(&server, &["workers", "+1", "--max-workers", "4"]);
    assert_eq!((more.code, more.stdout.trim()), (0, "workers: 2 -> 3"), "{}", more.stderr);
    server.until_whole(3);
    assert_eq!(command(&server, &["workers", "9"]).code, 64);
    assert_eq!(command(&server, &["workers", "-1"]).code, 0);
    server.until_whole(2);
    let (slot, old) = server.pids().workers.into_iter().next().unwrap();
    assert_eq!(command(&server, &["workers", "retire", &slot.0.to_string()]).code, 0);
    server.until_true("it is replaced", || {
        !workers(&server).contains(&old) && workers(&server).len() == 2
    });
    assert_eq!(command(&server, &["workers", "retire", "99"]).code, 64);
    assert_eq!(command(&server, &["workers", "dump"]).code, 0);
    let stack = server.until_line("a worker has told its stack", |line| line.is("worker stack"));
    assert!(
        stack.get("stack").starts_with("0x") || stack.get("stack").starts_with("lib:0x"),
        "{}",
        stack.text
    );
    assert_eq!(command(&server, &["workers", "pause"]).code, 0);
    assert_eq!(status(&server)["paused"], true);
    assert_eq!(command(&server, &["workers", "resume"]).code, 0);
    server.get("/").expect_status(200);
    assert_eq!(command(&server, &["stop", "--wait"]).code, 0);
    assert_eq!(server.wait_for_end(), 0);
}

#[test]
fn max_requests_replaces_workers_one_at_a_time_and_loses_nothing() {
    let (workers, args, time) = if is_long() {
        (4, ["--workers", "4", "--max-requests", "500"], Duration::from_mins(1))
    } else {
        (2, ["--workers", "2", "--max-requests", "100"], Duration::ZERO)
    };
    let args = args.into_iter().chain(["--min-lifetime", "100ms", "--access-log", "errors"]);
    let server = Server::start(args);
    let load = Load::start(&server.address(), 8, Connections::Kept, "/");
    let fresh = Load::start(&server.address(), 4, Connections::Fresh, "/");
    let begun = Instant::now();
    let recycled = |metrics: &Metrics| {
        assert!(metrics.sum("saola_worker_up") >= workers, "never fewer than configured");
        metrics.value("saola_worker_restarts_total", &[("reason", "max_requests")])
    };
    while begun.elapsed() < time {
        let before = recycled(&server.metrics());
        server.until("more are recycled", |metrics| recycled(metrics) > before);
    }
    server.until("four are recycled", |metrics| recycled(metrics) >= 4);
    load.stop().expect_no_loss();
    let tally = fresh.stop();
    tally.expect_no_loss();
    assert_eq!(tally.refused, 0);
    assert_eq!(server.stop(), 0);
    let lines = server.lines().into_iter();
    let steps = lines.skip_while(|line| !line.is("started")).map(|line| line.get("msg").to_owned());
    let steps: Vec<_> =
        steps.filter(|msg| ["recycle granted", "worker ready"].contains(&&**msg)).collect();
    for turn in steps.chunks_exact(2) {
        assert_eq!(turn, ["recycle granted", "worker ready"], "the successor of one comes first");
    }
}

#[test]
fn a_hung_worker_is_reported_with_route_and_stack_and_its_siblings_serve() {
    let server = Setup::of_example("misfit").args(["--workers", "2", "--timeout", "2s"]).start();
    let load = Load::start(&server.address(), 4, Connections::Fresh, "/");
    let mut wire = crate::wire::Wire::connect(&server.address()).unwrap();
    wire.send(b"GET /block HTTP/1.1\r\nhost: a\r\nx-request-id: the-hung-one\r\n\r\n");
    let stuck = server.until_line("it is found", |line| line.is("worker stuck"));
    assert_eq!((stuck.get("route"), stuck.get("oldest_request_id")), ("/block", "the-hung-one"));
    assert_eq!(stuck.get("request_trace_id").len(), 32);
    let told = server.until_line("its stack is told", |line| line.is("worker stack"));
    assert!(told.get("stack").split(' ').count() >= 2, "{}", told.text);
    assert!(told.text.contains("misfit::block"), "the blocking function: {}", told.text);
    let died = server.until_line("it is ended", |line| line.is("worker died"));
    assert_eq!((died.get("signal"), died.get("cause")), ("SIGABRT", "heartbeat"));
    load.until_more(20);
    drop(load.stop());
    assert_eq!(server.stop(), 0);
}

#[test]
fn check_boot_tries_one_worker_and_leaves_nothing() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let check = || {
        Setup::of_example("misfit")
            .env("TMPDIR", folder.path().to_str().unwrap())
            .args(["check", "--boot"])
    };
    let good = check().run();
    assert_eq!(good.code, 0, "{}", good.stderr);
    for (fault, code) in [("error", 4), ("panic", 3)] {
        let bad = check().env("MISFIT", fault).run();
        assert_eq!(bad.code, code, "{}", bad.stderr);
        assert!(bad.stderr.contains("a worker cannot boot"), "{}", bad.stderr);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing");
}

#[test]
fn rtmin_plus_1_has_every_worker_tell_its_stack() {
    let server = Server::start(["--workers", "2"]);
    // A shell's `kill`: nix has no name for the signal.
    let pid = server.supervisor().to_string();
    let kill = std::process::Command::new("sh")
        .args(["-c", &format!("kill -s RTMIN+1 {pid} || kill -35 {pid}")])
        .status();
    assert!(kill.unwrap().success());
    server.until_true("both are told", || server.lines_of("worker stack").len() == 2);
    server.get("/").expect_status(200);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_hung_worker_does_not_outlive_its_supervisor() {
    let server = Setup::of_example("misfit")
        .args([
            "--workers",
            "1",
            "--timeout",
            "0",
            "--graceful-timeout",
            "1s",
            "--abort-grace",
            "1s",
        ])
        .start();
    let mut wire = crate::wire::Wire::connect(&server.address()).unwrap();
    wire.send(b"GET /block HTTP/1.1\r\nhost: a\r\n\r\n");
    server.until("it runs", |metrics| metrics.sum("http_server_active_requests") == 1);
    kill(server.supervisor(), Signal::SIGKILL).unwrap();
    server.until_true("its alarm ends it", || crate::server::is_empty(server.supervisor()));
}

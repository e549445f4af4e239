//! `saola load`: the rate it promises, a model that is open, its summary, its exit codes.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::app::database::each;
use crate::output::Output;
use crate::server::Server;
use crate::setup::pid_of;
use crate::supervision_load::is_long;
use crate::wait;

struct Run {
    child: Child,
    stdout: Output,
    stderr: Output,
}

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn start(args: &[&str]) -> Self {
        let mut load = Command::new(env!("CARGO_BIN_EXE_saola"));
        load.arg("load").args(args).env_clear().stdin(Stdio::null());
        let mut child = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (Output::of(child.stdout.take()), Output::of(child.stderr.take()));
        Self { child, stdout, stderr }
    }

    fn end(mut self) -> Ended {
        let mut status = None;
        wait::until_within(Duration::from_mins(1), "the load has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let code = status.unwrap().code();
        Ended {
            code,
            stdout: self.stdout.to_end().join("\n"),
            stderr: self.stderr.to_end().join("\n"),
        }
    }
}

fn load(args: &[&str]) -> Ended {
    Run::start(args).end()
}

fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}

#[test]
fn every_request_is_sent_when_it_is_due_and_has_a_status_of_its_kind() {
    each(|database| {
        let server = database.setup().start();
        let (rate, seconds) = if is_long() { ("200", "60") } else { ("100", "6") };
        let ended =
            load(&[rate, &url(&server), "--seconds", seconds, "--mix", "healthy", "--json"]);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        // A busy machine may have no time for the database; nothing else is unexpected.
        let busy = report["all"]["statuses"]["503"].as_u64().unwrap_or(0);
        assert_eq!(
            (&report["skipped"], &report["unexpected"]),
            (&0.into(), &busy.into()),
            "{report}"
        );
        assert_eq!(ended.code, Some(i32::from(busy > 0)), "{}{}", ended.stdout, ended.stderr);
        assert!(busy < 100, "not all of it: {report}");
        let (rate, seconds): (u32, u32) = (rate.parse().unwrap(), seconds.parse().unwrap());
        assert_eq!(report["sent"], rate * seconds, "every one when it was due");
        // A measurement, for a machine that has time for it.
        if is_long() {
            assert!(
                (report["rate"].as_f64().unwrap() / f64::from(rate) - 1.0).abs() < 0.02,
                "{report}"
            );
        }
        assert!(!ended.stderr.contains("left out"), "{}", ended.stderr);
        // Every kind was asked but those that fail or are slow.
        assert!(report["kinds"].as_array().unwrap().len() > 20, "{report}");
        // What it made is deleted again.
        assert_eq!(database.number("SELECT count(*) FROM conduit_articles"), 0);
        assert_eq!(database.number("SELECT count(*) FROM items_items"), 100);
    });
}

#[test]
fn every_kind_of_the_incident_has_only_the_statuses_that_are_its_own() {
    let server = Server::start([]);
    let ended = load(&["40", &url(&server), "--count", "200", "--mix", "incident", "--json"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let failed: u64 = ["500", "502", "503"]
        .iter()
        .filter_map(|status| report["all"]["statuses"][status].as_u64())
        .sum();
    // 15 % of 200, and luck.
    assert!((12..=55).contains(&failed), "{report}");
    assert!(report["all"]["p95_seconds"].as_f64().unwrap() > 1.0, "{report}");
}

#[test]
fn a_server_that_stalls_cannot_hide_it_by_slowing_the_load_down() {
    let server = Server::start([]);
    let run = Run::start(&["50", &url(&server), "--count", "150", "--mix", "healthy", "--json"]);
    server.until("the load runs", |metrics| metrics.sum("http_server_requests_started_total") > 30);
    let workers = server.pids().workers;
    for pid in workers.values() {
        kill(*pid, Signal::SIGSTOP).unwrap();
    }
    wait::pause(Duration::from_millis(1_200));
    for pid in workers.values() {
        kill(*pid, Signal::SIGCONT).unwrap();
    }
    let ended = run.end();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&report["sent"], &report["skipped"]), (&150.into(), &0.into()), "{report}");
    // Whatever was due while it stood still waited for the rest of it: some 60 of 150.
    assert!(report["all"]["p95_seconds"].as_f64().unwrap() > 0.8, "{report}");
}

#[test]
fn ctrl_c_ends_it_with_a_summary() {
    let server = Server::start([]);
    let run = Run::start(&["20", &url(&server), "--mix", "healthy"]);
    server.until("the load runs", |metrics| metrics.sum("http_server_requests_started_total") > 30);
    kill(pid_of(&run.child), Signal::SIGINT).unwrap();
    let ended = run.end();
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let words: Vec<_> = ended.stdout.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        words,
        ["request", "ended", "2xx", "4xx", "5xx", "failed", "p50", "p95", "p99", "max"]
    );
    assert!(ended.stdout.contains("\nall "), "{}", ended.stdout);
    for word in ["sent=", "rate=", "2xx=", "failed=0", "skipped=0", "in_flight=0", "p50=", "p99="] {
        assert!(ended.stderr.contains(word), "{word} in {}", ended.stderr);
    }
}

#[test]
fn exit_codes_tell_what_was_wrong() {
    let refused = load(&["5", "http://127.0.0.1:1"]);
    let told = "saola load: cannot connect to http://127.0.0.1:1/ (connection refused); start the server with: cargo run --release";
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), told));
    for wrong in
        [&["0"][..], &["5001"], &["x"], &["5", "ftp://x"], &["--mix", "none"], &["--seconds", "-1"]]
    {
        assert_eq!(load(wrong).code, Some(64), "{wrong:?}");
    }
    // A server that has none of it: what cannot be made is left out, and the rest is not as expected.
    let other = crate::setup::Setup::of_example("hello").start();
    let ended = load(&["100", &url(&other), "--count", "20"]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("POST /api/users answered 404; requests about it are left out"),
        "{}",
        ended.stderr
    );
}

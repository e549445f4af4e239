//! What slot files promise, seen from outside: a slot has one owner, a damaged one never makes a rate jump, whoever does not
//! read costs nobody else anything, and telemetry costs a worker no system call.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::accounting::is_long;
use crate::client;
use crate::collector::{Collector, Mode};
use crate::death::lost_lines;
use crate::load::{Connections, Load};
use crate::metrics::{Metrics, assert_no_fall};
use crate::server::{Server, Slot};
use crate::setup::pid_of;
use crate::tracing::traced;
use crate::wait;

const STARTED: &str = "http_server_requests_started_total";
const LOST: &str = "http_server_requests_lost_total";

#[test]
fn fifty_requests_that_die_with_their_worker_are_told_once_in_each_signal() {
    let collector = Collector::start(Mode::Answer);
    let server = traced(&collector).args(["--workers", "1", "--trace-rate-limit", "1000"]).start();
    let load = Load::start(&server.address(), 50, Connections::Fresh, "/api/slow?ms=20000");
    server.until("fifty requests run", |metrics| metrics.sum("http_server_active_requests") == 50);
    server.kill(Slot(0));
    server.until("all are lost", |metrics| metrics.sum(LOST) == 50);
    server.until_true("all have their line", || lost_lines(&server).len() == 50);
    load.ask_no_more();
    server.stop_at_once();
    let failed = load.stop().failed;
    let lines = lost_lines(&server);
    let traces: BTreeMap<String, String> = lines
        .iter()
        .map(|line| (line.get("trace_id").to_owned(), line.get("request_id").to_owned()))
        .collect();
    assert_eq!((lines.len(), traces.len()), (50, 50), "a line and a trace each");
    assert!(traces.values().all(|id| failed.contains_key(id)), "{failed:?}");
    let spans: Vec<_> = collector
        .spans()
        .into_iter()
        .filter(|span| traces.contains_key(&span.trace_id()))
        .collect();
    let told: BTreeSet<_> = spans.iter().map(|span| span.get("request.id").to_owned()).collect();
    assert_eq!((spans.len(), told.len()), (50, 50), "a span each, and once");
}

/// Two generations serve at once, and no slot has two owners: each worker maps the file of one slot, which no other maps.
#[test]
fn no_slot_has_two_owners_while_generations_change() {
    let server = Server::start(["--workers", "2"]);
    server.until_whole(2);
    let load = Load::start(&server.address(), 4, Connections::Kept, "/api/slow?ms=5");
    let (mut last, mut looks, mut most) = (server.metrics(), 0, 0);
    for generation in 2..=4 {
        // Keeps a worker of the old generation, where it came in time, for as long as it takes to be seen.
        let address = server.address();
        let slow = crate::output::thread(move || client::get(&address, "/api/slow?ms=3000"));
        server.signal(Signal::SIGHUP);
        server.until("the next generation serves alone", |metrics| {
            assert_no_fall(&last, metrics);
            last = metrics.clone();
            let owners = owners(&server.run_dir());
            most = most.max(owners.len());
            looks += 1;
            metrics.sum("saola_generation") == generation && owners.len() == 2
        });
        slow.join().unwrap().expect_status(200);
    }
    load.stop().expect_no_loss();
    assert!(looks > 3 && most > 2, "{most} workers at most in {looks} looks");
    let slots = server.files().iter().filter(|path| is_slot(path)).count();
    // Of eight workers: a reload may come while the last one's still drain, and two old generations may.
    assert!(slots <= 6, "{slots} files for six workers at once");
    assert_eq!(server.stop(), 0);
}

fn is_slot(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("slot-"))
}

/// The process that maps each slot's file.
fn owners(run_dir: &Path) -> BTreeMap<String, Pid> {
    let mut owners = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let pid = Pid::from_raw(pid);
        let slots = mapped_slots(pid, run_dir);
        // The supervisor sees them all.
        let [slot] = &slots[..] else { continue };
        if let Some(other) = owners.insert(slot.clone(), pid) {
            // It may have died since it was looked at, and this one is its successor.
            let is_still = mapped_slots(other, run_dir).contains(slot);
            assert!(!is_still, "{slot} is mapped by {other} and by {pid}");
        }
    }
    owners
}

/// The slots that a process maps as a whole, but for those that it shares with its parent.
fn mapped_slots(pid: Pid, run_dir: &Path) -> Vec<String> {
    let is_supervisor = |maps: &str| maps.contains("/observer\n");
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let run_dir = run_dir.to_string_lossy();
    let of_the_server =
        maps.lines().filter(|line| line.contains("rw-s") && line.contains(&*run_dir));
    let paths = of_the_server.filter_map(|line| line.rsplit_once('/'));
    let slots: BTreeSet<_> =
        paths.map(|(_, name)| name).filter(|name| name.starts_with("slot-")).collect();
    if is_supervisor(&maps) { Vec::new() } else { slots.into_iter().map(str::to_owned).collect() }
}

/// What Prometheus makes of two scrapes: a counter that fell began again from 0.
fn increase(before: u64, after: u64) -> u64 {
    if after >= before { after - before } else { after }
}

#[test]
fn a_rate_over_a_damaged_slot_is_never_above_the_truth() {
    type Fault = fn(&Path);
    let faults: [(&str, Fault); 6] = [
        ("cut to half", |path| cut(path, 33 << 20)),
        ("overwritten", |path| std::fs::write(path, [0xAA; 8192]).unwrap()),
        ("cut to nothing", |path| cut(path, 0)),
        ("cut and grown again", |path| {
            cut(path, 16 << 20);
            cut(path, 64 << 20);
        }),
        ("replaced by a folder", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
        ("replaced by a link", |path| {
            std::fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/dev/null", path).unwrap();
        }),
    ];
    let count = if is_long() { faults.len() } else { 2 };
    for (what, fault) in &faults[..count] {
        let args = ["--workers", "2", "--graceful-timeout", "2s", "--access-log", "errors"];
        let server = Server::start(args);
        server.until_whole(2);
        let load = Load::start(&server.address(), 4, Connections::Kept, "/");
        load.until_more(500);
        // The answers before a scrape, what it says, the answers after it; gaps are left out.
        let mut scrapes = Vec::new();
        let mut scrape = || {
            let before = load.answered();
            let answer = client::get(&server.admin(), "/metrics");
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            let metrics = Metrics::parse(answer.text());
            if metrics.of(STARTED).next().is_some() {
                scrapes.push((before, metrics.sum(STARTED), load.answered()));
            }
            metrics.sum("saola_slots_bad")
        };
        scrape();
        let uptime = || server.admin_get("/status").json()["uptime_seconds"].as_f64().unwrap();
        let before = uptime();
        fault(&server.run_dir().join("epoch-000001/slot-0001"));
        server.until_true("a scrape finds it", || scrape() > 0);
        server.until_true("a new epoch serves", || {
            scrape() == 0 && server.lines_of("reloaded").len() == 1
        });
        for _ in 0..20 {
            load.until_more(10);
            scrape();
        }
        assert!(uptime() > before, "{what}: the server was not started anew");
        assert!(server.lines_of("worker died").is_empty(), "{what}: every worker lives");
        load.stop().expect_no_loss();
        for pair in scrapes.windows(2) {
            let (risen, truth) = (increase(pair[0].1, pair[1].1), pair[1].2 - pair[0].0);
            // Four clients have each a request that has started and is not answered.
            assert!(risen <= truth * 3 / 2 + 4, "{what}: {risen} of {truth}: {pair:?}");
        }
        assert!(scrapes.len() > 20, "{what}: {scrapes:?}");
        assert_eq!(server.stop(), 0);
    }
}

/// The files of the supervisor and the observer count in each sum: without one of them there would be none for good.
#[test]
fn a_lost_file_of_the_supervisor_or_the_observer_is_told_and_replaced() {
    for role in ["observer", "supervisor"] {
        let server = Server::start(["--workers", "1", "--graceful-timeout", "2s"]);
        server.get("/").expect_status(200);
        server.until("it is counted", |metrics| metrics.sum(STARTED) == 1);
        std::fs::remove_file(server.run_dir().join("epoch-000001").join(role)).unwrap();
        let told = server.until_line("it is told", |line| line.is("slot damaged"));
        assert_eq!((told.get("role"), told.get("level")), (role, "error"));
        server.until_line("a new generation serves", |line| line.is("reloaded"));
        server.get("/").expect_status(200);
        server.until_true("it counts in a new epoch", || {
            let answer = client::get(&server.admin(), "/metrics");
            answer.status == 200 && {
                let metrics = Metrics::parse(answer.text());
                metrics.sum(STARTED) == 1 && metrics.sum("saola_slots_bad") == 0
            }
        });
        assert_eq!(server.stop(), 0);
    }
}

fn cut(path: &Path, length: u64) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Its rings fill and what comes then is dropped and counted; everything else has its line when it goes on.
#[test]
fn an_observer_that_stands_still_costs_counted_lines_and_no_request() {
    let server = Server::start(["--workers", "1", "--ring-bytes", "128KiB"]);
    let observer = server.until_whole(1).observer.unwrap();
    kill(observer, Signal::SIGSTOP).unwrap();
    let load = Load::start(&server.address(), 6, Connections::Kept, "/");
    // More than the ring holds, and then some.
    for _ in 0..6 {
        load.until_more(200);
    }
    kill(observer, Signal::SIGCONT).unwrap();
    let tally = load.stop();
    tally.expect_no_loss();
    let dropped = || server.metrics().value("saola_records_dropped_total", &[("kind", "request")]);
    server.until_true("each request has a line or is counted", || {
        let lines = u64::try_from(server.lines_of("request").len()).unwrap();
        lines + dropped() == tally.sent()
    });
    assert!(dropped() > 0, "the ring was never full");
    assert_eq!(server.stop(), 0);
}

/// The calls of a worker that serves are those of its sockets. The clock ticks ten times a second, and an observer that sleeps
/// is woken once a second at most.
#[test]
fn telemetry_costs_a_worker_no_system_call() {
    let server = Server::start(["--workers", "1"]);
    let worker = server.until_whole(1).workers[&Slot(0)];
    let counts = server.folder().path().join("calls");
    let mut strace = Command::new("strace");
    strace.args(["-c", "-f", "-o", counts.to_str().unwrap(), "-p", &worker.to_string()]);
    let Ok(mut strace) = strace.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        println!("SKIPPED: strace is not installed");
        return;
    };
    let status = || std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let is_traced = || !status().contains("TracerPid:\t0\n");
    wait::until("strace looks on", || is_traced() || strace.try_wait().unwrap().is_some());
    if !is_traced() {
        println!("SKIPPED: no process may be traced here");
        return;
    }
    let load = Load::start(&server.address(), 4, Connections::Kept, "/");
    let since = std::time::Instant::now();
    let requests = if is_long() { 10_000 } else { 1_000 };
    for _ in 0..requests / 200 {
        load.until_more(200);
    }
    let seconds = since.elapsed().as_secs() + 2;
    kill(pid_of(&strace), Signal::SIGINT).unwrap();
    strace.wait().unwrap();
    load.stop().expect_no_loss();
    let text = std::fs::read_to_string(&counts).unwrap();
    let serving = ["epoll_wait", "recvfrom", "sendto", "writev"];
    for (call, count) in text.lines().filter_map(counted) {
        let bound = match call {
            "total" => continue,
            // The observer may have been asleep at the first request, and the accepting thread hands connections over.
            "futex" => seconds + 20,
            call if serving.contains(&call) => requests * 3,
            _ => seconds * 60 + 100,
        };
        assert!(
            count <= bound,
            "{call} {count} times in {requests} requests and {seconds} s:\n{text}"
        );
    }
    assert!(text.contains("recvfrom"), "{text}");
    assert_eq!(server.stop(), 0);
}

/// A row of strace's table: `% time  seconds  usecs/call  calls  [errors]  syscall`.
fn counted(row: &str) -> Option<(&str, u64)> {
    let mut words = row.split_whitespace();
    let call = words.next_back()?;
    Some((call, words.nth(3)?.parse().ok()?))
}

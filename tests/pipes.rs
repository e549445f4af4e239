//! A stdout that nobody reads, or that is closed.

use crate::accounting::is_long;
use crate::client;
use crate::lines::Line;
use crate::load::{Connections, Load};
use crate::output::Output;
use crate::server::Server;
use crate::setup::{Setup, Stdout};
use crate::wait;

const DROPPED: &str = "saola_log_lines_dropped_total";

/// A server whose lines nobody reads; its addresses are found by its own open sockets.
fn silent(stdout: Stdout) -> (Server, String, String) {
    let setup = Setup::new();
    let [service, admin] = ["service", "admin"].map(|name| setup.folder().join(name));
    let [service, admin] = [service, admin].map(|path| format!("unix:{}", path.display()));
    // A TCP port would be told on the very stdout that is not read, so the load goes to a port that was free just now.
    let port = free_port();
    let args =
        ["--bind", &port, "--bind", &service, "--admin-bind", &admin, "--ring-bytes", "128KiB"];
    let server = setup.args(args).stdout(stdout).start_without_waiting();
    server.until_true("it is ready", || {
        client::try_get(&admin, "/ready").is_ok_and(|answer| answer.status == 200)
    });
    (server, port, admin)
}

#[test]
fn a_stdout_that_nobody_reads_stops_no_request() {
    let (server, address, admin) = silent(Stdout::Unread);
    let metrics = || {
        crate::metrics::Metrics::parse(client::get(&admin, "/metrics").expect_status(200).text())
    };
    let load = Load::start(&address, 6, Connections::Kept, "/api/items/7");
    // More than the pipe and the rings hold: the first lines are dropped, and still every request is answered.
    wait::until("lines are dropped", || metrics().value(DROPPED, &[("reason", "blocked")]) > 0);
    let since = std::time::Instant::now();
    while is_long() && since.elapsed().as_secs() < 60 {
        load.until_more(100);
    }
    load.until_more(500);
    let tally = load.stop();
    tally.expect_no_loss();
    let finished = metrics().sum("http_server_request_duration_seconds_count");
    assert!(finished >= tally.sent(), "{finished} of {}", tally.sent());

    // Where others take the observer's core away for seconds.
    let full = metrics().value("saola_records_dropped_total", &[("kind", "request")]);

    let output = Output::of(Some(server.take_unread()));
    wait::until("the drop is announced", || {
        output.lines().iter().any(|line| line.contains("log lines dropped"))
    });
    assert_eq!(server.stop(), 0);
    let lines: Vec<_> = output.to_end().iter().map(|text| Line::parse(text)).collect();
    let announced: u64 = lines
        .iter()
        .filter(|line| line.is("log lines dropped"))
        .map(|line| line.number("count"))
        .sum();
    let told = lines.iter().filter(|line| line.is("request")).count();
    let told = u64::try_from(told).unwrap();
    // The few lines that the server has of its own in that time may be among the dropped ones.
    let (all, sent) = (told + announced + full, tally.sent());
    assert!((sent..=sent + 20).contains(&all), "dropped and written are all: {all} of {sent}");
}

#[test]
fn a_stdout_whose_reader_has_gone_stops_nothing() {
    let (server, address, admin) = silent(Stdout::Unread);
    drop(server.take_unread());
    let load = Load::start(&address, 3, Connections::Kept, "/api/items/7");
    load.until_more(300);
    load.stop().expect_no_loss();
    wait::until("the lines are counted as closed", || {
        let metrics = crate::metrics::Metrics::parse(
            client::get(&admin, "/metrics").expect_status(200).text(),
        );
        metrics.value(DROPPED, &[("reason", "closed")]) > 0
    });
    assert_eq!(server.pids().workers.len(), 2);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_stdout_that_is_not_open_stops_nothing() {
    let (server, address, _) = silent(Stdout::Closed);
    let load = Load::start(&address, 2, Connections::Fresh, "/api/items/7");
    load.until_more(50);
    load.stop().expect_no_loss();
    assert_eq!(server.stop(), 0);
}

/// A port that nobody has now. Saola tries five times when somebody was quicker.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn a_full_disk_is_counted_and_told_on_stderr() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (server, address, admin) = silent(Stdout::Given(full.into()));
    let load = Load::start(&address, 2, Connections::Kept, "/api/items/7");
    load.until_more(50);
    load.stop().expect_no_loss();
    wait::until("the lines are counted", || {
        let text = client::get(&admin, "/metrics");
        let metrics = crate::metrics::Metrics::parse(text.expect_status(200).text());
        metrics.value(DROPPED, &[("reason", "write_error")]) > 0
    });
    assert_eq!(server.stop(), 0);
    assert!(server.stderr().lines().iter().any(|line| line.contains("stdout")), "told on stderr");
}

#[test]
fn a_stdout_that_a_parent_made_nonblocking_loses_no_line() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let (server, address, _) = silent(Stdout::Given(writer.into()));
    let load = Load::start(&address, 4, Connections::Kept, "/api/items/7");
    // More than the pipe holds, so that a write meets a full one.
    load.until_more(500);
    let output = Output::of(Some(reader));
    load.until_more(300);
    let tally = load.stop();
    tally.expect_no_loss();
    assert_eq!(server.stop(), 0);
    let lines: Vec<_> = output.to_end().iter().map(|text| Line::parse(text)).collect();
    let announced = lines.iter().filter(|line| line.is("log lines dropped"));
    let announced: u64 = announced.map(|line| line.number("count")).sum();
    let told = u64::try_from(lines.iter().filter(|line| line.is("request")).count()).unwrap();
    assert_eq!(told + announced, tally.sent());
}

#[test]
fn a_terminal_that_is_stopped_by_control_s_stops_no_request() {
    use std::io::Write as _;
    let pair = nix::pty::openpty(None, None).unwrap();
    let mut keys = std::fs::File::from(pair.master.try_clone().unwrap());
    let (server, address, _) = silent(Stdout::Given(pair.slave));
    let output = Output::of(Some(std::fs::File::from(pair.master)));
    keys.write_all(b"\x13").unwrap();
    let load = Load::start(&address, 4, Connections::Kept, "/api/items/7");
    load.until_more(500);
    let tally = load.stop();
    tally.expect_no_loss();
    keys.write_all(b"\x11").unwrap();
    wait::until("it goes on", || {
        output.lines().iter().filter(|line| line.contains("/api/items/7")).count() > 100
    });
    assert_eq!(server.stop(), 0);
}

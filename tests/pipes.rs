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
    while is_long() && since.elapsed().as_secs() < 20 {
        load.until_more(100);
    }
    load.until_more(500);
    let tally = load.stop();
    tally.expect_no_loss();
    let finished = metrics().sum("http_server_request_duration_seconds_count");
    assert!(finished >= tally.sent(), "{finished} of {}", tally.sent());

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
    assert_eq!(told + announced, tally.sent(), "dropped and written lines are all requests");
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

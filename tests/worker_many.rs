//! Very many connections: idle ones that all wake, and what those cost that hold a worker's memory. `SAOLA_LONG=1` opens
//! ten thousand.

use std::io::{Read, Write};
use std::net::TcpStream;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::server::Server;
use crate::setup::Setup;
use crate::wait::DEADLINE;
use crate::wire::Wire;

const WHOLE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn is_long() -> bool {
    std::env::vars().any(|(name, value)| name == "SAOLA_LONG" && value == "1")
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn ask(stream: &mut TcpStream) {
    stream.write_all(WHOLE).unwrap();
    let mut answer = [0; 1024];
    let length = stream.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// Private memory of the workers, in KiB.
fn memory(server: &Server) -> u64 {
    let rollup = |pid| std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let dirty = |text: String| {
        let line = text.lines().find(|line| line.starts_with("Private_Dirty:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    server.pids().workers.values().map(rollup).map(dirty).sum()
}

#[test]
fn idle_connections_are_cheap_and_all_are_served_when_they_wake() {
    let count = if is_long() { 10_000 } else { 1_000 };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let server = Setup::of_example("hello")
        .args(["--workers", "2", "--worker-connections", "9000", "--access-log", "off"])
        .start();
    let address = server.address();
    for _ in 0..200 {
        ask(&mut connect(&address));
    }
    let before = memory(&server);
    let mut idle: Vec<_> = (0..count).map(|_| connect(&address)).collect();
    idle.iter_mut().for_each(ask);
    let each = (memory(&server) - before) / u64::try_from(count).unwrap();
    assert!(each <= 20, "{each} KiB for each");
    let mut honest = Wire::connect(&address).unwrap();
    assert_eq!(honest.get("/", "honest").unwrap().status, 200);
    idle.iter_mut().for_each(ask);
    assert_eq!(server.stop(), 0);
}

/// What a thousand connections that hold such a beginning add to a worker, in KiB.
fn held(beginning: &[u8]) -> u64 {
    let server = Setup::of_example("hello").args(["--workers", "1"]).start();
    ask(&mut connect(&server.address()));
    let before = memory(&server);
    let holding: Vec<_> = (0..1_000)
        .map(|_| {
            let mut stream = connect(&server.address());
            stream.write_all(beginning).unwrap();
            stream
        })
        .collect();
    let mut honest = Wire::connect(&server.address()).unwrap();
    assert_eq!(honest.get("/", "honest").unwrap().status, 200);
    let held = memory(&server) - before;
    drop(holding);
    assert_eq!(server.stop(), 0);
    held
}

#[test]
fn heads_that_never_end_are_bounded_in_memory() {
    let line = format!("x-{}: {}\r\n", "n".repeat(10), "v".repeat(8_000));
    let longest = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", line.repeat(8));
    assert!((60_000..65_536).contains(&longest.len()));
    let all = held(longest.as_bytes());
    assert!(all <= 80 << 10, "{all} KiB for a thousand of the longest");
    let small = &longest.as_bytes()[..4_000];
    let all = held(small);
    assert!(all <= 16 << 10, "{all} KiB for a thousand of 4,000 bytes");
}

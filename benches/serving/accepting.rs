//! How evenly workers accept, what an accept costs in context switches, and what an idle connection costs in memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::fleet::{Server, pause, threads};

const CONNECTIONS: usize = 6_400;
const AT_ONCE: usize = 64;
const PACED: u32 = 4_000;
const IDLE: usize = 10_000;

/// Fresh connections, 64 at a time, by 4 and by 16 workers.
pub(crate) fn report() {
    for workers in [4, 16] {
        for mode in ["exclusive", "tokio"] {
            let server = Server::example_of(workers, "plain", &["--accept", mode], &[]);
            let before = counts(&server);
            let first = Switches::of(&server);
            for _ in 0..CONNECTIONS / AT_ONCE {
                let mut open: Vec<_> =
                    (0..AT_ONCE).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
                for stream in &mut open {
                    stream
                        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                        .unwrap();
                }
                for mut stream in open {
                    stream.read_to_end(&mut Vec::new()).unwrap();
                }
            }
            let switched = Switches::of(&server).since(first).each(CONNECTIONS as f64);
            pause(Duration::from_millis(200));
            let taken: Vec<_> =
                counts(&server).iter().zip(before).map(|(now, then)| now - then).collect();
            let (most, least) = (taken.iter().max().unwrap(), taken.iter().min().unwrap());
            println!(
                "{workers} workers, {mode}: busiest / idlest {:.2} ({most} / {least}), for each connection {switched}",
                *most as f64 / (*least).max(1) as f64,
            );
            println!("{workers} workers, {mode}, 1,000 a second: {}", paced(&server));
        }
    }
}

/// The switches for each connection while clients come one by one and ask at once, without those of idle workers.
fn paced(server: &Server) -> Switches {
    let second = Duration::from_secs(1);
    let first = Switches::of(server);
    pause(2 * second);
    let idle = Switches::of(server).since(first).each(2.0);
    let (before, begun) = (Switches::of(server), std::time::Instant::now());
    for number in 1..=PACED {
        pause((second * number / 1_000).saturating_sub(begun.elapsed()));
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    let switched = Switches::of(server).since(before);
    let of_idle = idle.each(1.0 / begun.elapsed().as_secs_f64());
    switched.since(of_idle).each(PACED.into())
}

/// Context switches of all threads of all workers.
#[derive(Copy, Clone, Default)]
struct Switches {
    /// Somebody had to wake them again.
    slept: f64,
    /// Somebody else ran in their place: here the clients, which share the processors and are woken by each answer.
    displaced: f64,
}

impl Switches {
    fn of(server: &Server) -> Self {
        let mut switches = Self::default();
        for task in server.pids(true).into_iter().flat_map(threads) {
            let status = std::fs::read_to_string(format!("{task}/status")).unwrap_or_default();
            let number = |name: &str| {
                let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
                rest.trim().parse::<f64>().ok()
            };
            switches.slept += number("voluntary_ctxt_switches:").unwrap_or_default();
            switches.displaced += number("nonvoluntary_ctxt_switches:").unwrap_or_default();
        }
        switches
    }

    fn since(self, before: Self) -> Self {
        Self { slept: self.slept - before.slept, displaced: self.displaced - before.displaced }
    }

    fn each(self, of: f64) -> Self {
        Self { slept: self.slept / of, displaced: self.displaced / of }
    }
}

impl std::fmt::Display for Switches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "slept {:.2} times, displaced {:.2} times", self.slept, self.displaced)
    }
}

/// Accepted connections of each worker, as the server counts them.
fn counts(server: &Server) -> Vec<u64> {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("saola_connections_accepted_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

/// Ten thousand connections that have asked once: what each of them keeps.
pub(crate) fn idle() {
    let server = Server::example_of(
        2,
        "hello",
        &["--worker-connections", "8192", "--access-log", "off"],
        &[],
    );
    let ask = |stream: &mut TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n").unwrap();
        let mut answer = [0; 1024];
        assert!(stream.read(&mut answer).unwrap() > 0);
    };
    for _ in 0..1_000 {
        ask(&mut TcpStream::connect(&server.address).unwrap());
    }
    let before = memory(&server);
    let mut open: Vec<_> =
        (0..IDLE).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    open.iter_mut().for_each(ask);
    let after = memory(&server);
    println!(
        "{IDLE} idle connections: {:.1} KiB each in the workers",
        (after - before) as f64 / IDLE as f64
    );
    open.iter_mut().for_each(ask);
    println!("all {IDLE} were served when they woke");
}

/// Private memory of the workers, in KiB.
fn memory(server: &Server) -> u64 {
    let rollups = server.pids(true).into_iter().map(|pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with("Private_Dirty:"));
        lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>()
    });
    rollups.sum()
}

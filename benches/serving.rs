//! What serving costs, as ratios to the same application on bare hyper, and how evenly workers accept.
//!
//! `cargo bench --bench serving`. All servers are up at once; each round asks every one of them, in turns forwards and
//! backwards; a ratio is formed inside its round, and the median of the rounds is told with the least and the most. The
//! same server twice shows how far chance goes: a difference inside that is told as undecided.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a program that measures and prints"
)]

#[path = "serving/accepting.rs"]
mod accepting;
#[path = "serving/bare.rs"]
mod bare;
#[path = "serving/fleet.rs"]
mod fleet;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;

use fleet::Server;

const ROUNDS: usize = 11;
const CLIENTS: usize = 16;
const REQUESTS: usize = 600;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    match args.next().as_deref() {
        Some("bare") => bare::serve(bare::Kind::Plain),
        Some("bare-axum") => bare::serve(bare::Kind::Axum),
        Some("accept") => accepting::report(),
        Some("idle") => accepting::idle(),
        Some(other) => {
            panic!("{other}: it is bare, bare-axum, accept, idle, or nothing for the costs")
        }
        None => costs(),
    }
    ExitCode::SUCCESS
}

/// CPU for each request, in nanoseconds, round by round.
#[derive(Default)]
struct Cost {
    /// Of all processes, the observer with them.
    tree: Vec<f64>,
    workers: Vec<f64>,
}

fn costs() {
    let sampled =
        [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.05")];
    let (quiet, unsampled) = (["--access-log", "off"], [("OTEL_TRACES_SAMPLER", "always_off")]);
    let [bare, bare_again, plain, plain_quiet, axum, axum_again, hello, hello_quiet] = measure(&[
        Server::bare("bare"),
        Server::bare("bare"),
        Server::example("plain", &[], &sampled),
        Server::example("plain", &quiet, &unsampled),
        Server::bare("bare-axum"),
        Server::bare("bare-axum"),
        Server::example("hello", &[], &sampled),
        Server::example("hello", &quiet, &unsampled),
    ]);
    println!(
        "CPU for each request, {ROUNDS} rounds of {} requests on {CLIENTS} kept connections",
        CLIENTS * REQUESTS
    );
    let control = over(&ratios(&bare_again.tree, &bare.tree));
    println!("bare hyper: {:.1} us; against itself {control}", median(&bare.tree) / 1000.0);
    told("plain service, 5 % sampled, all processes", &plain.tree, &bare, control);
    told("plain service, 5 % sampled, workers", &plain.workers, &bare, control);
    told("plain service, no lines and spans, workers", &plain_quiet.workers, &bare, control);
    let control = over(&ratios(&axum_again.tree, &axum.tree));
    println!("axum on hyper: {:.1} us; against itself {control}", median(&axum.tree) / 1000.0);
    told("axum, 5 % sampled, all processes", &hello.tree, &axum, control);
    told("axum, 5 % sampled, workers", &hello.workers, &axum, control);
    told("axum, no lines and spans, workers", &hello_quiet.workers, &axum, control);
}

/// Asks all servers in turns.
fn measure<const N: usize>(servers: &[Server; N]) -> [Cost; N] {
    for server in servers {
        round(server); // caches, pools and first allocations
        server.settle();
    }
    let mut costs = std::array::from_fn(|_| Cost::default());
    for number in 0..ROUNDS {
        let mut order: Vec<usize> = (0..N).collect();
        if number % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let server = &servers[at];
            let (tree, workers) = (server.cpu_ns(false), server.cpu_ns(true));
            round(server);
            // The observer writes behind the workers: it is waited for.
            server.settle();
            let requests = (CLIENTS * REQUESTS) as f64;
            costs[at].tree.push((server.cpu_ns(false) - tree) as f64 / requests);
            costs[at].workers.push((server.cpu_ns(true) - workers) as f64 / requests);
        }
    }
    costs
}

/// Every client asks on a connection of its own, and looks at each answer.
fn round(server: &Server) {
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| client(server));
        }
    });
}

fn client(server: &Server) {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = [0; 2048];
    for _ in 0..REQUESTS {
        stream
            .write_all(
                b"GET / HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
            )
            .unwrap();
        let mut length = 0;
        while !answer[..length].ends_with(b"hello\n") {
            let read = stream.read(&mut answer[length..]).unwrap();
            assert!(read > 0, "the server has closed");
            length += read;
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Median, least and most of ratios.
#[derive(Copy, Clone)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} ({:.3} to {:.3})", self.median, self.least, self.most)
    }
}

fn over(ratios: &[f64]) -> Spread {
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    Spread { median: median(ratios), least, most: ratios.iter().copied().fold(0.0, f64::max) }
}

/// Prints a cost as a ratio, and whether it says more than chance.
fn told(name: &str, of: &[f64], base: &Cost, control: Spread) {
    let spread = over(&ratios(of, &base.tree));
    let noise = (control.median - 1.0).abs();
    let word = match (noise > 0.05, (spread.median - 1.0).abs() <= noise) {
        (true, _) => ", too noisy",
        (false, true) => ", undecided",
        (false, false) => "",
    };
    println!("  {name}: {spread}{word}");
}

//! What the reference application costs beside a bare handler that runs the same statements on PostgreSQL.
//!
//! `cargo bench --bench database -- postgres://…`, with an empty database: it is filled with a hundred articles.
//! The application runs with its defaults and telemetry, two workers; the handler is hyper, a pool and nothing else, on two
//! threads. Rounds are interleaved, and each ratio is formed inside its round. The bare one runs twice: a control.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a program that measures and prints"
)]

#[path = "database/bare.rs"]
mod bare;
#[path = "database/client.rs"]
mod client;
#[path = "serving/fleet.rs"]
#[expect(dead_code, reason = "of the servers' side, another bench uses more")]
mod fleet;

use std::process::ExitCode;

use client::Client;
use fleet::Server;
use serde_json::{Value, json};

const ROUNDS: usize = 9;
/// Clients at once: few, so that a server sleeps and wakes for nearly every answer; and as many as the other benches have.
const CLIENTS: [usize; 2] = [8, 64];
/// Of all clients in a round: what a server does when it falls idle is to weigh little.
const REQUESTS: usize = 8_000;
const ARTICLES: usize = 100;
/// Before the URL: this program is to be the handler.
const BARE: &str = "bare:";

fn main() -> ExitCode {
    let args = std::env::args().skip(1).find(|arg| arg.contains("postgres"));
    if let Some(url) = args.as_deref().and_then(|arg| arg.strip_prefix(BARE)) {
        bare::serve(url);
        return ExitCode::SUCCESS;
    }
    let Some(url) = args else {
        println!(
            "name an empty database: cargo bench --bench database -- postgres://USER@HOST/NAME"
        );
        return ExitCode::from(64);
    };
    let environment = [("DATABASE_URL", url.as_str()), ("DATABASE_POOL_SIZE", "10")];
    let app = Server::program(env!("CARGO_BIN_EXE_saola"), 2, &[], &environment);
    fill(&app);
    let kind = format!("{BARE}{url}");
    let [bare, again] = [Server::bare(&kind), Server::bare(&kind)];
    for path in ["/api/tags", "/api/articles"] {
        let [shown, expected] = [&app, &bare].map(|server| Client::of(server).get(path));
        assert_eq!(shown, expected, "{path}: both say the same");
        for clients in CLIENTS {
            compare(path, clients, [&app, &bare, &again]);
        }
    }
    ExitCode::SUCCESS
}

/// A user, and articles with three tags each.
fn fill(app: &Server) {
    let mut client = Client::of(app);
    let user =
        json!({"user": {"username": "bench", "email": "b@example.com", "password": "benchmark1"}});
    let user = client.post("/api/users", &user);
    client.authorize(user["user"]["token"].as_str().unwrap());
    for number in 0..ARTICLES {
        let tags: Vec<_> = (0..3).map(|tag| format!("tag{}", (number * 7 + tag) % 20)).collect();
        let article = json!({"article": {
            "title": format!("Article {number}"),
            "description": "What it is about, in a line or so of text",
            "body": "lorem ipsum ".repeat(40),
            "tagList": tags,
        }});
        let created = client.post("/api/articles", &article);
        assert!(created["article"]["slug"].is_string(), "{created}");
    }
}

/// Prints the cost of the first beside the second, and of the third beside the second.
fn compare(path: &str, clients: usize, servers: [&Server; 3]) {
    let mut costs: [Vec<f64>; 3] = Default::default();
    for server in servers {
        round(server, path, clients); // connections, prepared statements and first allocations
        server.settle();
    }
    for number in 0..ROUNDS {
        let mut order = [0, 1, 2];
        if number % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let before = servers[at].cpu_ns(false);
            round(servers[at], path, clients);
            servers[at].settle();
            let spent = servers[at].cpu_ns(false) - before;
            costs[at].push(spent as f64 / REQUESTS as f64);
        }
    }
    let ratio = |of: &[f64]| {
        let mut ratios: Vec<f64> = of.iter().zip(&costs[1]).map(|(of, base)| of / base).collect();
        ratios.sort_by(f64::total_cmp);
        (ratios[ratios.len() / 2], ratios[0], ratios[ratios.len() - 1])
    };
    let (app, least, most) = ratio(&costs[0]);
    let (control, ..) = ratio(&costs[2]);
    println!(
        "{path}, {clients} clients: {app:.2} ({least:.2} to {most:.2}); the control against itself {control:.2}"
    );
}

/// Every client asks on a connection of its own.
fn round(server: &Server, path: &str, clients: usize) {
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = Client::of(server);
                for _ in 0..REQUESTS / clients {
                    assert_ne!(client.get(path), Value::Null);
                }
            });
        }
    });
}

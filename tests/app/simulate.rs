//! Simulation: seeds decide instead of chance, limits are refused and not clamped, and it can be switched off.

use std::collections::BTreeSet;

use crate::app::api::at_once;
use crate::app::database::each;
use crate::app::redis::Redis;
use crate::client;
use crate::metrics::Metrics;
use crate::server::Server;
use crate::setup::Setup;

const SIMULATED: [&str; 10] = [
    "/api/slow",
    "/api/very-slow",
    "/api/cpu",
    "/api/bad-request",
    "/api/server-error",
    "/api/exception",
    "/api/random",
    "/simulate/latency",
    "/simulate/error",
    "/simulate/heavy-task",
];

#[test]
fn without_simulation_there_is_none_of_it() {
    let production =
        [("APP_ENV", "production"), ("SECRET_KEY", "0123456789abcdef0123456789abcdef")];
    for env in [&[("SIMULATION", "off")][..], &production[..]] {
        let mut setup = Setup::new();
        for (name, value) in env {
            setup = setup.env(name, value);
        }
        let server = setup.start();
        for path in SIMULATED {
            assert_eq!(server.get(path).expect_status(404).text(), r#"{"detail":"Not Found"}"#);
        }
        server.get("/cache/k1").expect_status(200);
        server.get("/items/1").expect_status(200);
    }
}

#[test]
fn a_seed_has_one_outcome_on_every_worker() {
    let server = Server::start(["--workers", "3"]);
    let (mut workers, mut outcomes) = (BTreeSet::new(), BTreeSet::new());
    for path in ["/simulate/error?p=0.5", "/api/random?", "/simulate/latency?"] {
        for seed in 0..4 {
            // Every connection may go to another worker.
            let address = server.address();
            let answers =
                at_once(6, move |_| client::get(&address, &format!("{path}&seed={seed}")));
            let first = (answers[0].status, answers[0].text().to_owned());
            for answer in &answers {
                assert_eq!(
                    (answer.status, answer.text()),
                    (first.0, first.1.as_str()),
                    "{path} {seed}"
                );
                workers.insert(server.access_line(answer.request_id()).get("worker").to_owned());
            }
            outcomes.insert(first);
        }
    }
    assert!(workers.len() > 1, "one worker only: {workers:?}");
    assert!(outcomes.len() > 6, "{outcomes:?}");
}

#[test]
fn what_is_out_of_range_is_refused_and_zero_is_a_number() {
    let server = Server::start([]);
    for query in [
        "/api/slow?ms=30001",
        "/api/slow?ms=-1",
        "/api/slow?ms=1.5",
        "/api/slow?seed=18446744073709551616",
        "/api/very-slow?ms=x",
        "/api/cpu?n=0",
        "/api/cpu?n=500001",
        "/simulate/latency?ms=99999",
        "/simulate/error?p=1.1",
        "/simulate/error?p=-0.1",
        "/simulate/error?p=NaN",
        "/simulate/heavy-task?ms=30001",
        "/items/x",
        "/cache/a%20b",
    ] {
        let answer = server.get(query);
        assert_eq!(
            answer.expect_status(422).json()["detail"][0]["loc"].as_array().unwrap().len(),
            2
        );
    }
    assert_eq!(
        server.get("/simulate/latency?ms=0").expect_status(200).text(),
        r#"{"slept_for":0.0}"#
    );
    assert_eq!(server.get("/api/slow?ms=0").expect_status(200).text(), r#"{"delay":0.0}"#);
    server.get("/simulate/error?p=0").expect_status(200);
    let failed = server.get("/simulate/error?p=1");
    assert_eq!(failed.expect_status(500).text(), r#"{"detail":"Simulated Backend Failure"}"#);
    let computed = server.get("/api/cpu?n=100").expect_status(200).text().to_owned();
    assert_eq!(computed, r#"{"n":100,"last_digits":"9261915075"}"#);
    let panicked = server.get("/api/exception");
    assert_eq!(panicked.expect_status(500).text(), r#"{"detail":"Internal Server Error"}"#);
}

#[test]
fn background_work_is_waited_for_by_a_drain() {
    let server = Server::start([]);
    let answer = server.get("/simulate/heavy-task?ms=1500");
    assert_eq!(answer.expect_status(200).text(), r#"{"message":"Background task queued"}"#);
    let id = answer.request_id().to_owned();
    assert_eq!(server.stop(), 0);
    let done = server.lines_of("background task done");
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].get("request_id"), id);
}

#[test]
fn a_value_of_the_cache_is_the_same_on_every_worker_with_and_without_redis() {
    each(|database| {
        for redis in [None, Redis::start()] {
            let mut setup = database.setup();
            if let Some(redis) = &redis {
                setup = setup.env("REDIS_URL", &redis.url());
            }
            let server = setup.start();
            let key = if redis.is_some() { "/cache/with" } else { "/cache/without" };
            let mut reads = Vec::new();
            for _ in 0..9 {
                let read = server.get(key).expect_status(200).json();
                reads.push((read["value"].to_string(), read["hit"] == true));
            }
            // A Redis that a busy machine keeps waiting is done without, and that is counted.
            let asked = if redis.is_some() { 9 } else { 0 };
            let count = |metrics: &Metrics, result| {
                metrics.value("cache_requests_total", &[("result", result)])
            };
            server.until("they are counted", |metrics| {
                ["hit", "miss", "error"].map(|result| count(metrics, result)).iter().sum::<u64>()
                    == asked
            });
            let most = 1 + usize::try_from(count(&server.metrics(), "error")).unwrap();
            let misses = reads.iter().filter(|(_, hit)| !hit).count();
            let values: BTreeSet<_> = reads.iter().map(|(value, _)| value).collect();
            assert!(!reads[0].1 && misses <= most && values.len() <= most, "{reads:?}");
            let cache = if redis.is_some() { "redis" } else { "none" };
            server
                .until_true("the cache is there", || server.get("/ready").json()["cache"] == cache);
        }
        // A minute later it is another one.
        database.query("UPDATE simulate_cache SET expires_at = 1 RETURNING key");
        let server = database.setup().start();
        assert_eq!(server.get("/cache/without").expect_status(200).json()["hit"], false);
    });
}

//! Databases and caches that are away, frozen or cut off: refused in time, back in time, and no worker is lost by it.

use serde_json::json;

use crate::app::api::{at_once, post};
use crate::app::database::Database;
use crate::app::postgres::Cluster;
use crate::client::{self, Answer};
use crate::server::Server;

/// A cluster that one test may harm.
fn cluster<'a>(settings: impl IntoIterator<Item = &'a str>) -> Option<&'static Cluster> {
    // It ends with the tests.
    Some(Box::leak(Box::new(Cluster::start(settings)?)))
}

/// Reads and writes are refused with a hint when to come back.
fn assert_unavailable(server: &Server) {
    let address = server.address();
    for answer in [
        client::get(&address, "/api/items/1"),
        client::get(&address, "/items/1"),
        post(&address, "/api/orders", &json!({ "item_id": 7 })),
        post(&address, "/checkout", &json!({ "item": "monitor", "quantity": 1 })),
    ] {
        assert_eq!(answer.expect_status(503).text(), r#"{"detail":"Service unavailable, retry"}"#);
        assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
    }
    let tags = client::get(&address, "/api/tags");
    let told = json!({ "server": ["is unavailable, retry"] });
    assert_eq!(tags.expect_status(503).json()["errors"], told);
    assert_eq!(
        client::get(&address, "/api/health").expect_status(503).text(),
        r#"{"status":"unavailable"}"#
    );
    assert_eq!(
        client::get(&address, "/ready").expect_status(503).json()["database"],
        "unreachable"
    );
    client::get(&address, "/health").expect_status(200);
}

/// Waits until every worker has its database again, for writes too: each tries twice a second by itself.
fn until_back(server: &Server) {
    let address = server.address();
    server.until_true("the database answers again", || {
        let address = address.clone();
        let order = move |_| post(&address, "/api/orders", &json!({ "item_id": 7 }));
        at_once(8, order).iter().all(|answer| answer.status == 201)
    });
}

#[test]
fn an_outage_of_the_database_costs_answers_and_no_worker() {
    let Some(cluster) = cluster([]) else { return };
    let database = Database::on(cluster);
    let Database::Postgres { name, .. } = &database else { return };
    let server = database.setup().start();
    let workers = server.until_whole(2).workers;
    until_back(&server);
    // Stopped in the middle.
    cluster.stop();
    assert_unavailable(&server);
    cluster.start_again();
    until_back(&server);
    // Frozen: nobody answers, and nobody refuses.
    cluster.freeze();
    assert_unavailable(&server);
    cluster.thaw();
    until_back(&server);
    // Every connection cut, again and again: a read is repeated until it has a fresh one.
    for _ in 0..10 {
        assert!(cluster.break_connections(name) > 0);
        for _ in 0..8 {
            server.get("/api/items/1").expect_status(200);
        }
        until_back(&server);
    }
    assert_eq!(server.pids().workers, workers, "no worker was restarted");
    assert_eq!(server.metrics().sum("saola_worker_restarts_total"), 0);
    server.until("no connection is lost", |metrics| {
        metrics.value("db_client_connection_count", &[("state", "used")]) == 0
    });
}

#[test]
fn workers_that_boot_without_their_database_wait_for_it() {
    let Some(cluster) = cluster([]) else { return };
    let database = Database::on(cluster);
    cluster.stop();
    let server = database.setup().start();
    let workers = server.until_whole(2).workers;
    assert_unavailable(&server);
    cluster.start_again();
    until_back(&server);
    assert_eq!(server.pids().workers, workers);
    assert_eq!(database.number("SELECT count(*) FROM app_migrations"), 1, "migrated once");
}

#[test]
fn a_pool_without_a_free_connection_refuses_and_recovers() {
    let Some(cluster) = cluster([]) else { return };
    let database = Database::on(cluster);
    let server = database.setup().env("DATABASE_POOL_SIZE", "1").args(["--workers", "1"]).start();
    until_back(&server);
    let Database::Postgres { name, .. } = &database else { return };
    // Somebody else holds the table for two seconds: whoever orders holds the only connection for as long.
    let name = name.clone();
    let holder = crate::output::thread(move || {
        cluster.query(&name, "BEGIN; LOCK TABLE items_orders; SELECT pg_sleep(2.5); COMMIT");
    });
    server.until_true("the table is held", || {
        let sql = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted";
        cluster.query("postgres", sql) != "0"
    });
    let address = server.address();
    let answers: Vec<Answer> =
        at_once(6, move |_| post(&address, "/api/orders", &json!({ "item_id": 7 })));
    let refused = answers.iter().filter(|answer| answer.status == 503).count();
    assert!(refused >= 4, "{answers:?}");
    assert!(answers.iter().all(|answer| [201, 503].contains(&answer.status)), "{answers:?}");
    holder.join().unwrap();
    until_back(&server);
    server.until("the waits are counted", |metrics| {
        metrics.sum("db_client_connection_timeouts_total") >= 4
            && metrics.sum("db_client_connection_pending_requests") == 0
    });
}

//! Checkouts while everything around them fails: every acknowledged order is there once, and nothing is sold twice or lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;

use crate::app::api::try_post;
use crate::app::database::Database;
use crate::app::postgres::Cluster;
use crate::app::proxy::{Mode, Proxy};
use crate::app::shop::{assert_settled, buy, settle};
use crate::output::thread;
use crate::server::Server;
use crate::supervision_load::is_long;
use crate::wait;

/// Buyers who repeat each order, with its key, until it is acknowledged.
struct Buyers {
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<i64>>>,
}

impl Buyers {
    fn start(address: &str, count: usize) -> Self {
        let (is_over, acknowledged) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..count).map(|buyer| {
            let (address, is_over, acknowledged) =
                (address.to_owned(), Arc::clone(&is_over), Arc::clone(&acknowledged));
            thread(move || {
                let mut orders = Vec::new();
                while !is_over.load(Relaxed) {
                    let key = format!("buyer-{buyer}-{}", orders.len());
                    orders.push(acknowledged_order(&address, &key));
                    acknowledged.fetch_add(1, Relaxed);
                }
                orders
            })
        });
        Self { threads: threads.collect(), is_over, acknowledged }
    }

    /// Waits until so many more orders are acknowledged.
    fn until_more(&self, count: u64) {
        let goal = self.acknowledged.load(Relaxed) + count;
        wait::until_within(wait::DEADLINE * 9, "orders go on", || {
            self.acknowledged.load(Relaxed) >= goal
        });
    }

    /// The numbers of all acknowledged orders.
    fn stop(self) -> Vec<i64> {
        self.is_over.store(true, Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

fn acknowledged_order(address: &str, key: &str) -> i64 {
    let mut order = None;
    wait::until_within(wait::DEADLINE * 9, "the order is acknowledged", || {
        let answer = try_post(address, "/checkout", &buy("headphones", 1), Some(key));
        if let Ok(answer) = answer {
            match answer.status {
                200 => order = answer.json()["order_id"].as_i64(),
                // The first try is open, or failed: it may be repeated.
                409 | 500 | 502 | 503 => (),
                other => panic!("{other}: {}", answer.text()),
            }
        }
        order.is_some()
    });
    order.unwrap()
}

/// Everything that was acknowledged, and nothing else, was sold.
fn assert_books(database: &Database, acknowledged: &[i64]) {
    assert_settled(database);
    let distinct: BTreeSet<_> = acknowledged.iter().collect();
    assert_eq!(distinct.len(), acknowledged.len(), "an order was acknowledged twice");
    let completed =
        database.query("SELECT id FROM shop_orders WHERE status = 'COMPLETED' ORDER BY id");
    let completed: Vec<i64> = completed.lines().map(|id| id.parse().unwrap()).collect();
    assert_eq!(completed, distinct.into_iter().copied().collect::<Vec<_>>());
    assert_eq!(database.number("SELECT count(*) FROM app_idempotency WHERE status IS NULL"), 0);
}

/// How often each fault is tried, and how many orders are placed in between.
fn rounds() -> (u64, u64) {
    if is_long() { (12, 200) } else { (2, 10) }
}

fn survive(database: &Database, more_faults: impl Fn(&Server)) {
    let proxy = Proxy::start();
    let server = database.setup().env("INVENTORY_URL", &proxy.url()).start();
    proxy.lead_to(&server.address());
    let buyers = Buyers::start(&server.address(), if is_long() { 64 } else { 4 });
    let (rounds, orders) = rounds();
    for generation in 2..rounds + 2 {
        for slot in server.until_whole(2).workers.into_keys() {
            buyers.until_more(orders);
            server.kill(slot);
            server.until_whole(2);
        }
        for mode in [Mode::CloseAfter, Mode::Close] {
            proxy.set(mode);
            wait::pause(std::time::Duration::from_millis(100));
            proxy.set(Mode::Pass);
            // What could not be given back waits for the sweep.
            settle(database);
            buyers.until_more(orders);
        }
        server.signal(Signal::SIGHUP);
        server.until("the new generation serves", |metrics| {
            metrics.sum("saola_generation") == generation
        });
        more_faults(&server);
        settle(database);
    }
    for _ in 0..if is_long() { 20 } else { 1 } {
        buyers.until_more(orders);
    }
    let acknowledged = buyers.stop();
    assert!(!is_long() || acknowledged.len() >= 10_000, "{} orders", acknowledged.len());
    settle(database);
    assert_books(database, &acknowledged);
}

#[test]
fn every_acknowledged_order_is_there_once_on_sqlite() {
    survive(&Database::sqlite(), |_| ());
}

#[test]
fn every_acknowledged_order_is_there_once_on_a_database_that_restarts() {
    let Some(cluster) = Cluster::start([]) else { return };
    // It ends with the tests.
    let cluster: &'static Cluster = Box::leak(Box::new(cluster));
    let database = Database::on(cluster);
    let Database::Postgres { name, .. } = &database else { return };
    survive(&database, |_| {
        cluster.break_connections(name);
        cluster.stop();
        cluster.start_again();
    });
}

//! The harness itself: services end with the tests, and stop and go on as they are told.

use std::path::Path;

use nix::sys::signal::{Signal, kill};

use crate::app::database::{Database, each};
use crate::app::kept::Kept;
use crate::app::postgres::Cluster;
use crate::app::redis::Redis;
use crate::wait;

#[test]
fn every_test_gets_an_empty_database_of_its_own() {
    each(|database| {
        if let Database::Postgres { cluster, name, .. } = database {
            cluster.query(name, "CREATE TABLE stored (id BIGINT)");
            let other = cluster.database();
            assert!(cluster.try_query(&other.0, "SELECT * FROM stored").is_err());
            assert_eq!(cluster.query(name, "SELECT count(*) FROM stored"), "0");
        }
        let server = database.setup().start();
        server.get("/").expect_status(200);
    });
}

#[test]
fn a_cluster_keeps_its_rows_over_a_restart_and_ends_with_its_folder() {
    let Some(cluster) = Cluster::start([]) else { return };
    cluster.query("postgres", "CREATE TABLE kept AS SELECT 7 AS number");
    cluster.stop();
    cluster.try_query("postgres", "SELECT 1").expect_err("it is stopped");
    cluster.start_again();
    assert_eq!(cluster.query("postgres", "SELECT number FROM kept"), "7");
    cluster.freeze();
    cluster.thaw();
    let url = cluster.url("postgres");
    assert!(url.starts_with("postgres://saola@127.0.0.1:"));
    // Of nobody else: the connection that asks is left.
    assert_eq!(cluster.break_connections("postgres"), 0);
    let (pid, folder) = (cluster.pid(), cluster.folder().to_owned());
    cluster.freeze();
    drop(cluster);
    assert!(!is_alive(pid) && !folder.exists(), "a frozen one ends too");
}

#[test]
fn a_redis_stops_and_goes_on() {
    let Some(redis) = Redis::start() else { return };
    assert_eq!(redis.ask("SET key value").unwrap(), "+OK");
    redis.freeze();
    redis.thaw();
    assert_eq!(redis.ask("EXISTS key").unwrap(), ":1");
    redis.stop();
    redis.ask("PING").expect_err("it is stopped");
    redis.start_again();
    assert_eq!(redis.ask("EXISTS key").unwrap(), ":0", "nothing of it is kept");
    assert!(redis.url().starts_with("redis://127.0.0.1:"));
}

/// The service is kept by a shell whose pipe a killed process held.
#[test]
fn a_service_ends_when_the_tests_are_killed() {
    let folder = tempfile::TempDir::new().unwrap();
    let kept = Kept::start(["sleep", "1000"], folder.path(), Signal::SIGTERM);
    let pid = kept.pid;
    assert!(is_alive(pid));
    // What the kernel does to the descriptors of a killed process.
    kept.abandon();
    wait::until("the service is gone", || !is_alive(pid));
    wait::until("its folder too", || !folder.path().exists());
}

fn is_alive(pid: nix::unistd::Pid) -> bool {
    Path::new(&format!("/proc/{pid}")).exists() && kill(pid, None).is_ok()
}

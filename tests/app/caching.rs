//! Redis as a cache: it is asked, it is never believed for longer than it may be, and it is missed by nobody.

use serde_json::{Value, json};

use crate::app::database::each;
use crate::app::person::Person;
use crate::app::redis::Redis;
use crate::server::Server;
use crate::setup::Setup;

/// As anybody sees them.
fn articles(server: &Server) -> Value {
    server.get("/api/articles").expect_status(200).json()
}

fn tags(server: &Server) -> Value {
    server.get("/api/tags").expect_status(200).json()["tags"].clone()
}

fn hits(server: &Server) -> u64 {
    server.metrics().value("cache_requests_total", &[("result", "hit")])
}

#[test]
fn a_writer_reads_its_own_write_on_every_worker() {
    let Some(redis) = Redis::start() else { return };
    each(|database| {
        redis.ask("FLUSHALL").unwrap();
        let server = database.setup().env("REDIS_URL", &redis.url()).start();
        let writer = Person::of_conduit(&server, "writer");
        // Everything below is answered by the cache, if the one before has not made it old.
        let seen = || (0..4).map(|_| articles(&server)).collect::<Vec<_>>();
        let all = |is_right: &dyn Fn(&Value) -> bool| {
            let seen = seen();
            assert!(seen.iter().all(is_right), "{seen:?}");
        };
        all(&|list| list["articlesCount"] == 0);
        let new = json!({ "article": { "title": "One", "description": "d", "body": "b", "tagList": ["t"] } });
        let made = writer.post("/api/articles", &new).expect_status(201).json();
        all(&|list| list["articlesCount"] == 1);
        assert_eq!(tags(&server), json!(["t"]));
        let path = format!("/api/articles/{}", made["article"]["slug"].as_str().unwrap());
        writer.put(&path, &json!({ "article": { "tagList": ["u"] } })).expect_status(200);
        all(&|list| list["articles"][0]["tagList"] == json!(["u"]));
        assert_eq!(tags(&server), json!(["u"]));
        writer.post(&format!("{path}/favorite"), &json!({})).expect_status(200);
        all(&|list| list["articles"][0]["favoritesCount"] == 1);
        writer.delete(&format!("{path}/favorite")).expect_status(200);
        all(&|list| list["articles"][0]["favoritesCount"] == 0);
        writer.put("/api/user", &json!({ "user": { "bio": "new" } })).expect_status(200);
        all(&|list| list["articles"][0]["author"]["bio"] == "new");
        writer.delete(&path).expect_status(204);
        all(&|list| list["articlesCount"] == 0);
        assert_eq!(tags(&server), json!([]));
        server.until_true("most were answered by Redis", || hits(&server) > 12);
        // A list for one reader is for nobody else, and a filter is a list of its own.
        let before = hits(&server);
        writer.get("/api/articles").expect_status(200);
        server.get("/api/articles?tag=t").expect_status(200);
        server.get("/api/articles?author=t").expect_status(200);
        assert_eq!(hits(&server), before);
    });
}

#[test]
fn a_redis_that_is_away_frozen_or_empty_costs_no_request() {
    let Some(redis) = Redis::start() else { return };
    let server = Setup::new().env("REDIS_URL", &redis.url()).start();
    let writer = Person::of_conduit(&server, "writer");
    let ask = |cache: &str| {
        for path in ["/cache/k1", "/api/tags", "/api/articles", "/health"] {
            for _ in 0..6 {
                server.get(path).expect_status(200);
            }
        }
        writer.put("/api/user", &json!({ "user": { "bio": cache } })).expect_status(200);
        server.until_true("it is told", || {
            server.get("/ready").expect_status(200).json()["cache"] == cache
        });
    };
    ask("redis");
    redis.stop();
    ask("redis unavailable");
    redis.start_again();
    ask("redis");
    redis.freeze();
    ask("redis unavailable");
    redis.thaw();
    ask("redis");
    assert_eq!(server.metrics().sum("saola_worker_restarts_total"), 0);
}

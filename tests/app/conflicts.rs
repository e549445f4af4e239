//! Two transactions in each other's way.

use serde_json::json;

use crate::app::database::Database;
use crate::app::person::Person;
use crate::app::postgres;
use crate::wait;

#[test]
fn a_transaction_that_loses_a_deadlock_is_done_again() {
    // SQLite has one writer at a time, and no deadlocks.
    let Some(cluster) = postgres::shared() else { return };
    let database = Database::on(cluster);
    let server = database.setup().args(["--log-level", "debug"]).start();
    let ann = Person::of_conduit(&server, "ann");
    let article =
        json!({"article": {"title": "t", "description": "d", "body": "b", "tagList": ["a"]}});
    let written = ann.post("/api/articles", &article).expect_status(201).json();
    let path = format!("/api/articles/{}", written["article"]["slug"].as_str().unwrap());
    // Somebody holds the tag and then wants the article; the application takes them the other way round.
    let rival = "BEGIN; SELECT tag FROM conduit_article_tags FOR UPDATE; SELECT pg_sleep(0.5); \
                 UPDATE conduit_articles SET body = 'rival'; COMMIT";
    std::thread::scope(|scope| {
        scope.spawn(|| database.query(rival));
        let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
                      AND datname = current_database()";
        wait::until("the rival holds the tag", || database.number(sleeps) == 1);
        let change = json!({"article": {"title": "changed", "tagList": ["b"]}});
        let changed = ann.put(&path, &change).expect_status(200).json();
        assert_eq!(changed["article"]["tagList"], json!(["b"]));
    });
    server.until_line("the conflict is told", |line| line.is("database transaction in conflict"));
    let stored = "SELECT title, body, tag_list FROM conduit_articles";
    assert_eq!(database.query(stored), r#"changed|rival|["b"]"#);
    assert_eq!(database.query("SELECT tag FROM conduit_article_tags"), "b");
}

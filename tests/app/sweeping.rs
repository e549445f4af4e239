//! What requests leave behind is tidied up, 500 rows at a time, and what is still of use stays.

use crate::app::database::each;

#[test]
fn what_has_expired_is_deleted_and_the_rest_is_kept() {
    each(|database| {
        let server = database.setup().start();
        server.until_true("the tables are there", || server.get("/ready").status == 200);
        let numbers = "WITH RECURSIVE numbers (n) AS (
                SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n < 600
            )";
        // One of each is from the far future.
        let time = "CASE WHEN n = 7 THEN 4000000000000000 ELSE n END";
        for (table, columns, values) in [
            (
                "app_idempotency",
                "scope, key, request_hash, status, body, created_at",
                "'checkout', CAST(n AS TEXT), 'x', 200, '{}'",
            ),
            ("simulate_cache", "key, value, expires_at", "CAST(n AS TEXT), 'x'"),
            ("app_auth_failures", "key, failures, window_start", "CAST(n AS TEXT), 1"),
        ] {
            database.query(&format!(
                "{numbers} INSERT INTO {table} ({columns}) SELECT {values}, {time} FROM numbers RETURNING key"
            ));
        }
        for table in ["app_idempotency", "simulate_cache", "app_auth_failures"] {
            let rows = format!("SELECT count(*) FROM {table}");
            server.until_true("the old ones are gone", || database.number(&rows) == 1);
            assert_eq!(database.query(&format!("SELECT key FROM {table}")), "7");
        }
    });
}

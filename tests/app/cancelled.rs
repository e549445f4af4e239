//! Clients that leave in the middle: what was begun is done in full or not at all, and no connection is lost.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use crate::app::api::{call, try_post};
use crate::app::database::each;
use crate::app::shop::{assert_settled, buy};
use crate::client;
use crate::server::Server;
use crate::wait;

/// Sends a request over HTTP/2 and leaves so long after: over HTTP/1.1 a client that is gone cannot be told from one that has
/// only ended its side.
fn leave(address: &str, path: &str, body: &Value, key: &str, after: Duration) {
    let mut request = call(&Method::POST, &format!("http://{address}{path}"), body);
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    client::send_and_leave_http2(address, request, || wait::pause(after));
}

/// Some clients left before their answer.
fn assert_some_left(server: &Server) {
    server.until_true("some clients left in the middle", || {
        let lines = server.lines_of("request");
        lines.iter().filter(|line| line.get("outcome") == "aborted").count() > 0
    });
}

/// Instants from before the first statement to behind the last.
fn instants() -> impl Iterator<Item = Duration> {
    (0..60).map(|number| Duration::from_micros(number * 100))
}

#[test]
fn an_order_is_there_with_its_key_or_not_at_all() {
    each(|database| {
        let server = database.setup().start();
        let body = json!({ "item_id": 7 });
        for (number, after) in instants().enumerate() {
            leave(&server.address(), "/api/orders", &body, &format!("key-{number}"), after);
        }
        server.until("no connection to the database is in use", |metrics| {
            metrics.value("db_client_connection_count", &[("state", "used")]) == 0
                && metrics.sum("http_server_active_requests") == 0
        });
        assert_some_left(&server);
        let orders = database.number("SELECT count(*) FROM items_orders");
        let keys = database.number("SELECT count(*) FROM app_idempotency WHERE status = 201");
        let open = database.number("SELECT count(*) FROM app_idempotency WHERE status IS NULL");
        assert_eq!((orders, open), (keys, 0));
        // Each can be sent again, and is there once.
        for number in 0..60 {
            let key = format!("key-{number}");
            let answer =
                try_post(&server.address(), "/api/orders", &json!({ "item_id": 7 }), Some(&key));
            assert_eq!(answer.unwrap().status, 201);
        }
        assert_eq!(database.number("SELECT count(*) FROM items_orders"), 60);
    });
}

#[test]
fn a_checkout_goes_on_without_its_client() {
    each(|database| {
        let server = database.setup().start();
        for (number, after) in instants().enumerate() {
            let body = buy("monitor", 1);
            leave(&server.address(), "/checkout", &body, &format!("key-{number}"), after);
        }
        server.until("no connection to the database is in use", |metrics| {
            metrics.value("db_client_connection_count", &[("state", "used")]) == 0
                && metrics.sum("http_server_active_requests") == 0
        });
        assert_some_left(&server);
        server.until_true("every order that was begun is ended", || {
            database.number("SELECT count(*) FROM shop_orders WHERE status = 'PENDING'") == 0
        });
        assert_settled(database);
        assert_eq!(database.number("SELECT count(*) FROM app_idempotency WHERE status IS NULL"), 0);
        for number in 0..60 {
            let key = format!("key-{number}");
            let answer = try_post(&server.address(), "/checkout", &buy("monitor", 1), Some(&key));
            assert_eq!(answer.unwrap().status, 200);
        }
        assert_eq!(
            database.number("SELECT count(*) FROM shop_orders WHERE status = 'COMPLETED'"),
            60
        );
    });
}

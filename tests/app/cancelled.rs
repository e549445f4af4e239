//! Clients that leave in the middle: what was begun is done in full or not at all, and no connection is lost.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::app::api::try_post;
use crate::app::database::each;
use crate::app::shop::{assert_settled, buy};
use crate::wait;

/// Sends a request and leaves so long after.
fn leave(address: &str, path: &str, body: &str, key: &str, after: Duration) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nidempotency-key: {key}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    wait::pause(after);
}

/// Instants from before the first statement to behind the last.
fn instants() -> impl Iterator<Item = Duration> {
    (0..60).map(|number| Duration::from_micros(number * 250))
}

#[test]
fn an_order_is_there_with_its_key_or_not_at_all() {
    each(|database| {
        let server = database.setup().start();
        let body = json!({ "item_id": 7 }).to_string();
        for (number, after) in instants().enumerate() {
            leave(&server.address(), "/api/orders", &body, &format!("key-{number}"), after);
        }
        server.until("no connection to the database is in use", |metrics| {
            metrics.value("db_client_connection_count", &[("state", "used")]) == 0
                && metrics.sum("http_server_active_requests") == 0
        });
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
            let body = buy("monitor", 1).to_string();
            leave(&server.address(), "/checkout", &body, &format!("key-{number}"), after);
        }
        server.until("no connection to the database is in use", |metrics| {
            metrics.value("db_client_connection_count", &[("state", "used")]) == 0
                && metrics.sum("http_server_active_requests") == 0
        });
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

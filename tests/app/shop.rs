//! Checkouts: what is in stock is sold once, and what fails gives it back.

use serde_json::{Value, json};

use crate::app::api::{at_once, is_wait, patiently, post, try_post};
use crate::app::database::{Database, each};
use crate::app::proxy::{Mode, Proxy};
use crate::client::Answer;
use crate::wait;

/// All pieces of the catalogue.
pub(crate) const PIECES: i64 = 5_000_025;

pub(crate) fn buy(item: &str, quantity: i64) -> Value {
    json!({ "item": item, "quantity": quantity })
}

/// Stock and what is sold add up, and no order is open.
pub(crate) fn assert_settled(database: &Database) {
    let in_stock = database.number("SELECT sum(quantity) FROM shop_inventory");
    let sold = database
        .number("SELECT COALESCE(sum(quantity), 0) FROM shop_orders WHERE status = 'COMPLETED'");
    assert_eq!(in_stock + sold, PIECES, "{in_stock} in stock, {sold} sold");
    assert_eq!(database.number("SELECT count(*) FROM shop_orders WHERE status = 'PENDING'"), 0);
}

/// Lets time pass for what is open now, and waits until the sweep has seen to it.
pub(crate) fn settle(database: &Database) {
    let open = database.query("SELECT id FROM shop_orders WHERE status = 'PENDING'");
    let open = format!("status = 'PENDING' AND id IN ({})", open.replace('\n', ","));
    if open.ends_with("()") {
        return;
    }
    // A worker that dies while it sees to an order has claimed it for 15 seconds.
    wait::until_within(wait::DEADLINE * 4, "no order of before is open", || {
        database.query(&format!(
            "UPDATE shop_orders SET created_at = created_at - 40000000
             WHERE claimed_until IS NULL AND {open} RETURNING id"
        ));
        database.number(&format!("SELECT count(*) FROM shop_orders WHERE {open}")) == 0
    });
}

fn status_of(database: &Database, order: i64) -> String {
    database.query(&format!("SELECT status FROM shop_orders WHERE id = {order}"))
}

#[test]
fn of_200_buyers_at_once_exactly_25_get_one_of_25_pieces() {
    each(|database| {
        let server = database.setup().start();
        let address = server.address();
        // An inventory that a busy machine kept waiting has sold nothing: who is told so asks again.
        let buy_one = move |_| patiently(|| post(&address, "/checkout", &buy("vinyl", 1))).status;
        let statuses = at_once(200, buy_one.clone());
        let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
        assert_eq!(count(200) + count(400), 200, "{statuses:?}");
        // A piece whose buyer was kept waiting too long comes back, and whoever asks then gets it.
        let mut sold = count(200);
        wait::until("all are sold", || {
            settle(database);
            sold += usize::from(buy_one(0) == 200);
            sold >= 25
        });
        assert_eq!((sold, buy_one(0)), (25, 400), "{statuses:?}");
        assert_eq!(database.number("SELECT quantity FROM shop_inventory WHERE item = 'vinyl'"), 0);
        assert_settled(database);
    });
}

#[test]
fn the_same_key_50_times_at_once_is_one_order() {
    each(|database| {
        let server = database.setup().start();
        let address = server.address();
        let ask = move |key, pieces| {
            try_post(&address, "/checkout", &buy("tablet", pieces), Some(key)).unwrap()
        };
        // A key has no blank in it.
        assert_eq!(ask("the key", 2).status, 422);
        let asking = ask.clone();
        let mut answers = at_once(50, move |_| asking("key-1", 2));
        // Where a busy machine kept the first one waiting, nothing is sold and its key is free again, at the latest when
        // its order is swept up.
        let is_sold = |answers: &[Answer]| answers.iter().any(|answer| answer.status == 200);
        wait::until("one is answered", || {
            if !is_sold(&answers) {
                settle(database);
                answers.push(ask("key-1", 2));
            }
            is_sold(&answers)
        });
        let first = answers.iter().find(|answer| answer.status == 200).expect("one is answered");
        for answer in &answers {
            match answer.status {
                200 => assert_eq!(answer.text(), first.text()),
                409 => assert_eq!(answer.header("retry-after"), "1"),
                status if is_wait(status) => (),
                other => panic!("{other}: {}", answer.text()),
            }
        }
        let is_original = |answer: &&Answer| {
            answer.status == 200 && answer.header("idempotent-replayed").is_empty()
        };
        // Who asked first may have been told to come back although the order was written down.
        let originals = answers.iter().filter(is_original).count();
        let has_waited = answers.iter().any(|answer| is_wait(answer.status));
        assert!(originals == 1 || originals == 0 && has_waited, "{originals}");
        let again = patiently(|| ask("key-1", 2));
        assert_eq!((again.status, again.text()), (200, first.text()));
        assert_eq!(again.header("idempotent-replayed"), "true");
        settle(database);
        let sold = "SELECT count(*) FROM shop_orders WHERE status = 'COMPLETED'";
        assert_eq!(database.number(sold), 1);
        let other = patiently(|| ask("key-1", 3));
        let told = json!({ "detail": "Idempotency-Key was used with a different request" });
        assert_eq!((other.status, other.json()), (422, told));
        // The metrics know one order, and replays add nothing.
        let revenue = 798 * u64::try_from(originals).unwrap();
        server
            .until("the revenue is there", |metrics| metrics.sum("order_revenue_total") == revenue);
        assert_settled(database);
    });
}

#[test]
fn an_order_of_items_with_a_key_is_placed_once_too() {
    each(|database| {
        let server = database.setup().start();
        let address = server.address();
        let answers = at_once(20, move |_| {
            let body = json!({ "item_id": 7, "quantity": 2 });
            try_post(&address, "/api/orders", &body, Some("order")).unwrap()
        });
        assert!(
            answers.iter().all(|answer| answer.status == 201 && answer.text() == answers[0].text())
        );
        assert_eq!(answers[0].json()["total_price"], 14.0);
        assert_eq!(database.number("SELECT count(*) FROM items_orders"), 1);
        // A refusal is kept too; a body that cannot be read takes no key.
        let send =
            |body: Value| try_post(&server.address(), "/api/orders", &body, Some("bad")).unwrap();
        assert_eq!(send(json!([])).status, 422);
        let refused = send(json!({ "item_id": 500 }));
        assert_eq!((refused.status, refused.text()), (404, r#"{"detail":"Item not found"}"#));
        assert_eq!(send(json!({ "item_id": 500 })).header("idempotent-replayed"), "true");
        // After a day it is forgotten.
        database.query(
            "UPDATE app_idempotency SET created_at = created_at - 86400000000 RETURNING key",
        );
        assert_eq!(send(json!({ "item_id": 500 })).header("idempotent-replayed"), "");
    });
}

#[test]
fn an_inventory_that_loses_its_answer_or_gives_none_sells_nothing() {
    each(|database| {
        let proxy = Proxy::start();
        let server = database.setup().env("INVENTORY_URL", &proxy.url()).start();
        let address = server.address();
        proxy.lead_to(&address);
        let send =
            |key: &str| try_post(&address, "/checkout", &buy("monitor", 4), Some(key)).unwrap();
        for (key, mode) in [("a", Mode::CloseAfter), ("b", Mode::Hang)] {
            proxy.set(mode);
            let failed = send(key);
            let told = r#"{"detail":"Inventory service network error"}"#;
            assert_eq!((failed.status, failed.text()), (502, told), "{mode:?}");
            assert_settled(database);
            // Its key is free again.
            proxy.set(Mode::Pass);
            assert_eq!(send(key).status, 200, "{mode:?}");
            assert_settled(database);
        }
        server.until("the failures are counted", |metrics| {
            metrics.sum("order_checkout_errors_total") == 2
        });
    });
}

#[test]
fn what_could_not_be_given_back_is_swept_up_later() {
    each(|database| {
        let proxy = Proxy::start();
        let server = database.setup().env("INVENTORY_URL", &proxy.url()).start();
        let address = server.address();
        proxy.lead_to(&address);
        let send = || try_post(&address, "/checkout", &buy("laptop", 1), Some("key")).unwrap();
        proxy.set(Mode::Close);
        assert_eq!(send().status, 502);
        assert_eq!(database.query("SELECT status FROM shop_orders"), "PENDING");
        // Nobody knows yet what became of it.
        assert_eq!(send().status, 409);
        proxy.set(Mode::Pass);
        settle(database);
        let order = database.number("SELECT id FROM shop_orders");
        assert_eq!(status_of(database, order), "FAILED");
        assert_settled(database);
        // A deduction that was still on its way comes too late.
        let late = json!({ "item": "laptop", "quantity": 1, "order_id": order });
        let refused = post(&address, "/inventory/deduct", &late);
        assert_eq!(
            (refused.status, refused.json()),
            (409, json!({ "detail": "Deduction was released" }))
        );
        wait::until("the key is free", || send().status == 200);
        assert_settled(database);
    });
}

#[test]
fn the_stock_answers_every_case_as_it_was_told_the_first_time() {
    each(|database| {
        let server = database.setup().start();
        let address = server.address();
        let ask = |path: &str, body: Value| {
            let answer = post(&address, path, &body);
            (answer.status, answer.json())
        };
        let deduct = |order: i64| {
            ask("/inventory/deduct", json!({ "item": "vinyl", "quantity": 3, "order_id": order }))
        };
        let release = |order: i64| {
            ask("/inventory/release", json!({ "order_id": order })).1["status"].clone()
        };
        let success = |left: i64| (200, json!({ "status": "SUCCESS", "remaining_stock": left }));
        assert_eq!((deduct(-1), deduct(-2), deduct(-1)), (success(22), success(19), success(22)));
        assert_eq!(
            (release(-1), release(-1), release(-3)),
            ("RELEASED".into(), NOTHING.into(), NOTHING.into())
        );
        assert_eq!(deduct(-1).0, 409);
        assert_eq!(deduct(-3).0, 409, "released before it came");
        assert_eq!(deduct(-4), success(19));
        // At the same moment too.
        let at = address.clone();
        let answers = at_once(20, move |_| {
            post(
                &at,
                "/inventory/deduct",
                &json!({ "item": "vinyl", "quantity": 1, "order_id": -9 }),
            )
            .json()
        });
        assert!(answers.iter().all(|answer| *answer == success(18).1), "{answers:?}");
        assert_eq!(ask("/inventory/deduct", json!({ "item": "no such", "quantity": 1 })).0, 400);
        assert_eq!(ask("/inventory/deduct", json!({ "item": "vinyl", "quantity": 0 })).0, 422);
        assert_eq!(ask("/inventory/deduct", json!({ "item": "vinyl", "quantity": -1 })).0, 422);
        assert_eq!(database.number("SELECT quantity FROM shop_inventory WHERE item = 'vinyl'"), 18);
    });
}

#[test]
fn the_price_is_the_catalogue_s_and_bad_orders_are_refused() {
    each(|database| {
        let server = database.setup().env("SIMULATION", "off").start();
        let ask = |body: Value| {
            let answer = post(&server.address(), "/checkout", &body);
            (answer.status, answer.json())
        };
        let (status, receipt) = ask(json!({ "item": "laptop", "quantity": 3, "price": 0.01 }));
        assert_eq!(status, 200);
        assert_eq!(
            (&receipt["unit_price"], &receipt["total_price"]),
            (&json!(1_200.0), &json!(3_600.0))
        );
        let told = json!({ "detail": "Inventory deduction rejected: Insufficient stock" });
        assert_eq!(ask(buy("vinyl", 26)), (400, told.clone()));
        assert_eq!(ask(buy("no such thing", 1)), (400, told));
        for bad in [
            json!({}),
            buy("", 1),
            buy("vinyl", 0),
            buy("vinyl", 1_001),
            json!({ "item": "x".repeat(65), "quantity": 1 }),
            json!({ "item": "vinyl", "quantity": 1.5 }),
            json!({ "item": "vinyl", "quantity": 1, "price": -1 }),
            json!({ "item": "vinyl\u{0}", "quantity": 1 }),
        ] {
            assert_eq!(ask(bad.clone()).0, 422, "{bad}");
        }
        // What clients invent is one series.
        server.until("the label is closed", |metrics| {
            metrics.value("order_checkouts_total", &[("item", "other")]) == 1
        });
        assert_settled(database);
    });
}

#[test]
fn without_a_tcp_address_there_is_no_inventory() {
    let database = Database::sqlite();
    let setup = database.setup();
    let socket = format!("unix:{}", setup.folder().join("socket").display());
    let server = setup.args(["--bind", &socket]).start();
    let answer = post(&socket, "/checkout", &buy("vinyl", 1));
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    server.until_line("it is told", |line| line.get("msg").starts_with("no inventory"));
}

const NOTHING: &str = "NOTHING_TO_RELEASE";

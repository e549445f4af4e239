//! One trace of a checkout: which spans, below which, and with what in them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use crate::app::api::try_post;
use crate::app::database::each;
use crate::app::shop::buy;
use crate::collector::{Collector, Got, Mode};

#[test]
fn a_checkout_is_one_trace_over_both_services() {
    each(|database| {
        let collector = Collector::start(Mode::Answer);
        let setup = database.setup().env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint());
        let server = setup.env("OTEL_BSP_SCHEDULE_DELAY", "50").start();
        let buy = |key| {
            try_post(&server.address(), "/checkout", &buy("headphones", 2), Some(key)).unwrap()
        };
        buy("once").expect_status(200);
        buy("once").expect_status(200);
        server.until("a replay adds no revenue", |metrics| {
            metrics.sum("order_checkouts_total") == 2 && metrics.sum("order_revenue_total") == 298
        });
        assert_eq!(server.stop(), 0);
        let all = collector.spans();
        let bought = all.iter().find(|got| got.get("order.status") == "COMPLETED").unwrap();
        let spans: Vec<_> = all.iter().filter(|got| got.trace_id() == bought.trace_id()).collect();
        let by_id: BTreeMap<_, _> = spans.iter().map(|got| (got.span_id(), *got)).collect();
        let above =
            |got: &Got| by_id.get(&got.parent_id()).map_or("", |above| above.span.name.as_str());
        let the = |name: &str| -> &Got {
            let mut found = spans.iter().filter(|got| got.span.name == name);
            let got = found.next().unwrap_or_else(|| panic!("no span {name}"));
            assert!(found.next().is_none(), "more than one {name}");
            got
        };
        for (name, parent) in [
            ("POST /checkout", ""),
            ("checkout_transaction", "POST /checkout"),
            ("db_create_order", "checkout_transaction"),
            ("INSERT shop_orders", "db_create_order"),
            ("http_call_inventory_service", "checkout_transaction"),
            ("POST /inventory/deduct", "http_call_inventory_service"),
            ("inventory_deduct_span", "POST /inventory/deduct"),
            ("UPDATE shop_inventory", "inventory_deduct_span"),
            ("UPDATE shop_orders", "checkout_transaction"),
        ] {
            assert_eq!(above(the(name)), parent, "{name}");
        }
        let url = format!("http://{}/inventory/deduct", server.address());
        assert_eq!(the("http_call_inventory_service").get("url.full"), url);
        for (name, key, value) in ATTRIBUTES {
            assert_eq!(the(name).get(key), value, "{name} {key}");
        }
        // The key is a secret of the client.
        assert!(!format!("{all:?}").contains("once"));
    });
}

#[test]
fn a_simulated_deadlock_is_rolled_back_and_shows_in_its_span() {
    each(|database| {
        let collector = Collector::start(Mode::Answer);
        let setup = database.setup().env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint());
        let server = setup.env("OTEL_BSP_SCHEDULE_DELAY", "50").start();
        let mut failed = 0;
        while failed == 0 {
            let answer = try_post(&server.address(), "/checkout", &buy("laptop", 2), None).unwrap();
            if answer.status == 500 {
                let told = "Inventory deduction rejected: Database deadlock conflict during write";
                assert_eq!(answer.json()["detail"], told);
                failed += 1;
            }
        }
        crate::app::shop::assert_settled(database);
        let slow = try_post(&server.address(), "/checkout", &buy("smartphone", 3), None).unwrap();
        slow.expect_status(200);
        assert_eq!(server.stop(), 0);
        let spans = collector.spans();
        let is_failed = |got: &&Got| {
            let status = got.span.status.clone().unwrap_or_default();
            got.span.name == "inventory_deduct_span" && status.code == i32::from(StatusCode::Error)
        };
        let failed = spans.iter().find(is_failed).expect("the span has failed");
        let server_span = spans.iter().find(|got| got.span_id() == failed.parent_id()).unwrap();
        let [event] = server_span.span.events.as_slice() else {
            panic!("{:?}", server_span.span.events)
        };
        assert_eq!(event.name, "exception");
        let slow = spans.iter().find(|got| got.get("inventory.item") == "smartphone").unwrap();
        let added: f64 = slow.get("simulation.latency_added").parse().unwrap();
        assert!((1.0..=2.5).contains(&added), "{added}");
    });
}

const ATTRIBUTES: [(&str, &str, &str); 11] = [
    ("checkout_transaction", "order.item", "headphones"),
    ("checkout_transaction", "order.quantity", "2"),
    ("checkout_transaction", "order.price_per_unit", "149"),
    ("checkout_transaction", "order.status", "COMPLETED"),
    ("checkout_transaction", "order.revenue", "298"),
    ("db_create_order", "db.order_id", "1"),
    ("http_call_inventory_service", "http.request.method", "POST"),
    ("http_call_inventory_service", "server.address", "127.0.0.1"),
    ("http_call_inventory_service", "http.response.status_code", "200"),
    ("inventory_deduct_span", "inventory.item", "headphones"),
    ("inventory_deduct_span", "inventory.deduction_quantity", "2"),
];

//! Endpoints, protocols and addresses.

use std::collections::BTreeSet;

use hyper::{Request, Version};

use crate::server::Server;
use crate::setup::Setup;
use crate::{client, wait};

#[test]
fn every_endpoint_answers_as_the_issue_says() {
    let server = Server::start([]);
    let expected = [
        ("/", 200, r#""status":"running""#),
        ("/health", 200, r#"{"status":"healthy"}"#),
        ("/ready", 200, r#""status":"ready""#),
        ("/metrics", 200, "# TYPE http_server_requests_started_total counter"),
        ("/api/slow?ms=1", 200, r#"{"delay":0.001}"#),
        ("/api/very-slow?ms=2", 200, r#"{"delay":0.002}"#),
        ("/api/cpu?n=100", 200, r#""last_digits":"9261915075""#),
        ("/api/bad-request", 400, "Invalid parameters"),
        ("/api/server-error", 500, "Internal server error"),
        ("/api/exception", 500, "Internal Server Error"),
        ("/api/items", 200, r#""total":100"#),
        ("/api/items/7", 200, r#"{"id":7,"name":"Item 7","price":7.0}"#),
        ("/api/items/500", 404, "Item not found"),
        ("/api/items/-1", 400, "item_id must be positive"),
        ("/api/items/x", 422, "must be an integer"),
        ("/api/orders/999999999", 404, "Order not found"),
        ("/no-such-page", 404, "Not Found"),
    ];
    for (path, status, body) in expected {
        let answer = server.get(path);
        assert!(answer.expect_status(status).text().contains(body), "{path}: {}", answer.text());
    }
}

#[test]
fn random_has_the_same_outcome_for_the_same_seed_on_every_worker() {
    let server = Server::start(["--workers", "3"]);
    let outcome = || {
        (1..=5)
            .map(|seed| server.get(&format!("/api/random?seed={seed}")).status)
            .collect::<Vec<_>>()
    };
    assert_eq!(outcome(), outcome());
}

#[test]
fn items_and_orders_can_be_made() {
    let server = Server::start(["--workers", "1"]);
    let post =
        |path: &str, body: &'static str| server.send(Request::post(path).body(body).unwrap());
    let item = post("/api/items", r#"{"name":"lamp","price":1.5}"#);
    let id = item.expect_status(201).json()["id"].clone();
    assert_eq!(server.get(&format!("/api/items/{id}")).expect_status(200).json()["name"], "lamp");
    let order = post("/api/orders", r#"{"item_id":7,"quantity":2}"#);
    assert_eq!(order.expect_status(201).json()["total_price"], 14.0);
    post("/api/items", r#"{"name":" "}"#).expect_status(422);
    post("/api/orders", "not json").expect_status(422);
    let removal = Request::delete(format!("/api/items/{id}")).body("").unwrap();
    server.send(removal).expect_status(204);
    server.get(&format!("/api/items/{id}")).expect_status(404);
}

#[test]
fn three_workers_serve() {
    let server = Server::start(["--workers", "3"]);
    assert_eq!(server.until_whole(3).workers.len(), 3);
    // The queue is shared: who wakes first serves. Some requests at once, again and again, reach everybody.
    let mut workers = BTreeSet::new();
    server.until_true("each worker has answered something", || {
        let address = server.address();
        let ask = |_| {
            let address = address.clone();
            crate::output::thread(move || {
                client::get(&address, "/api/slow?ms=5").expect_status(200).request_id().to_owned()
            })
        };
        let clients: Vec<_> = (0..6).map(ask).collect();
        for client in clients {
            let line = server.access_line(&client.join().unwrap());
            workers.insert(line.number("worker"));
        }
        workers.len() == 3
    });
    assert_eq!(workers, BTreeSet::from([0, 1, 2]));
}

#[test]
fn a_worker_says_its_own_pid_in_its_lines() {
    let server = Server::start([]);
    let pids = server.until_whole(2).workers;
    for _ in 0..10 {
        let line = server.access_line(server.get("/").request_id());
        let slot = crate::server::Slot(u32::try_from(line.number("worker")).unwrap());
        assert_eq!(line.get("pid"), pids[&slot].to_string());
    }
}

#[test]
fn http2_is_spoken_by_prior_knowledge() {
    let server = Server::start([]);
    let answers =
        client::get_http2(&server.address(), &["/", "/api/items/7", "/nope", "/api/exception"]);
    let statuses: Vec<_> = answers.iter().map(|answer| (answer.version, answer.status)).collect();
    assert_eq!(statuses, [200, 200, 404, 500].map(|status| (Version::HTTP_2, status)));
    for answer in &answers {
        assert_eq!(
            server.access_line(answer.request_id()).get("status"),
            answer.status.to_string()
        );
    }
}

#[test]
fn a_unix_socket_serves_and_is_removed() {
    let setup = Setup::new();
    let path = setup.folder().join("x.sock");
    let address = format!("unix:{}", path.display());
    let server = setup.args(["--bind", &address, "--log-level", "info,saola_worker=debug"]).start();
    let answer = client::get(&address, "/");
    server.access_line(answer.expect_status(200).request_id());
    let line = server.until_line("who asked", |line| line.is("connection accepted"));
    assert_eq!(line.get("peer"), "unix");
    assert_eq!(line.get("peer_uid"), nix::unistd::getuid().to_string());
    assert_eq!(line.get("peer_pid"), std::process::id().to_string());
    assert_eq!(server.stop(), 0);
    assert!(!path.exists());
}

#[test]
fn two_addresses_serve_alike() {
    let server = Server::start(["--bind", "127.0.0.1:0", "--bind", "[::1]:0"]);
    let addresses = server.addresses();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for address in addresses {
        client::get(&address, "/").expect_status(200);
    }
}

#[test]
fn the_admin_listener_can_be_off() {
    let server = Server::start(["--admin-bind", "off"]);
    server.get("/").expect_status(200);
    server.get("/metrics").expect_status(200);
    assert!(server.lines().iter().all(|line| line.get("role") != "admin"));
}

#[test]
fn the_admin_listener_answers_its_paths_and_no_other() {
    let server = Server::start([]);
    server.until_observed(2);
    assert_eq!(server.admin_get("/health").expect_status(200).text(), "ok\n");
    assert_eq!(server.admin_get("/ready").expect_status(200).text(), "ready\n");
    let status = server.admin_get("/status").expect_status(200).json();
    assert_eq!(
        (status["schema"].clone(), status["workers"].as_array().unwrap().len()),
        (1.into(), 2)
    );
    server.admin_get("/").expect_status(200);
    server.admin_get("/api/items").expect_status(404);
    let post = client::send(&server.admin(), Request::post("/metrics").body("").unwrap()).unwrap();
    assert_eq!(post.expect_status(405).header("allow"), "GET, HEAD");
    let foreign = Request::get("/metrics").header("host", "evil.example").body("").unwrap();
    client::send(&server.admin(), foreign).unwrap().expect_status(403);
    server.get("/status").expect_status(404);
    server.get("/debug/requests").expect_status(404);
}

#[test]
fn requests_in_flight_can_be_seen() {
    let server = Server::start([]);
    server.until_observed(2);
    let address = server.address();
    let slow =
        crate::output::thread(move || client::get(&address, "/api/slow?ms=700&secret=1").status);
    let seen = wait::until_some("the request is seen", || {
        let answer = server.admin_get("/debug/requests");
        answer.text().contains("/api/slow").then_some(answer)
    });
    assert!(!seen.text().contains("secret"), "{}", seen.text());
    server.until("it is active", |metrics| {
        metrics.value("http_server_active_requests", &[("http_route", "/api/slow")]) == 1
    });
    assert_eq!(slow.join().unwrap(), 200);
    server.until("it is active no more", |metrics| metrics.sum("http_server_active_requests") == 0);
}

#[test]
fn the_smallest_example_serves() {
    let server = Setup::of_example("hello").start();
    assert_eq!(server.get("/").expect_status(200).text(), "hello\n");
    assert_eq!(server.stop(), 0);
}

#[test]
fn the_echo_example_says_back_what_it_was_sent() {
    let server = Setup::of_example("echo").start();
    assert_eq!(server.get("/").expect_status(200).text(), "hello");
    let answer = server.send(Request::post("/echo").body("some bytes").unwrap());
    assert_eq!(answer.expect_status(200).text(), "len=10 body=some bytes");
    assert!(answer.header("content-type").starts_with("text/plain"));
}

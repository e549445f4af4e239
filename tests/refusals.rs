//! What the gate, the limits and the application refuse; and the ids that every response carries.

use hyper::Request;

use crate::client;
use crate::server::Server;
use crate::wire::Wire;

#[test]
fn every_response_has_a_request_id_which_its_line_has_too() {
    let server = Server::start([]);
    for (path, status) in
        [("/", 200), ("/nope", 404), ("/api/server-error", 500), ("/api/exception", 500)]
    {
        let answer = server.get(path);
        let line = server.access_line(answer.expect_status(status).request_id());
        assert_eq!((line.get("path"), line.get("status")), (path, status.to_string().as_str()));
    }
    let answer = server.send(Request::put("/api/items").body("").unwrap());
    assert_eq!(answer.expect_status(405).header("allow"), "GET,HEAD,POST");
    assert_eq!(server.access_line(answer.request_id()).get("status"), "405");
}

#[test]
fn a_refusal_by_the_gate_has_an_id_a_line_and_a_count() {
    let server = Server::start([]);
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(9_000));
    let heavy = format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "a".repeat(9_000));
    let refused: [(&str, u16, &str); 8] = [
        ("GET / HTTP/1.1\r\nno colon here\r\n\r\n", 400, "bad_request"),
        ("\u{1}\u{2}\u{3}\u{4} rubbish\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (
            "GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            400,
            "bad_request",
        ),
        ("GET / HTTP/1.1\r\nhost: x\r\nx y: 1\r\n\r\n", 400, "bad_request"),
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n", 413, "too_large"),
        (&long, 414, "uri_too_long"),
        (&heavy, 431, "headers_too_large"),
    ];
    for (bytes, status, reason) in refused {
        let before =
            server.metrics().value("http_server_requests_rejected_total", &[("reason", reason)]);
        let mut wire = Wire::connect(&server.address()).unwrap();
        wire.send(bytes);
        let reply = wire.answer().unwrap_or_else(|failure| panic!("{failure:?} for {bytes:?}"));
        assert_eq!(reply.status, status, "{bytes:?}");
        assert!(reply.closes(), "{}", reply.head);
        let line = server.access_line(reply.header("x-request-id"));
        assert_eq!((line.get("status"), line.get("outcome")), (status.to_string().as_str(), "ok"));
        server.until("it is counted", |metrics| {
            metrics.value("http_server_requests_rejected_total", &[("reason", reason)])
                == before + 1
        });
    }
}

#[test]
fn a_refusal_by_the_gate_counts_the_bytes_of_its_body() {
    let server = Server::start([]);
    let mut wire = Wire::connect(&server.address()).unwrap();
    wire.send("GET / HTTP/1.1\r\nno colon here\r\n\r\n");
    let reply = wire.answer().unwrap();
    let line = server.access_line(reply.header("x-request-id"));
    assert_eq!(line.number("response_bytes"), u64::try_from(reply.body.len()).unwrap());
}

#[test]
fn nothing_behind_a_refused_request_is_served() {
    let server = Server::start([]);
    let mut wire = Wire::connect(&server.address()).unwrap();
    wire.send("GET /?1 HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nbad\r\n\r\nGET /api/items HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(wire.answer().unwrap().status, 200);
    assert_eq!(wire.answer().unwrap().status, 400);
    assert!(wire.ends_cleanly());
    server.until("both are counted", |metrics| {
        metrics.sum("http_server_request_duration_seconds_count") == 2
    });
    assert_eq!(
        server
            .metrics()
            .value("http_server_request_duration_seconds_count", &[("http_route", "/api/items")]),
        0
    );
}

#[test]
fn a_given_request_id_is_kept_and_a_bad_one_is_replaced() {
    let server = Server::start([]);
    let ask =
        |id: &str| server.send(Request::get("/").header("x-request-id", id).body("").unwrap());
    assert_eq!(ask("order-4711.a_b").request_id(), "order-4711.a_b");
    assert_eq!(server.access_line("order-4711.a_b").get("status"), "200");
    for bad in ["", "two words", "a\"b", &"x".repeat(129)] {
        let answer = ask(bad);
        assert_ne!(answer.request_id(), bad);
        assert_eq!(answer.request_id().len(), 32, "{bad:?}");
    }
}

#[test]
fn a_trace_is_continued_only_when_its_parent_is_well_formed() {
    let server = Server::start([]);
    let ask = |traceparent: &str| {
        let request = Request::get("/").header("traceparent", traceparent).body("").unwrap();
        server.access_line(server.send(request).request_id())
    };
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let line = ask(&format!("00-{trace}-00f067aa0ba902b7-01"));
    assert_eq!(line.get("trace_id"), trace);
    assert_ne!(line.get("span_id"), "00f067aa0ba902b7");
    assert_eq!(ask(&format!("01-{trace}-00f067aa0ba902b7-01-tail")).get("trace_id"), trace);
    let upper = trace.to_uppercase();
    let bad = [
        format!("00-{upper}-00f067aa0ba902b7-01"),
        format!("00-{trace}-0000000000000000-01"),
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned(),
        format!("ff-{trace}-00f067aa0ba902b7-01"),
        format!("00-{trace}-00f067aa0ba902b7-01-tail"),
        "rubbish".to_owned(),
    ];
    for bad in bad {
        let line = ask(&bad);
        assert!(
            line.get("trace_id") != trace && line.get("trace_id").len() == 32,
            "{bad}: {}",
            line.text
        );
    }
}

#[test]
fn a_panic_costs_one_request_and_no_worker() {
    let server = Server::start(["--workers", "1"]);
    let before = server.until_whole(1).workers;
    let answer = server.get("/api/exception");
    assert_eq!(answer.expect_status(500).json()["detail"], "Internal Server Error");
    assert!(!answer.text().contains("simulated"), "the panic's text stays inside");
    server.get("/").expect_status(200);
    assert_eq!(server.pids().workers, before);
    let line = server.access_line(answer.request_id());
    assert_eq!((line.get("level"), line.get("outcome")), ("error", "panic"));
    let told = server.until_line("the panic is told", |line| line.is("handler panicked"));
    assert_eq!(told.get("trace_id"), line.get("trace_id"));
    assert_eq!(told.get("exception_message"), "simulated exception");
    let event =
        server.until_line("the handler's own event is told", |line| line.is("about to panic"));
    assert_eq!(
        (event.get("trace_id"), event.get("request_id")),
        (line.get("trace_id"), answer.request_id())
    );
    let labels = [("http_route", "/api/exception"), ("exception_type", "panic")];
    assert_eq!(server.metrics().value("http_server_exceptions_total", &labels), 1);
}

#[test]
fn a_handler_over_its_time_is_answered_with_504() {
    let server = Server::start(["--request-timeout", "100ms"]);
    let answer = server.get("/api/slow?ms=20000");
    let line = server.access_line(answer.expect_status(504).request_id());
    assert_eq!((line.get("outcome"), line.get("status")), ("timeout", "504"));
    assert_eq!(
        server.metrics().value("http_server_request_timeouts_total", &[("kind", "handler")]),
        1
    );
}

#[test]
fn a_client_that_leaves_has_aborted_its_request() {
    let server = Server::start([]);
    // Over HTTP/1 an early end may be half a close, which is still answered.
    client::leave_http2(&server.address(), "/api/slow?ms=20000", || {
        server.until("the request runs", |metrics| metrics.sum("http_server_active_requests") == 1);
    });
    let line = server.until_line("its end is told", |line| line.is("request"));
    assert_eq!(line.get("outcome"), "aborted");
    assert!(!line.has("status"), "nobody was answered: {}", line.text);
}

//! HTTP/2 by prior knowledge: streams, ids, resets, goodbye.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use saola_observability::Outcome;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Peer, fields, frame};
use super::{Server, config, late, test};
use crate::Order;
use crate::connection::LocalExecutor;

pub(super) async fn connect(
    server: &Server,
) -> (SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let stream = server.connect().0;
    let (sender, connection) = handshake(LocalExecutor, TokioIo::new(stream)).await.unwrap();
    (sender, tokio::task::spawn_local(connection))
}

pub(super) fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://test{path}")).body(Empty::new()).unwrap()
}

#[test]
fn streams_are_served_side_by_side_each_with_its_id() {
    test(config(), |server| async move {
        let (mut client, _connection) = connect(&server).await;
        let slow = client.send_request(get("/second"));
        let quick = client.send_request(get("/"));
        let failing = client.send_request(get("/panic"));
        let (slow, quick, failing) = tokio::join!(slow, quick, failing);
        let (slow, quick, failing) = (slow.unwrap(), quick.unwrap(), failing.unwrap());
        assert_eq!(
            (slow.status().as_u16(), quick.status().as_u16(), failing.status().as_u16()),
            (200, 200, 500)
        );
        assert!(quick.headers().get("connection").is_none());
        let id = failing.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body = failing.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains(&id));
        drop((slow, quick));
        server.stop().await;
    });
}

#[test]
fn a_reset_stream_is_aborted() {
    test(config(), |server| async move {
        let (mut client, _connection) = connect(&server).await;
        let request = client.send_request(get("/second"));
        let raced = tokio::time::timeout(Duration::from_millis(10), request).await;
        assert!(raced.is_err());
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(server.outcomes(), [(None, Outcome::Aborted)]);
        server.stop().await;
    });
}

#[test]
fn the_handler_deadline_is_each_streams_own() {
    test(config(), |server| async move {
        let (mut client, _connection) = connect(&server).await;
        let start = Instant::now();
        assert_eq!(client.send_request(get("/sleep")).await.unwrap().status(), 504);
        assert!(late(start, 30) < Duration::from_secs(1));
        assert_eq!(client.send_request(get("/")).await.unwrap().status(), 200);
        server.stop().await;
    });
}

#[test]
fn a_drain_says_goodbye_and_finishes_open_streams() {
    test(config(), |server| async move {
        let (mut client, connection) = connect(&server).await;
        let slow = client.send_request(get("/second"));
        let slow = tokio::task::spawn_local(slow);
        server.until("it runs", |worker| worker.open_requests() == 1).await;
        server.orders.give(Order::Handover {
            deadline: Duration::from_secs(30),
            idle: Duration::from_secs(30),
        });
        let response = slow.await.unwrap().unwrap();
        assert_eq!(response.collect().await.unwrap().to_bytes(), "a second later");
        connection.await.unwrap().unwrap();
        let drained = server.drained().await;
        assert_eq!(drained.forced, 0);
        assert!(drained.elapsed < Duration::from_secs(2));
    });
}

#[test]
fn a_client_that_is_silent_after_the_preface_or_idle_is_sent_away() {
    test(config(), |server| async move {
        let start = Instant::now();
        let (_client, connection) = connect(&server).await;
        // Its last write may find the stream closed: that is no matter here.
        let _ = connection.await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
        let (mut client, connection) = connect(&server).await;
        client.send_request(get("/")).await.unwrap();
        let start = Instant::now();
        // Its last write may find the stream closed: that is no matter here.
        let _ = connection.await.unwrap();
        let idle = start.elapsed();
        assert!((75..77).contains(&idle.as_secs()), "{idle:?}");
        server.stop().await;
    });
}

#[test]
fn a_future_that_is_given_up_is_dropped_as_its_request() {
    test(config(), |server| async move {
        let (mut client, _connection) = connect(&server).await;
        let request = client.send_request(get("/guarded"));
        assert!(tokio::time::timeout(Duration::from_millis(10), request).await.is_err());
        tokio::time::sleep(Duration::from_millis(10)).await;
        let record = server.finished().pop().unwrap();
        assert_eq!((record.outcome, record.route.as_deref()), (Outcome::Aborted, Some("/inside")));
        server.stop().await;
    });
}

#[test]
fn malformed_heads_never_reach_the_service() {
    let field = |name: &str, value: &str| {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
    };
    let with = |more: &[u8]| [&fields("GET", "/")[..], more].concat();
    let heads = [
        ("an upper-case name", with(&field("X-Upper", "1"))),
        ("a field of the connection", with(&field("connection", "close"))),
        ("another one", with(&field("transfer-encoding", "chunked"))),
        ("and one", with(&field("keep-alive", "timeout=5"))),
        ("a proxy's", with(&field("proxy-connection", "close"))),
        ("an upgrade", with(&field("upgrade", "websocket"))),
        ("te beyond trailers", with(&field("te", "gzip"))),
        ("a space in a name", with(&field("a b", "1"))),
        ("a line end in a value", with(&field("a", "1\r\nb: 2"))),
        ("NUL in a value", with(&field("a", "1\0"))),
        ("an empty name", with(&field("", "1"))),
        ("a pseudo-field twice", with(&field(":path", "/"))),
        ("an unknown pseudo-field", with(&field(":x", "/"))),
        ("a pseudo-field behind a field", [&field("a", "b")[..], &fields("GET", "/")].concat()),
    ];
    test(config(), |server| async move {
        for (what, head) in &heads {
            let mut peer = Peer::open(&server).await;
            peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, head)).await;
            assert_eq!(peer.blamed(1).await, 1, "{what}: PROTOCOL_ERROR");
        }
        assert!(server.finished().is_empty(), "the service saw none of them");
        let mut peer = Peer::open(&server).await;
        peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x82, 0x86])).await;
        assert_eq!(peer.status(1).await, "400", "neither a path nor an authority");
        peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &fields("GET", "?a"))).await;
        assert_eq!(peer.status(3).await, "400", "a path without its slash");
        server.stop().await;
    });
}

#[test]
fn a_body_that_is_not_as_long_as_its_head_says_is_reset() {
    test(config(), |server| async move {
        let head = [&fields("POST", "/none")[..], &[0, 14], b"content-length", &[1], b"3"].concat();
        for data in [&b"xx"[..], b"xxxx"] {
            let mut peer = Peer::open(&server).await;
            peer.send(&frame(HEADERS, END_HEADERS, 1, &head)).await;
            peer.send(&frame(DATA, END_STREAM, 1, data)).await;
            assert_eq!(peer.blamed(1).await, 1, "{data:?}: PROTOCOL_ERROR");
        }
        server.stop().await;
    });
}

#[test]
fn a_response_that_ends_with_trailers_was_answered() {
    test(config(), |server| async move {
        let (mut client, _connection) = connect(&server).await;
        let response = client.send_request(get("/trailers")).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        server.until("recorded", |worker| worker.open_requests() == 0).await;
        assert_eq!(server.outcomes(), [(Some(200), Outcome::Ok)]);
        server.stop().await;
    });
}

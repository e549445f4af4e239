//! Streams that leave HTTP, work beside the requests, and what both know of a drain.

use std::time::Duration;

use saola_observability::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::{Client, Server, config, late, test};
use crate::{Config, Order};

const ASK: &str =
    "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

async fn upgrade(server: &Server) -> Client {
    let mut client = server.connect();
    client.send(ASK).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (101, Some("upgrade")));
    client
}

async fn echoes(client: &mut Client, text: &str) {
    let mut back = vec![0; text.len()];
    client.send(text).await;
    client.0.read_exact(&mut back).await.unwrap();
    assert_eq!(back, text.as_bytes());
}

#[test]
fn an_upgraded_stream_is_the_applications_and_knows_no_deadline_of_http() {
    test(config(), |server| async move {
        let mut client = upgrade(&server).await;
        assert_eq!(server.outcomes(), [(Some(101), Outcome::Ok)], "its request ends with the 101");
        echoes(&mut client, "GET \0 no request at all\r\n\r\n").await;
        sleep(Duration::from_hours(1)).await;
        echoes(&mut client, "an hour later").await;
        assert_eq!(server.worker.open_connections(), 1, "it has its place");
        drop(client);
        server.until("it is gone", |worker| worker.open_connections() == 0).await;
        server.stop().await;
    });
}

#[test]
fn a_drain_tells_the_application_and_cuts_the_stream_at_its_deadline() {
    test(config(), |server| async move {
        let (mut told, start) = (upgrade(&server).await, Instant::now());
        let mut leaves = upgrade(&server).await;
        server
            .orders
            .give(Order::Handover { deadline: Duration::from_secs(5), idle: Duration::ZERO });
        for client in [&mut told, &mut leaves] {
            let mut goodbye = [0; 3];
            client.0.read_exact(&mut goodbye).await.unwrap();
            assert_eq!(&goodbye, b"bye");
        }
        drop(leaves);
        echoes(&mut told, "still here").await;
        let drained = server.drained().await;
        assert!(late(start, 5) < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(drained.forced, 1);
        let end = tokio::time::timeout(Duration::from_mins(1), told.0.read(&mut [0])).await;
        assert_eq!(end.expect("it is cut").unwrap(), 0);
    });
}

#[test]
fn a_response_101_that_nobody_asked_for_opens_nothing() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client.send("GET /upgrade HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.send("\0\0\0").await;
        let answers = client.rest().await;
        assert!(!answers.windows(3).any(|part| part == b"\0\0\0"), "nothing is echoed");
        assert_eq!(server.worker.upgraded.get(), 0);
        server.stop().await;
    });
}

#[test]
fn a_drain_waits_for_work_beside_the_requests_until_its_deadline() {
    for (work, took, deadline) in [(3, 3, 30), (60, 5, 5)] {
        test(config(), |server| async move {
            server.worker.background.spawn_local(async move {
                crate::draining().await;
                sleep(Duration::from_secs(work)).await;
            });
            sleep(Duration::from_mins(1)).await;
            let start = Instant::now();
            server.orders.give(Order::Stop { deadline: Duration::from_secs(deadline) });
            server.drained().await;
            assert!(late(start, took) < Duration::from_secs(1), "{:?}", start.elapsed());
        });
    }
}

#[test]
fn a_route_may_take_more_or_less_than_the_setting_says() {
    let limits = Config { limit_request_body: 1000, ..config() };
    test(limits, |server| async move {
        for (path, length, status) in [
            ("/echo", 1000, 200),
            ("/echo", 1001, 413),
            ("/small", 10, 200),
            ("/small", 11, 413),
            ("/big", 2 << 20, 200),
            ("/big", (2 << 20) + 1, 413),
        ] {
            let mut client = server.connect_with(4 << 20);
            client
                .send(&format!(
                    "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
                ))
                .await;
            // A client that is refused may find the connection closed.
            let _ = client.0.write_all(&vec![b'x'; length]).await;
            assert_eq!(client.answer().await.status, status, "{path} {length}");
            let mut client = server.connect_with(4 << 20);
            client.send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n")).await;
            let _ = client.0.write_all(&vec![b'x'; length]).await;
            let _ = client.0.write_all(b"\r\n0\r\n\r\n").await;
            assert_eq!(client.answer().await.status, status, "{path} {length} chunked");
        }
        server.stop().await;
    });
}

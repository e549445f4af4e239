//! Clients that send slowly, read slowly or not at all, and handlers that wait for them; by a paused clock.

use std::num::NonZeroU32;
use std::time::Duration;

use saola_observability::{Detail, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::frames::Peer;
use super::{config, late, test};
use crate::Config;

const UPLOAD: &str = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";

#[test]
fn a_body_that_stops_is_answered_408_after_thirty_seconds() {
    test(config(), |server| async move {
        for head in [UPLOAD, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"]
        {
            let mut client = server.connect();
            client.send(head).await;
            let start = Instant::now();
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.closes()), (408, true));
            assert!(late(start, 30) < Duration::from_secs(1), "{:?}", start.elapsed());
            assert_eq!(server.outcomes().pop(), Some((Some(408), Outcome::Timeout)));
        }
        server.stop().await;
    });
}

#[test]
fn a_body_of_a_byte_a_second_is_too_slow_and_one_of_a_kilobyte_is_served() {
    test(config(), |server| async move {
        let (mut slow, start) = (server.connect(), Instant::now());
        slow.send(UPLOAD).await;
        let feeding = async {
            loop {
                slow.send("x").await;
                sleep(Duration::from_secs(1)).await;
                if server.outcomes().len() == 1 {
                    return;
                }
            }
        };
        feeding.await;
        assert_eq!(slow.answer().await.status, 408);
        assert!(late(start, 30) < Duration::from_secs(2), "{:?}", start.elapsed());
        let mut honest = server.connect();
        honest.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n").await;
        for _ in 0..60 {
            sleep(Duration::from_secs(1)).await;
            honest.send(&"x".repeat(1000)).await;
        }
        let answer = honest.answer().await;
        assert_eq!((answer.status, answer.body.len()), (200, 60_000));
        server.stop().await;
    });
}

#[test]
fn a_quick_body_that_stops_is_not_excused_by_its_mean() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client.send(UPLOAD).await;
        client.send(&"x".repeat(100_000)).await;
        let start = Instant::now();
        assert_eq!(client.answer().await.status, 408);
        assert!(late(start, 30) < Duration::from_secs(1), "{:?}", start.elapsed());
        server.stop().await;
    });
}

#[test]
fn the_handlers_time_does_not_run_while_it_waits_for_its_client() {
    let hasty = Config { request_timeout: Some(Duration::from_secs(5)), ..config() };
    test(hasty, |server| async move {
        let mut client = server.connect();
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n").await;
        sleep(Duration::from_secs(20)).await;
        client.send("ok").await;
        assert_eq!(client.answer().await.status, 200);
        server.stop().await;
    });
}

#[test]
fn a_service_that_reads_slowly_does_not_make_its_client_slow() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client
            .send("POST /dawdle HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789")
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "read at last"));
        server.stop().await;
    });
}

#[test]
fn the_handlers_time_begins_when_it_has_the_body() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client.send("POST /echo-sleep HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n").await;
        sleep(Duration::from_secs(25)).await;
        client.send("ok").await;
        let start = Instant::now();
        assert_eq!(client.answer().await.status, 504);
        assert!(late(start, 30) < Duration::from_secs(1), "{:?}", start.elapsed());
        server.stop().await;
    });
}

#[test]
fn a_response_that_waits_for_its_request_is_cut_with_it() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client.send("POST /back HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234").await;
        let (start, rest) = (Instant::now(), client.rest().await);
        assert!(rest.starts_with(b"HTTP/1.1 200"));
        assert!(late(start, 30) < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(server.outcomes(), [(Some(200), Outcome::Timeout)]);
        server.stop().await;
    });
}

#[test]
fn a_client_that_takes_nothing_is_cut_and_one_that_takes_a_little_is_not() {
    test(config(), |server| async move {
        let (mut stops, start) = (server.connect_with(1000), Instant::now());
        stops.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.until("it runs", |worker| worker.open_connections() == 1).await;
        while server.worker.open_connections() > 0 {
            sleep(Duration::from_millis(100)).await;
        }
        assert!(late(start, 30) < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(server.outcomes(), [(Some(200), Outcome::Timeout)]);
        let mut reads = server.connect_with(1000);
        reads.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut taken = 0;
        while taken < 100_000 {
            sleep(Duration::from_secs(1)).await;
            taken += reads.0.read(&mut [0; 600]).await.unwrap();
        }
        server.until("it was served", |worker| worker.finished.borrow().len() == 2).await;
        assert_eq!(server.outcomes().pop(), Some((Some(200), Outcome::Ok)));
        drop((stops, reads));
        server.stop().await;
    });
}

#[test]
fn streams_have_the_same_deadlines_as_connections() {
    let small = Config { http2_max_streams: 100, ..config() };
    test(small, |server| async move {
        let mut peer = Peer::open(&server).await;
        let start = Instant::now();
        peer.begin(1, "/echo").await;
        assert_eq!(peer.status(1).await, "408");
        assert!(late(start, 30) < Duration::from_secs(1), "{:?}", start.elapsed());
        peer.get(3, "/").await;
        assert_eq!(peer.status(3).await, "200", "the connection lives on");
        assert_eq!(server.outcomes()[0], (Some(408), Outcome::Timeout));
        server.stop().await;
    });
}

#[test]
fn streams_that_are_all_stalled_end_their_connection() {
    test(config(), |server| async move {
        let mut peer = Peer::with_window(&server, 0).await;
        let start = Instant::now();
        for stream in [1, 3, 5] {
            peer.get(stream, "/endless").await;
        }
        peer.until_end().await;
        assert!(late(start, 30) < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(server.outcomes(), vec![(Some(200), Outcome::Timeout); 3]);
        server.stop().await;
    });
}

#[test]
fn a_paused_stream_beside_a_living_one_is_allowed() {
    test(config(), |server| async move {
        let mut peer = Peer::with_window(&server, 0).await;
        peer.get(1, "/endless").await;
        let start = Instant::now();
        for stream in (3..21).step_by(2) {
            peer.get(stream, "/second").await;
            assert_eq!(peer.status(stream).await, "200");
            peer.widen(stream, 100).await;
            sleep(Duration::from_secs(10)).await;
        }
        assert!(start.elapsed() > Duration::from_secs(80));
        assert_eq!(server.worker.open_connections(), 1);
        server.stop().await;
    });
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_response_is_aborted() {
    let mut bytes = [0; 1];
    test(config(), |server| async move {
        let mut client = server.connect();
        client.0.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        client.0.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"H");
        drop(client);
        server.until("it is gone", |worker| worker.open_connections() == 0).await;
        assert_eq!(server.outcomes(), [(Some(200), Outcome::Aborted)]);
        server.stop().await;
    });
}

#[test]
fn the_longest_idle_connection_makes_room_for_a_client_that_waits() {
    let small = Config { worker_connections: 4, ..config() };
    test(small, |server| async move {
        let mut idle = [server.connect(), server.connect()];
        for client in &mut idle {
            assert!(!client.get("/").await.closes(), "there is a place free");
        }
        let (start, mut busy) = (Instant::now(), [server.connect(), server.connect()]);
        for client in &mut busy {
            client.send("GET /sleep HTTP/1.1\r\nHost: a\r\n\r\n").await;
        }
        assert_eq!(server.connect().get("/").await.status, 200);
        assert!(late(start, 5) < Duration::from_secs(1), "{:?}", start.elapsed());
        server.stop().await;
    });
}

/// The coarse clock cannot be paused, so this one runs.
#[test]
fn an_idle_connection_is_closed_where_nobody_is_told_how_long_requests_took() {
    let keepalive = Duration::from_millis(100);
    let (keepalive_requests, detail) = (NonZeroU32::MAX, Detail::Nothing);
    test(Config { keepalive, keepalive_requests, detail, ..config() }, |server| async move {
        tokio::time::resume();
        let mut client = server.connect();
        // Busy for longer than that, so that the timer was due between two requests, and found one just ended.
        let start = Instant::now();
        while start.elapsed() < keepalive * 3 {
            assert_eq!(client.get("/").await.status, 200);
        }
        let closed = tokio::time::timeout(Duration::from_secs(10), client.rest()).await;
        assert_eq!(closed.expect("an idle connection is closed"), b"");
        server.stop().await;
    });
}

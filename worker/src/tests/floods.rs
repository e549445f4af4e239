//! HTTP/2 floods: each is bounded, ends its own connection only, and leaves the server serving.

use std::time::Duration;

use tokio::time::Instant;

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, Peer, RESET, SETTINGS,
    WINDOW_UPDATE, fields, frame,
};
use super::{Server, config, late, test};
use crate::Config;

const ENHANCE_YOUR_CALM: u32 = 11;
const PROTOCOL_ERROR: u32 = 1;
const UNKNOWN: u8 = 200;
const MOST: u32 = 20_000;

/// Sends frames until the server will not have more; says after how many, and by which GOAWAY.
async fn flood(server: &Server, frame_of: impl Fn(u32) -> Vec<u8>) -> (u32, Option<u32>) {
    let mut peer = Peer::open(server).await;
    peer.begin(1, "/echo").await;
    let mut sent = 0;
    while sent < MOST && peer.send(&frame_of(sent)).await {
        sent += 1;
        // What comes back is read, so that neither side waits for the other.
        while peer.is_readable() && peer.read().await {}
        tokio::task::yield_now().await;
    }
    assert!(sent < MOST, "the server takes them for ever");
    peer.until_end().await;
    assert_eq!(server.connect().get("/").await.status, 200, "the server serves on");
    assert_eq!(server.worker.open_requests(), 0, "nothing is left behind");
    (sent, peer.goaway)
}

#[test]
fn frames_that_ask_for_nothing_are_bounded() {
    test(config(), |server| async move {
        let floods: [(&str, Vec<u8>); 8] = [
            ("ping", frame(PING, 0, 0, &[1; 8])),
            ("answers to no ping", frame(PING, 1, 0, &[1; 8])),
            ("settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
            ("empty settings", frame(SETTINGS, 0, 0, &[])),
            ("priority", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 7])),
            ("window of the connection", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
            ("window of a stream", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
            ("unknown", frame(UNKNOWN, 0, 0, &[])),
        ];
        for (name, bytes) in &floods {
            let (sent, goaway) = flood(&server, |_| bytes.clone()).await;
            assert!((900..1_200).contains(&sent), "{name}: {sent} {goaway:?}");
        }
        let is_due = server.worker.flood_event.borrow_mut().is_due(Instant::now());
        assert!(!is_due, "it has been said within this minute");
        server.stop().await;
    });
}

#[test]
fn empty_data_is_bounded() {
    test(config(), |server| async move {
        let (sent, _) = flood(&server, |_| frame(DATA, 0, 1, &[])).await;
        assert!(sent < 1_200, "{sent}");
        server.stop().await;
    });
}

#[test]
fn tiny_data_is_bounded() {
    test(config(), |server| async move {
        // Of a body that nobody reads; one that is read is bounded by its limit.
        let (sent, goaway) = flood(&server, |number| match number {
            0 => frame(HEADERS, END_HEADERS, 3, &fields("POST", "/dawdle")),
            _ => frame(DATA, 0, 3, b"x"),
        })
        .await;
        assert!(sent < 10_000, "{sent}");
        assert_eq!(goaway, Some(ENHANCE_YOUR_CALM));
        server.stop().await;
    });
}

#[test]
fn rapid_resets_are_bounded() {
    test(config(), |server| async move {
        let (sent, goaway) = flood(&server, |number| {
            let stream = 3 + 2 * number;
            let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields("GET", "/second"));
            [open, frame(RESET, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .await;
        assert!(sent < 1_100, "{sent} {goaway:?}");
        server.stop().await;
    });
}

#[test]
fn resets_that_the_server_is_made_to_send_are_bounded() {
    test(config(), |server| async move {
        let (sent, goaway) = flood(&server, |number| {
            let stream = 3 + 2 * number;
            let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields("GET", "/second"));
            // A window widened by nothing is an error of the stream.
            [open, frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
        })
        .await;
        assert!(sent < 2_000, "{sent}");
        let expected = [None, Some(ENHANCE_YOUR_CALM), Some(PROTOCOL_ERROR)];
        assert!(expected.contains(&goaway), "{goaway:?}");
        server.stop().await;
    });
}

#[test]
fn heads_without_end_are_bounded() {
    test(config(), |server| async move {
        let piece = |number: u32| {
            let field = [&[0, 1, b'a', 127][..], &[0; 2], &[b'x'; 256]].concat();
            let kind = if number == 0 { HEADERS } else { CONTINUATION };
            frame(kind, 0, 3, &[&fields("GET", "/")[..], &field].concat())
        };
        let (sent, goaway) = flood(&server, piece).await;
        assert!(sent < 1_000, "{sent}");
        assert!(goaway.is_some());
        // Nothing but empty pieces: no byte of a list, yet a frame each.
        let empty = |number| match number {
            0 => frame(HEADERS, 0, 3, &fields("GET", "/")),
            _ => frame(CONTINUATION, 0, 3, &[]),
        };
        assert!(flood(&server, empty).await.0 < 1_200);
        server.stop().await;
    });
}

#[test]
fn a_head_that_unpacks_to_megabytes_is_refused() {
    test(config(), |server| async move {
        let mut peer = Peer::open(&server).await;
        // A value of 2,000 bytes goes into the table once, and is then named by one byte 8,000 times: 16 MB.
        let stored = [&[0x40, 1, b'a', 127][..], &[0xd1, 0x0e], &[b'x'; 2000]].concat();
        let bomb = [fields("GET", "/"), stored, vec![0xbe; 8_000]].concat();
        peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)).await;
        peer.until_end().await;
        assert_eq!(peer.goaway, Some(ENHANCE_YOUR_CALM));
        assert!(server.outcomes().is_empty(), "the service never saw it");
        assert_eq!(server.connect().get("/").await.status, 200);
        server.stop().await;
    });
}

#[test]
fn streams_over_the_limit_are_refused() {
    test(config(), |server| async move {
        let mut peer = Peer::open(&server).await;
        for number in 0..110 {
            peer.get(1 + 2 * number, "/second").await;
        }
        for number in 0..100 {
            assert_eq!(peer.status(1 + 2 * number).await, "200");
        }
        let refused: Vec<_> = peer.resets.iter().filter(|(_, reason)| *reason == 7).collect();
        assert_eq!(refused.len(), 10, "REFUSED_STREAM for each beyond the hundredth");
        assert_eq!(server.outcomes().len(), 100);
        server.stop().await;
    });
}

#[test]
fn a_client_silent_after_its_preface_is_told_and_sent_away() {
    test(config(), |server| async move {
        let (mut peer, start) = (Peer::open(&server).await, Instant::now());
        peer.until_end().await;
        assert!(late(start, 10) < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(peer.goaway, Some(0), "without blame");
        server.stop().await;
    });
}

#[test]
fn a_dead_peer_is_noticed_by_its_unanswered_ping() {
    test(Config { request_timeout: None, ..config() }, |server| async move {
        for (answers, end) in [(false, 50), (true, 300)] {
            let (mut peer, start) = (Peer::open(&server).await, Instant::now());
            peer.answers = answers;
            peer.begin(1, "/echo-sleep").await;
            peer.send(&frame(DATA, END_STREAM, 1, b"x")).await;
            while peer.read().await && !peer.has_status(1) {}
            assert!(late(start, end) < Duration::from_secs(2), "{:?}", start.elapsed());
        }
        server.stop().await;
    });
}

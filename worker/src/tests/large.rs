//! Large responses, on connections that copy bodies and on those that do not.

use std::time::Duration;

use saola_observability::Outcome;
use tokio::time::Instant;

use super::{Client, Server, config, test};

/// The data of a chunked body, which must be whole.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a size");
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal digits");
        data.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = bytes[end + 2 + size..].strip_prefix(b"\r\n").expect("the end of a chunk");
        if size == 0 {
            assert!(bytes.is_empty(), "nothing behind the last chunk");
            return data;
        }
    }
}

async fn asks_for_all(server: &Server, client: &mut Client) {
    for _ in 0..2 {
        assert_eq!(client.get("/").await.body, "hello");
        assert_eq!(client.get("/large").await.body, "x".repeat(100_000));
    }
    let request = "GET /large/stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.send(request).await;
    let answer = client.answer().await;
    assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
    let data = unchunked(&client.rest().await);
    assert!(data.len() == 60_010 && data.iter().all(|byte| *byte == b'y'), "{}", data.len());
    server.until("recorded", |worker| worker.open_requests() == 0).await;
    assert_eq!(server.outcomes(), vec![(Some(200), Outcome::Ok); server.outcomes().len()]);
}

#[test]
fn a_large_response_is_whole_however_its_connection_writes() {
    test(config(), |server| async move {
        let copies = || server.worker.copies_bodies(Instant::now());
        assert!(copies(), "nothing was large yet");
        let mut first = server.connect();
        asks_for_all(&server, &mut first).await;
        assert!(!copies(), "something was large");
        let mut second = server.connect();
        asks_for_all(&server, &mut second).await;
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert!(copies(), "nothing was large for a minute");
        server.stop().await;
    });
}

#[test]
fn a_client_that_takes_little_at_once_gets_all_of_a_large_response() {
    test(config(), |server| async move {
        for _ in 0..2 {
            // The first connection copies, the second does not.
            let mut client = server.connect_with(1_000);
            asks_for_all(&server, &mut client).await;
        }
        server.stop().await;
    });
}

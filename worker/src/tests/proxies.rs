//! Balancers and proxies in front: PROXY headers, and whose word about the client is believed.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::{Client, Server, config, late, test, test_speaking};
use crate::{Config, ProxyProtocol, Speech};

const SPEECH: Speech = Speech { tls: false, proxy: ProxyProtocol::Auto };
const LINE: &str = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
const REQUEST: &str = "GET /peer HTTP/1.1\r\nHost: a\r\n";

async fn ask(client: &mut Client, first: &[u8], fields: &str) -> String {
    client.0.write_all(first).await.unwrap();
    client.send(&format!("{REQUEST}{fields}\r\n")).await;
    client.answer().await.body
}

async fn is_closed(server: &Server, first: &[u8]) {
    let mut client = server.connect();
    client.0.write_all(first).await.unwrap();
    assert_eq!(client.rest().await, b"", "{:?}", String::from_utf8_lossy(first));
}

#[test]
fn the_header_names_the_client_however_it_arrives() {
    let second =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x01\xbb";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    test_speaking(SPEECH, config(), |server| async move {
        for (header, client) in [
            (LINE.as_bytes(), "192.0.2.1 192.0.2.1:56324"),
            (&second[..], "192.0.2.1 192.0.2.1:56324"),
            (b"PROXY UNKNOWN\r\n", "- -"),
            (local, "- -"),
        ] {
            let answer = ask(&mut server.connect(), header, "").await;
            assert_eq!(answer, format!("{client} http -"));
            let mut slow = server.connect();
            for byte in header {
                slow.0.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            assert_eq!(ask(&mut slow, b"", "").await, format!("{client} http -"));
        }
        // It is read once: the next one is no request.
        let mut client = server.connect();
        client.send(&format!("{LINE}{LINE}{REQUEST}\r\n")).await;
        assert_eq!(client.answer().await.status, 400);
        server.stop().await;
    });
}

#[test]
fn a_header_that_is_absent_malformed_or_late_closes_the_connection() {
    test_speaking(SPEECH, config(), |server| async move {
        is_closed(&server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        is_closed(&server, b"PROXY TCP4 192.0.2.1\r\n").await;
        is_closed(&server, format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)).as_bytes()).await;
        for start in [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT"] {
            let since = Instant::now();
            is_closed(&server, start).await;
            assert!(late(since, 3) < Duration::from_secs(1), "{:?}", since.elapsed());
        }
        assert_eq!(server.finished().len(), 0, "none of them was a request");
        server.stop().await;
    });
}

#[test]
fn without_the_setting_a_header_is_a_bad_request() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client.send(&format!("{LINE}{REQUEST}\r\n")).await;
        assert_eq!(client.answer().await.status, 400);
        server.stop().await;
    });
}

#[test]
fn the_address_of_the_header_decides_whose_fields_are_believed() {
    let fields = "X-Forwarded-For: 6.6.6.6, 10.9.9.9\r\nX-Forwarded-Proto: https\r\nX_Forwarded_For: 7.7.7.7\r\n";
    let trusting = Config { forwarded_allow_ips: "10.0.0.0/8".parse().unwrap(), ..config() };
    test_speaking(SPEECH, trusting, |server| async move {
        let stranger = ask(&mut server.connect(), LINE.as_bytes(), fields).await;
        assert_eq!(stranger, "192.0.2.1 192.0.2.1:56324 http -");
        let proxy = LINE.replace("192.0.2.1", "10.1.1.1");
        let proxied = ask(&mut server.connect(), proxy.as_bytes(), fields).await;
        assert_eq!(proxied, "6.6.6.6 10.1.1.1:56324 https 6.6.6.6, 10.9.9.9");
        let mut client = server.connect();
        client.send(&proxy).await;
        client.send(&format!("{REQUEST}Forwarded: for=1.1.1.1\r\n{fields}\r\n")).await;
        assert_eq!(client.answer().await.status, 400, "the two fields disagree");
        server.stop().await;
    });
}

//! Gate and hyper, given random requests: they agree on the end of every message that both accept, and nothing that the
//! gate refuses reaches the service.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::io::AsyncWriteExt;

use super::{Client, config, test};
use crate::Config;
use crate::connection::head::{Body, Scan, Verdict};

/// What stands where a body may be: a request of its own, if somebody takes it for one.
const INNER: &str = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
const CASES: usize = 2_000;

#[derive(Clone, Debug)]
struct Case {
    bytes: Vec<u8>,
    cuts: Vec<usize>,
}

fn field() -> impl Strategy<Value = String> {
    let names = [
        "Host",
        "Content-Length",
        "content-length",
        "Transfer-Encoding",
        "Expect",
        "X",
        "Connection",
    ];
    let values = [
        "a",
        "0",
        "3",
        "+3",
        "0x3",
        "3, 3",
        "chunked",
        "CHUNKED",
        "gzip, chunked",
        "chunked;a=b",
        "identity",
        "100-continue",
        "close",
        "keep-alive",
        "",
        "\u{b}chunked",
        "a\tb",
    ];
    let colons = select(vec![": ", ": ", ": ", ":", " : ", ":\t", ""]);
    let odd = (select(names.to_vec()), colons, select(values.to_vec()), end())
        .prop_map(|(name, colon, value, end)| format!("{name}{colon}{value}{end}"));
    let body = format!("Content-Length: {}\r\n", INNER.len());
    prop_oneof![3 => Just("X: a\r\n".to_owned()), 3 => Just(body), 2 => odd]
}

fn end() -> impl Strategy<Value = &'static str> {
    prop_oneof![20 => Just("\r\n"), 1 => select(vec!["\n", "\r", "\r\n ", "\r\r\n"])]
}

fn case() -> impl Strategy<Value = Case> {
    let methods = select(vec!["GET", "POST", "POST", "POST", "HEAD", "OPTIONS", "get", "P\u{1}"]);
    let targets = prop_oneof![5 => select(vec!["/", "/echo", "/none"]), 1 => select(vec!["*", "http://b/", "a:80", "/\t", "/#x"])];
    let versions = prop_oneof![8 => Just("HTTP/1.1"), 1 => select(vec!["HTTP/1.0", "HTTP/2.0", "http/1.1", ""])];
    let line = (methods, targets, versions, end());
    let fields = proptest::collection::vec(field(), 0..4);
    let noise = proptest::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>()));
    let cuts = proptest::collection::vec(any::<prop::sample::Index>(), 0..3);
    (line, prop::bool::weighted(0.9), fields, noise, cuts).prop_map(
        |(line, has_host, fields, noise, cuts)| {
            let (method, target, version, end) = line;
            let host = if has_host { "Host: a\r\n" } else { "" };
            let text = format!(
                "{method} {target} {version}{end}{host}{}\r\n{INNER}{INNER}",
                fields.concat()
            );
            let mut bytes = text.into_bytes();
            if let Some((at, byte)) = noise {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.sort_unstable();
            Case { bytes, cuts }
        },
    )
}

/// What the gate's rules say by themselves: heads that are accepted, and whether one is refused behind them. `None` when a
/// chunked body makes that hyper's matter.
fn expected(mut bytes: &[u8], config: &Config) -> Option<(usize, bool)> {
    let mut accepted = 0;
    loop {
        for _ in 0..2 {
            bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        }
        match Scan::default().advance(bytes, config) {
            _ if bytes.is_empty() => return Some((accepted, false)),
            Verdict::Incomplete => return Some((accepted, false)),
            Verdict::Refused(_) => return Some((accepted, true)),
            Verdict::Complete { body: Body::Chunked, .. } => return None,
            Verdict::Complete { end, body: Body::Length(length) } => {
                accepted += 1;
                let body = bytes.len() - end;
                bytes = &bytes[end + body.min(usize::try_from(length).unwrap())..];
            }
        }
    }
}

#[test]
fn gate_and_hyper_agree_where_messages_end() {
    test(config(), |server| async move {
        let (mut runner, strategy) = (TestRunner::default(), case());
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..CASES {
            let case = strategy.new_tree(&mut runner).unwrap().current();
            server.worker.finished.borrow_mut().clear();
            let Client(mut stream) = server.connect();
            let starts = [0].into_iter().chain(case.cuts.iter().copied());
            let ends = case.cuts.iter().copied().chain([case.bytes.len()]);
            for (start, end) in starts.zip(ends) {
                // A refusal may have closed the stream already.
                let _closed = stream.write_all(&case.bytes[start..end]).await;
                tokio::task::yield_now().await;
            }
            let _closed = stream.shutdown().await;
            let answers = Client(stream).rest().await;
            let shown = String::from_utf8_lossy(&case.bytes);
            let finished = server.finished();
            let heads = memchr::memmem::find_iter(&answers, b"x-request-id: ").count();
            assert_eq!(
                heads,
                finished.iter().filter(|one| one.status.is_some()).count(),
                "{shown:?}"
            );
            let Some((most, is_refused)) = expected(&case.bytes, &server.worker.config) else {
                continue;
            };
            // Fewer, when one of the answers closed the connection.
            let found = finished.len();
            assert!(
                found <= most + usize::from(is_refused),
                "{found} of {most}, {is_refused}: {shown:?}"
            );
            let is_closed = memchr::memmem::find(&answers, b"connection: close").is_some()
                || shown.contains("HTTP/1.0");
            assert!(
                found == most + usize::from(is_refused) || is_closed,
                "{found} of {most}: {shown:?}"
            );
            accepted += most;
            refused += usize::from(is_refused);
        }
        assert!(accepted > CASES / 10 && refused > CASES / 10, "{accepted} {refused}");
        server.until("all have ended", |worker| worker.open_connections() == 0).await;
        server.stop().await;
    });
}

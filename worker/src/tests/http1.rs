//! HTTP/1: keep-alive, pipelining, ids, refusals, limits, deadlines, outcomes.

use std::time::Duration;

use saola_observability::Outcome;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::{config, late, test};
use crate::Config;

#[test]
fn a_connection_serves_request_after_request() {
    test(config(), |server| async move {
        let mut client = server.connect();
        for _ in 0..3 {
            let answer = client.get("/").await;
            assert_eq!(
                (answer.status, answer.body.as_str(), answer.closes()),
                (200, "hello", false)
            );
            assert_eq!(answer.field("server"), Some("saola"));
            assert!(answer.field("date").is_some());
        }
        assert_eq!(server.finished()[0].route.as_deref(), Some("/"));
        assert_eq!(server.outcomes(), vec![(Some(200), Outcome::Ok); 3]);
        server.stop().await;
    });
}

#[test]
fn pipelined_requests_are_answered_in_order_and_nothing_behind_a_refusal_is_served() {
    test(config(), |server| async move {
        let mut client = server.connect();
        let good = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let bad = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        client.send(&[good("/"), good("/second"), bad.to_owned(), good("/trace")].concat()).await;
        assert_eq!(client.answer().await.body, "hello");
        assert_eq!(client.answer().await.body, "a second later");
        let refusal = client.answer().await;
        assert!(refusal.status == 400 && refusal.closes(), "{refusal:?}");
        assert!(client.rest().await.is_empty());
        let statuses: Vec<_> =
            server.outcomes().iter().map(|(status, _)| status.unwrap()).collect();
        assert_eq!(statuses, [200, 200, 400]);
    });
}

#[test]
fn every_answer_has_an_id_that_its_record_has_too() {
    test(config(), |server| async move {
        let cases = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            ("GET /none HTTP/1.1\r\nHost: a\r\n\r\n", 404),
            ("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n", 500),
            ("GET /sleep HTTP/1.1\r\nHost: a\r\n\r\n", 504),
            ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", 413),
            ("GET /a<b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
            ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("rubbish\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHos", 408),
        ];
        for (request, status) in cases {
            let mut client = server.connect();
            client.send(request).await;
            let answer = client.answer().await;
            assert_eq!(answer.status, status, "{request:?}");
            server.until("recorded", |worker| worker.open_requests() == 0).await;
            let record = server.finished().pop().unwrap();
            assert_eq!(
                answer.field("x-request-id"),
                Some(record.request_id.as_str()),
                "{request:?}"
            );
            assert_eq!(record.status, Some(status));
            if status >= 400 && status != 404 {
                let body = format!(r#""status":{status},"request_id":"{}""#, record.request_id);
                assert!(answer.body.contains(&body), "{}", answer.body);
                assert_eq!(answer.field("content-type"), Some("application/json"));
            }
        }
        server.stop().await;
    });
}

#[test]
fn a_good_request_id_is_kept_and_a_bad_one_replaced() {
    test(config(), |server| async move {
        let mut client = server.connect();
        for (sent, is_kept) in [("abc-1", true), ("a b", false), ("a\"b", false)] {
            client
                .send(&format!("GET /trace HTTP/1.1\r\nHost: a\r\nX-Request-Id: {sent}\r\n\r\n"))
                .await;
            let answer = client.answer().await;
            let id = answer.field("x-request-id").unwrap();
            assert_eq!(id == sent, is_kept, "{sent}");
            assert!(answer.body.ends_with(id), "the service sees the same id");
        }
        server.stop().await;
    });
}

#[test]
fn a_callers_trace_goes_on() {
    test(config(), |server| async move {
        let mut client = server.connect();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        client
            .send(&format!(
                "GET /trace HTTP/1.1\r\nHost: a\r\ntraceparent: {parent}\r\ntracestate: a=1\r\n\r\n"
            ))
            .await;
        let answer = client.answer().await;
        assert!(answer.body.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{}", answer.body);
        assert!(!answer.body.contains("00f067aa0ba902b7"), "a span of its own");
        assert!(answer.body.contains("-01 a=1 "), "{}", answer.body);
        server.stop().await;
    });
}

#[test]
fn a_body_over_the_limit_is_refused_before_or_while_it_is_read() {
    test(Config { limit_request_body: 10, ..config() }, |server| async move {
        let mut client = server.connect();
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.closes()), (413, true), "and no 100 before it");
        let mut client = server.connect();
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 413, "whatever the service says");
        let mut client = server.connect();
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789").await;
        let answer = client.answer().await;
        assert_eq!((answer.body.as_str(), answer.closes()), ("0123456789", false));
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.body.as_str(), answer.closes()),
            ("hi", true),
            "no head is looked for behind chunks"
        );
        server.stop().await;
    });
}

#[test]
fn an_unread_body_is_read_away_so_that_the_client_sees_its_status() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client.send("POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.closes()), (404, true));
        client.0.write_all(&vec![b'x'; 1_000_000]).await.expect("the server still reads");
        let start = Instant::now();
        assert!(client.rest().await.is_empty());
        client.0.write_all(b"x").await.ok();
        server.until("lingering ends", |worker| worker.open_connections() <= 1).await;
        assert!(start.elapsed() < Duration::from_secs(11));
        drop(client);
        server.stop().await;
    });
}

#[test]
fn overload_is_answered_at_once() {
    test(Config { limit_concurrency: 1, ..config() }, |server| async move {
        let (mut first, mut second) = (server.connect(), server.connect());
        first.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.until("it runs", |worker| worker.open_requests() == 1).await;
        let answer = second.get("/").await;
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
        let mut large = server.connect();
        large.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n").await;
        assert_eq!(large.answer().await.status, 503, "its length is not why");
        assert_eq!(first.answer().await.status, 200);
        assert_eq!(second.get("/").await.status, 200);
        server.stop().await;
    });
}

#[test]
fn a_crowd_over_the_limit_is_told_so_while_those_within_it_are_served() {
    test(Config { limit_concurrency: 100, ..config() }, |server| async move {
        let ask = |_| {
            let mut client = server.connect();
            tokio::task::spawn_local(async move {
                let begun = Instant::now();
                (client.get("/second").await, begun.elapsed())
            })
        };
        let asked: Vec<_> = (0..2_000).map(ask).collect();
        let (mut served, mut told) = (0, 0);
        for answer in asked {
            let (answer, took) = answer.await.unwrap();
            if answer.status == 200 {
                served += 1;
            } else {
                assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
                assert!(took < Duration::from_millis(50), "by the clock of the test: {took:?}");
                told += 1;
            }
        }
        assert_eq!((served, told), (100, 1_900));
        server.stop().await;
    });
}

#[test]
fn a_panic_is_one_failed_request() {
    test(config(), |server| async move {
        let mut client = server.connect();
        for _ in 0..1_000 {
            let answer = client.get("/panic").await;
            assert_eq!(answer.status, 500);
            // Not for the panic, but for its number of requests.
            if answer.closes() {
                client = server.connect();
            }
            assert!(crate::trace().is_none(), "the current request is restored");
        }
        assert_eq!(client.get("/").await.status, 200, "on the same connection");
        let panics =
            server.finished().iter().filter(|ended| ended.exception == Some("panic")).count();
        assert_eq!((panics, server.outcomes()[0]), (1_000, (Some(500), Outcome::Panic)));
        server.stop().await;
    });
}

#[test]
fn templates_are_counted_by_name_until_there_are_too_many() {
    test(config(), |server| async move {
        let mut client = server.connect();
        for number in 0..300 {
            assert_eq!(client.get(&format!("/route/number-{number}")).await.status, 200);
        }
        client.get("/nowhere").await;
        let routes: Vec<_> = server.finished().into_iter().map(|ended| ended.route).collect();
        let named = |number: usize| routes[number].as_deref();
        assert_eq!((named(0), named(199)), (Some("/number-0"), Some("/number-199")));
        assert!(
            routes[200..300].iter().all(|route| route.as_deref() == Some("other")),
            "{routes:?}"
        );
        assert_eq!(named(300), None, "it has no route");
        assert_eq!(client.get("/route/number-7").await.status, 200);
        assert_eq!(
            server.finished().pop().and_then(|ended| ended.route).as_deref(),
            Some("/number-7")
        );
        server.stop().await;
    });
}

#[test]
fn outcomes_of_bodies() {
    test(config(), |server| async move {
        for (method, path, outcome) in [
            ("HEAD", "/", Outcome::Ok),
            ("GET", "/empty", Outcome::Ok),
            ("GET", "/204", Outcome::Ok),
            ("GET", "/304", Outcome::Ok),
            ("GET", "/stream", Outcome::Ok),
            ("HEAD", "/stream", Outcome::Ok),
            ("GET", "/broken", Outcome::Aborted),
            ("GET", "/panicking", Outcome::Panic),
        ] {
            let mut client = server.connect();
            client
                .send(&format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
                .await;
            client.rest().await;
            server.until("recorded", |worker| worker.open_requests() == 0).await;
            assert_eq!(server.outcomes().pop().unwrap().1, outcome, "{method} {path}");
        }
        let broken =
            server.finished().into_iter().find(|ended| ended.outcome == Outcome::Aborted).unwrap();
        assert_eq!(broken.exception, Some("response_body"));
        server.stop().await;
    });
}

#[test]
fn a_client_that_leaves_is_aborted_and_one_that_half_closes_is_answered() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.0.shutdown().await.unwrap();
        assert_eq!(client.answer().await.status, 200);
        let mut client = server.connect();
        client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.until("it runs", |worker| worker.open_requests() == 1).await;
        drop(client);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(server.worker.open_requests(), 0);
        server.stop().await;
    });
}

#[test]
fn silent_clients_are_closed_at_their_deadlines() {
    test(config(), |server| async move {
        let start = Instant::now();
        for (bytes, answered) in
            [("", false), ("PRI * HT", true), ("GET / HT", true), ("\r\n", true)]
        {
            let (mut client, start) = (server.connect(), Instant::now());
            client.send(bytes).await;
            let rest = client.rest().await;
            let late = late(start, 10);
            assert!(late < Duration::from_secs(1), "{bytes:?}: {late:?} late");
            assert_eq!(rest.starts_with(b"HTTP/1.1 408"), answered, "{bytes:?}");
        }
        assert!(start.elapsed() >= Duration::from_secs(40));
        server.stop().await;
    });
}

#[test]
fn an_idle_connection_lives_75_seconds_and_no_header_deadline_cuts_it() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client.get("/").await;
        tokio::time::sleep(Duration::from_secs(74)).await;
        assert_eq!(client.get("/").await.status, 200);
        let idle = Instant::now();
        assert!(client.rest().await.is_empty(), "a FIN and no 408");
        let late = late(idle, 75);
        assert!(late < Duration::from_secs(1), "{late:?}");
        server.stop().await;
    });
}

#[test]
fn a_slow_head_is_cut_in_all_and_not_by_the_byte() {
    test(config(), |server| async move {
        let mut client = server.connect();
        client.get("/").await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let start = Instant::now();
        for byte in ["G", "E", "T", " ", "/"] {
            client.send(byte).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(client.answer().await.status, 408);
        assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
        assert_eq!(server.outcomes().pop(), Some((Some(408), Outcome::Timeout)));
        server.stop().await;
    });
}

#[test]
fn a_handler_is_given_thirty_seconds() {
    test(config(), |server| async move {
        let (mut client, start) = (server.connect(), Instant::now());
        assert_eq!(client.get("/sleep").await.status, 504);
        assert!(late(start, 30) < Duration::from_secs(1));
        assert_eq!(server.outcomes(), [(Some(504), Outcome::Timeout)]);
        assert_eq!(client.get("/").await.status, 200, "the connection lives on");
        server.stop().await;
    });
}

#[test]
fn keepalive_requests_bound_a_connection() {
    let few = Config { keepalive_requests: std::num::NonZeroU32::new(3).unwrap(), ..config() };
    test(few, |server| async move {
        let mut client = server.connect();
        let closed = [
            client.get("/").await.closes(),
            client.get("/").await.closes(),
            client.get("/").await.closes(),
        ];
        assert_eq!(closed, [false, false, true]);
        assert!(client.rest().await.is_empty());
        server.stop().await;
    });
}

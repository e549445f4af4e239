//! Input that wants to be a line, a key, a label or a command to a terminal.

use std::collections::BTreeMap;

use crate::accounting::is_long;
use crate::lines::{ACCESS_KEYS, Line};
use crate::server::Server;
use crate::setup::Setup;
use crate::wire::Wire;

/// More than 200 strings: each poison alone, doubled, between words, at both ends.
fn poisons() -> Vec<Vec<u8>> {
    let words: [&[u8]; 42] = [
        b"\"",
        b"\\",
        b"\\\"",
        b"=",
        b" = ",
        b"level=error",
        b"a=b level=error",
        b"\" level=error msg=\"root",
        b"msg=started",
        b"\tx=y",
        b"'",
        b"`",
        b"{}",
        b"{a=\"b\"}",
        b"#",
        b"# TYPE x counter",
        b"%0a",
        b"%0d%0alevel=error",
        b"%22",
        b"%00",
        b"\\n",
        b"\\u000a",
        b"\\u0022",
        b"\xff",
        b"\xc3\x28",
        b"\xe2\x80\xa8",
        b"\xe2\x80\xae",
        b"\xc2\x85",
        b"\xc2\x9b31m",
        b"\xef\xbb\xbf",
        b"\xf0\x9f\xa6\x8c",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"${jndi:ldap://x}",
        b"<script>",
        b"../../etc",
        b"' OR 1=1",
        b"%s%n",
        b"\xe2\x80\x8b",
        b"time=2026",
        b"request_id=forged",
        b"trace_id=",
    ];
    let mut all = Vec::new();
    for word in words {
        let shapes: [&[&[u8]]; 5] =
            [&[word], &[word, word], &[b"a", word, b"b"], &[word, b"z"], &[b"z ", word]];
        all.extend(shapes.map(<[&[u8]]>::concat));
    }
    all.push(vec![b'x'; 5_000]);
    all.push("ü\"".repeat(2_000).into_bytes());
    all
}

#[test]
fn a_hostile_header_forges_no_key_and_no_line() {
    let server = Server::start(["--workers", "1"]);
    let poisons = poisons();
    assert!(poisons.len() >= 200);
    let mut expected = BTreeMap::new();
    for (number, poison) in poisons.iter().enumerate() {
        let mut wire = Wire::connect(&server.address()).unwrap();
        let id = format!("hostile-{number}");
        wire.send(
            [
                b"GET / HTTP/1.1\r\nhost: x\r\nx-request-id: ",
                id.as_bytes(),
                b"\r\nuser-agent: ",
                poison,
                b"\r\n\r\n",
            ]
            .concat(),
        );
        let reply = wire.answer().unwrap_or_else(|failure| panic!("{failure:?} for {poison:?}"));
        // What no header may hold is refused by the gate, with an id of Saola's.
        let id = reply.header("x-request-id").to_owned();
        expected.insert(id, (reply.status, poison.clone()));
    }
    let lines = lines_of_all(&server, expected.len());
    for line in &lines {
        let (status, poison) = &expected[line.get("request_id")];
        assert_eq!(line.get("status"), status.to_string());
        check_keys(line);
        if *status == 200 && poison.len() < 200 && std::str::from_utf8(poison).is_ok() {
            let agent = String::from_utf8_lossy(poison).trim_matches([' ', '\t']).to_owned();
            assert_eq!(line.get("user_agent"), agent);
        }
    }
}

#[test]
fn a_hostile_path_forges_no_key_no_line_and_no_label() {
    let server = Server::start(["--workers", "1"]);
    let poisons = poisons();
    let mut ids = Vec::new();
    for poison in &poisons {
        let mut wire = Wire::connect(&server.address()).unwrap();
        wire.send([b"GET /", &poison[..], b"?token=canary HTTP/1.1\r\nhost: x\r\n\r\n"].concat());
        let reply = wire.answer().unwrap_or_else(|failure| panic!("{failure:?} for {poison:?}"));
        assert!((400..500).contains(&reply.status), "{} for {poison:?}", reply.status);
        ids.push(reply.header("x-request-id").to_owned());
    }
    for sample in server.metrics().of("http_server_request_duration_seconds_count") {
        assert!(["unmatched", "other"].contains(&sample.label("http_route")), "{sample:?}");
    }
    let lines = lines_of_all(&server, poisons.len());
    assert!(lines.iter().all(|line| ids.iter().any(|id| line.get("request_id") == id)));
    lines.iter().for_each(check_keys);
    assert!(!lines.iter().any(|line| line.text.contains("canary")), "a query is never told");
}

#[test]
fn a_hostile_request_id_is_never_taken() {
    let server = Server::start(["--workers", "1"]);
    let poisons = poisons();
    for poison in &poisons {
        let mut wire = Wire::connect(&server.address()).unwrap();
        wire.send(
            [b"GET / HTTP/1.1\r\nhost: x\r\nx-request-id: ", &poison[..], b"\r\n\r\n"].concat(),
        );
        let reply = wire.answer().unwrap_or_else(|failure| panic!("{failure:?} for {poison:?}"));
        let id = reply.header("x-request-id");
        let is_plain = id.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
        assert!(!id.is_empty() && id.len() <= 128 && is_plain, "{id:?}");
    }
    lines_of_all(&server, poisons.len()).iter().for_each(check_keys);
}

#[test]
fn a_hostile_method_is_one_label() {
    let server = Server::start(["--workers", "1"]);
    for method in ["BREW", "get", "G-E-T", "X".repeat(300).as_str()] {
        let mut wire = Wire::connect(&server.address()).unwrap();
        wire.send(format!("{method} / HTTP/1.1\r\nhost: x\r\n\r\n"));
        assert!(wire.answer().unwrap().status >= 400, "{method}");
    }
    server.until("they are counted as other", |metrics| {
        metrics.value("http_server_requests_started_total", &[("http_request_method", "_OTHER")])
            == 4
    });
    lines_of_all(&server, 4).iter().for_each(check_keys);
}

#[test]
fn many_workers_that_print_by_themselves_share_one_pipe_line_by_line() {
    let server = Setup::of_example("observed")
        .env("OTEL_SERVICE_NAME", "saola")
        .args(["--workers", "8", "--ring-bytes", "4MiB"])
        .start();
    let (clients, rounds) = (8, if is_long() { 25_000 } else { 250 });
    // Only what a header may hold reaches the application; the others are for the tests above.
    let poisons: Vec<_> = poisons().into_iter().filter(|poison| poison.len() < 200).collect();
    let allowed = |poison: &&Vec<u8>| !poison.iter().any(|byte| *byte < 32 && *byte != b'\t');
    let poisons: Vec<_> = poisons.iter().filter(allowed).collect();
    let address = server.address();
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (poisons, address) = (&poisons, &address);
            scope.spawn(move || {
                let agents = (client..).map(|number| poisons[number % poisons.len()]);
                print_often(address, agents.take(rounds));
            });
        }
    });
    let sent = clients * rounds;
    assert_eq!(server.stop(), 0);
    // Each line of the output is one that somebody meant, whole.
    let lines = server.lines();
    let told = lines.iter().filter(|line| line.is("request")).inspect(|line| check_keys(line));
    let dropped = lines.iter().filter(|line| line.is("log lines dropped"));
    let dropped: u64 = dropped.map(|line| line.number("count")).sum();
    assert_eq!(told.count() + usize::try_from(dropped).unwrap(), sent, "one line a request");
    assert_eq!(lines.iter().filter(|line| line.is("printed")).count(), sent);
}

/// Asks for a line of the application's own, as each of these user agents.
fn print_often<'a>(address: &str, agents: impl Iterator<Item = &'a Vec<u8>>) {
    let mut wire = Wire::connect(address).unwrap();
    for agent in agents {
        let head = b"GET /print HTTP/1.1\r\nhost: x\r\nuser-agent: ";
        wire.send([head, agent.as_slice(), b"\r\n\r\n"].concat());
        let reply = wire.answer().unwrap();
        assert_eq!(reply.status, 200, "{agent:?}");
        if reply.closes() {
            wire = Wire::connect(address).unwrap();
        }
    }
}

/// Every access line, when as many have come; the strict reader refuses a forged one.
fn lines_of_all(server: &Server, count: usize) -> Vec<Line> {
    server.until_true("every request has its line", || server.lines_of("request").len() >= count);
    assert_eq!(server.stop(), 0);
    let lines = server.lines_of("request");
    assert_eq!(lines.len(), count, "one line each");
    let known = [
        "listening",
        "migration applied",
        "worker ready",
        "started",
        "request",
        "stopping",
        "drain",
        "worker drained",
        "stopped",
        "a request held the event loop", // on a busy machine
        "SECRET_KEY is not set: tokens are signed with one that the database keeps",
    ];
    for line in server.lines() {
        assert!(known.contains(&line.get("msg")), "a line that nobody meant: {}", line.text);
    }
    lines
}

fn check_keys(line: &Line) {
    let keys = line.keys();
    let in_order: Vec<_> = ACCESS_KEYS.into_iter().filter(|key| line.has(key)).collect();
    assert_eq!(keys, in_order, "{}", line.text);
    assert_eq!(
        (line.get("target"), line.get("service")),
        ("saola::access", "saola"),
        "{}",
        line.text
    );
}

//! Lines as JSON, lines for a terminal, and which lines there are.

use std::collections::BTreeSet;
use std::fs::File;

use nix::pty::openpty;

use crate::client;
use crate::lines::ACCESS_KEYS;
use crate::output::Output;
use crate::server::Server;
use crate::setup::{Setup, Stdout};
use crate::wait;

#[test]
fn json_lines_are_json_with_the_same_keys() {
    let setup = Setup::new().args(["--log-format", "json"]);
    let server = setup.start_without_waiting();
    let objects = || {
        let parse = |text: &String| {
            serde_json::from_str::<serde_json::Value>(text)
                .unwrap_or_else(|error| panic!("{error}: {text}"))
        };
        server.stdout().lines().iter().map(parse).collect::<Vec<_>>()
    };
    let find = |key: &str, value: &str| {
        wait::until_some(&format!("{key} {value}"), || {
            objects().into_iter().find(|object| object[key] == value)
        })
    };
    find("msg", "started");
    let address = find("role", "service")["address"].as_str().unwrap().to_owned();
    let request =
        hyper::Request::get("/api/items/7").header("user-agent", "a\"b").body("").unwrap();
    let answer = client::send(&address, request).unwrap();
    let line = find("request_id", answer.request_id());
    let keys: Vec<_> = ACCESS_KEYS.into_iter().filter(|key| line.get(key).is_some()).collect();
    assert_eq!(keys, ACCESS_KEYS);
    assert_eq!((line["status"].as_u64(), line["user_agent"].as_str()), (Some(200), Some("a\"b")));
    assert!(line["duration_ms"].is_f64() && line["trace_id"].is_string());
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_terminal_gets_readable_coloured_lines() {
    let text = on_terminal(&[("TERM", "xterm-256color")], &[]);
    assert!(text.contains("\u{1b}["), "no colours:\n{text}");
    let plain = without_colours(&text);
    let line =
        plain.lines().find(|line| line.contains("/api/items/7")).expect("a line for the request");
    assert!(line.contains("GET /api/items/{id} 200") && line.contains("INFO"), "{line}");
    assert!(!plain.contains("msg=") && !plain.contains("level="), "{plain}");
    assert!(
        plain.contains("listening") && plain.contains("127.0.0.1:"),
        "it says where it listens:\n{plain}"
    );
}

#[test]
fn a_terminal_gets_no_colours_when_it_wants_none() {
    for env in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let text = on_terminal(&[env], &[]);
        assert!(!text.contains('\u{1b}'), "{env:?}:\n{text}");
        assert!(text.contains("GET /api/items/{id} 200"), "{env:?}:\n{text}");
    }
}

#[test]
fn a_terminal_gets_logfmt_when_it_is_asked_for() {
    let text = on_terminal(&[("TERM", "xterm")], &["--log-format", "logfmt"]);
    assert!(text.contains("msg=request") && text.contains("status=200"), "{text}");
}

#[test]
fn the_access_log_can_be_for_errors_only_or_off() {
    for (value, expected) in [("errors", vec!["500"]), ("off", vec![])] {
        let server = Server::start(["--access-log", value]);
        server.until_observed(2);
        for path in ["/", "/api/items/7", "/api/server-error"] {
            server.get(path);
        }
        server.until("all have ended", |metrics| {
            metrics.sum("http_server_request_duration_seconds_count") == 3
        });
        assert_eq!(server.stop(), 0);
        let statuses: Vec<_> =
            server.lines_of("request").iter().map(|line| line.get("status").to_owned()).collect();
        assert_eq!(statuses, expected, "--access-log {value}");
    }
}

#[test]
fn excluded_paths_have_no_line_unless_they_fail_and_are_counted_all_the_same() {
    let server = Server::start(["--access-log-exclude", "/health,/api/server-error"]);
    for path in ["/health", "/api/server-error", "/"] {
        server.get(path);
    }
    server.until("all three are counted", |metrics| {
        metrics.sum("http_server_request_duration_seconds_count") == 3
    });
    server.until_true("two have their lines", || server.lines_of("request").len() >= 2);
    assert_eq!(server.stop(), 0);
    let lines = server.lines_of("request");
    let paths: BTreeSet<_> = lines.iter().map(|line| line.get("path")).collect();
    assert_eq!((lines.len(), paths), (2, BTreeSet::from(["/", "/api/server-error"])));
}

#[test]
fn the_level_of_a_target_decides_about_its_events() {
    let server = Server::start(["--log-level", "info,saola::simulate=off,saola::panic=off"]);
    server.access_line(server.get("/api/exception").request_id());
    assert!(server.lines_of("about to panic").is_empty());
}

/// What a terminal shows of a server that is asked once and stopped.
fn on_terminal(env: &[(&str, &str)], args: &[&str]) -> String {
    let pair = openpty(None, None).unwrap();
    let setup = Setup::new();
    let address = format!("unix:{}", setup.folder().join("x.sock").display());
    let setup =
        setup.args(["--bind", "127.0.0.1:0", "--bind", &address]).args(args.iter().copied());
    let setup = env.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
    let server = setup.stdout(Stdout::Given(pair.slave)).start_without_waiting();
    let screen = Output::of(Some(File::from(pair.master)));
    server.until_true("it serves", || client::try_get(&address, "/health").is_ok());
    client::get(&address, "/api/items/7").expect_status(200);
    server.until_true("the request is shown", || {
        screen.lines().iter().any(|line| line.contains("/api/items/7"))
    });
    assert_eq!(server.stop(), 0);
    screen.to_end().join("\n")
}

fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, code)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = code.split_once('m').map_or("", |(_, after)| after);
    }
    plain + rest
}

//! The socket with clients that misbehave.

use std::io::{BufRead as _, BufReader};

use super::*;

fn ask(stream: &mut UnixStream, line: &str) {
    stream.write_all(line.as_bytes()).expect("sent");
}

fn answer(stream: &UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("an answer");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

fn socket() -> (tempfile::TempDir, Control, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control.sock");
    (folder, Control::bind(&path).expect("a socket"), path)
}

#[test]
fn a_waiting_reload_hears_each_worker_and_one_end() {
    let (_folder, mut control, path) = socket();
    let mut client = UnixStream::connect(&path).expect("it listens");
    ask(&mut client, "{\"id\":7,\"cmd\":\"reload\",\"wait\":true}\n");
    let (asked, _) = control.read(Instant::now());
    let asked = &asked[0];
    control.reply(asked.client, &Answer::Begun("reloading"));
    control.reply(asked.client, &Answer::WorkerReady(crate::lifecycle::event::SlotNumber(5)));
    let why = "boot: no database".to_owned();
    control.reply(asked.client, &Answer::Refused { exit: Exit::Boot, why });
    control.reply(asked.client, &Answer::Done);
    drop(control);
    let lines: Vec<String> = BufReader::new(client).lines().map_while(Result::ok).collect();
    assert_eq!(
        lines,
        [
            r#"{"event":"worker_ready","id":7,"worker":5}"#,
            r#"{"code":3,"id":7,"message":"boot: no database","ok":false}"#
        ]
    );
}

#[test]
fn one_who_does_not_wait_hears_the_beginning_only() {
    let (_folder, mut control, path) = socket();
    let mut client = UnixStream::connect(&path).expect("it listens");
    ask(&mut client, "{\"id\":1,\"cmd\":\"reload\"}\n");
    let (asked, _) = control.read(Instant::now());
    control.reply(asked[0].client, &Answer::Begun("reloading"));
    control.reply(asked[0].client, &Answer::Done);
    assert_eq!(answer(&client)["state"], "reloading");
    assert!(control.waiting.is_empty());
}

#[test]
fn long_lines_and_slow_ones_are_refused_and_closed() {
    let (_folder, mut control, path) = socket();
    let mut long = UnixStream::connect(&path).expect("it listens");
    let mut slow = UnixStream::connect(&path).expect("it listens");
    ask(&mut slow, "{\"id\":");
    let start = Instant::now();
    control.read(start);
    ask(&mut long, &"x".repeat(10_000));
    control.read(start);
    assert_eq!(answer(&long)["message"], "line too long");
    control.read(start + Duration::from_secs(6));
    assert_eq!(answer(&slow)["message"], "the line has no end");
    assert!(control.connections.is_empty());
}

#[test]
fn a_hundred_silent_clients_cost_sixteen_places_and_no_wait() {
    let (_folder, mut control, path) = socket();
    let clients: Vec<_> =
        (0..100).map(|_| UnixStream::connect(&path).expect("it listens")).collect();
    let start = Instant::now();
    for _ in 0..20 {
        control.read(start);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(control.connections.len(), MOST_CLIENTS);
    assert_eq!(answer(&clients[99])["code"], 75);
    drop(clients);
    // A process that another test is just starting may hold a copy of them for a moment.
    while !control.connections.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "the gone are remembered");
        control.read(start);
    }
}

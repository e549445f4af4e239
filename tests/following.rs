//! `saola log`: what the rings hold and what comes, filtered, as lines or as trees; nobody notices the reader.

use hyper::Request;

use crate::client;
use crate::lines::Line;
use crate::load::{Connections, Load};
use crate::server::Server;
use crate::setup::{Ended, Setup};

/// What `saola log` says of a server, with these arguments.
fn log<'a>(server: &Server, args: impl IntoIterator<Item = &'a str>) -> Ended {
    Setup::of_example("observed").in_folder_of(server).args(["log"]).args(args).run()
}

fn observed() -> Server {
    Setup::of_example("observed").args(["--workers", "2"]).start()
}

#[test]
fn lines_that_were_written_are_still_there_and_the_same() {
    let server = observed();
    for path in ["/order", "/light", "/nope"] {
        server.get(path);
    }
    // Two workers' lines come in passes of their own, so the last request's may be out first.
    server.until_true("all three are out", || server.lines_of("request").len() == 3);
    let ended = log(&server, ["--no-follow", "msg=request"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let shown: Vec<_> = ended.stdout.lines().map(str::to_owned).collect();
    let mut written: Vec<_> =
        server.lines_of("request").into_iter().map(|line| line.text).collect();
    written.sort();
    assert_eq!(shown, written, "sorted by time, which stands first");
}

#[test]
fn a_filter_chooses_and_a_wrong_one_says_where() {
    let server = observed();
    let failed = server.get("/panic").request_id().to_owned();
    for _ in 0..5 {
        server.get("/light");
    }
    server.until("all have ended", |metrics| {
        metrics.sum("http_server_request_duration_seconds_count") == 6
    });
    let ended = log(&server, ["--no-follow", "status>=500 or duration_ms>250000"]);
    let shown: Vec<_> = ended.stdout.lines().map(Line::parse).collect();
    assert_eq!(shown.len(), 1, "{}", ended.stdout);
    assert_eq!(shown[0].get("request_id"), failed);
    let last = log(&server, ["--no-follow", "-n", "2", "path=/light"]);
    assert_eq!(last.stdout.lines().count(), 2);
    let young = log(&server, ["--no-follow", "--since", "1ns"]);
    assert_eq!(young.stdout, "");
    let json = log(&server, ["--no-follow", "--log-format", "json", "outcome=panic"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["request_id"], failed);
    let wrong = log(&server, ["--no-follow", "status>>5"]);
    assert_eq!(wrong.code, 64);
    assert!(
        wrong.stderr.contains("cannot read filter \"status>>5\" at column 8"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn a_trace_is_shown_as_a_tree_with_its_spans_and_events() {
    let server = observed();
    server.get("/order").expect_status(200);
    server.get("/light").expect_status(200);
    server.until("both have ended", |metrics| {
        metrics.sum("http_server_request_duration_seconds_count") == 2
    });
    let ended = log(&server, ["--no-follow", "--group", "trace", "route=/order"]);
    // What differs from run to run is times, and which worker it was.
    let shape: Vec<_> = ended
        .stdout
        .lines()
        .map(|line| {
            let depth = line.len() - line.trim_start().len();
            let known =
                ["GET /order", "price the order", "SELECT items", "hash", "ERROR out of stock"];
            (depth, known.into_iter().find(|text| line.contains(text)).unwrap_or(line).to_owned())
        })
        .collect();
    let expected = [
        (0, "GET /order"),
        (2, "price the order"),
        (4, "SELECT items"),
        (4, "hash"),
        (2, "ERROR out of stock"),
    ];
    assert_eq!(shape, expected.map(|(depth, text)| (depth, text.to_owned())), "{}", ended.stdout);
    assert!(ended.stdout.contains("(client)  error no such item"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("hunter2"));
}

#[test]
fn what_comes_is_followed_until_the_server_ends_and_no_worker_notices() {
    let server = observed();
    std::thread::scope(|scope| {
        let follower = Setup::of_example("observed").in_folder_of(&server);
        let follower = follower.args(["log", "msg=request", "path=/light"]);
        let following = scope.spawn(move || follower.run());
        let load = Load::start(&server.address(), 4, Connections::Kept, "/light");
        load.until_more(2_000);
        let tally = load.stop();
        tally.expect_no_loss();
        assert_eq!(server.stop(), 0);
        let ended = following.join().unwrap();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let lines: Vec<_> = ended.stdout.lines().filter(|line| !line.starts_with('…')).collect();
        // Each is whole and there are all of them, or it says that they were too fast for it.
        assert!(lines.iter().all(|line| Line::parse(line).get("status") == "200"));
        let skipped = ended.stdout.contains("records skipped");
        let all = u64::try_from(lines.len()).unwrap();
        assert!(all == tally.sent() || skipped, "{all} of {}", tally.sent());
    });
}

/// The supervisor begins a new epoch when a file of one is damaged, and deletes the files of the old one a minute later.
#[test]
fn a_damaged_file_ends_nobodys_following() {
    let server = Server::start(["--workers", "1", "--graceful-timeout", "2s"]);
    std::thread::scope(|scope| {
        let follower = Setup::new().in_folder_of(&server).args(["log", "msg=request", "path=/"]);
        let following = scope.spawn(move || follower.run());
        let ask = |id: &'static str| {
            let request = Request::get("/").header("x-request-id", id).body("").unwrap();
            client::send(&server.address(), request).unwrap();
        };
        ask("before");
        let epoch = server.run_dir().join("epoch-000001");
        std::fs::remove_file(epoch.join("observer")).unwrap();
        server.until_line("a new generation serves", |line| line.is("reloaded"));
        ask("meanwhile");
        std::fs::remove_dir_all(&epoch).unwrap(); // as the supervisor does, and now
        ask("after");
        assert_eq!(server.stop(), 0);
        let ended = following.join().unwrap();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let ids: Vec<_> = ended
            .stdout
            .lines()
            .map(|line| Line::parse(line).get("request_id").to_owned())
            .collect();
        assert_eq!(ids, ["before", "meanwhile", "after"], "{}", ended.stdout);
    });
}

#[test]
fn without_a_server_it_says_so() {
    let ended = Setup::of_example("observed").args(["log", "--no-follow"]).run();
    assert_eq!(ended.code, 69);
    assert!(ended.stderr.contains("no saola running in"), "{}", ended.stderr);
}

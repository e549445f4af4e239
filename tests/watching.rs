//! `saola top`: on a terminal of 80 by 24, as a table, as a document; nobody notices the reader.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};

use crate::load::{Connections, Load};
use crate::output::Output;
use crate::server::Server;
use crate::setup::{Ended, Running, Setup, pid_of};
use crate::wait;

/// What `saola top` says of a server, with these arguments, when stdout is a pipe.
fn top<'a>(server: &Server, args: impl IntoIterator<Item = &'a str>) -> Ended {
    Setup::new().in_folder_of(server).args(["top"]).args(args).run()
}

/// `saola top` on a terminal of its own.
struct Terminal {
    child: Running,
    keys: File,
    /// The side of the program, to look at its modes.
    line: File,
    before: Termios,
    screen: Output,
}

/// A terminal of 80 by 24, whose other side no program gets.
fn pair() -> OpenptyResult {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(Some(&size), None).unwrap();
    fcntl(&pair.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    pair
}

/// `saola top` on this terminal.
fn on_terminal(server: &Server, line: &OwnedFd) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_saola"));
    command.args(["top", "--interval", "0.2", "--run-dir"]).arg(server.run_dir());
    command.env("TERM", "xterm").process_group(0);
    let end = || Stdio::from(line.try_clone().unwrap());
    Running(command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap())
}

impl Terminal {
    fn open(server: &Server) -> Self {
        let pair = pair();
        let before = tcgetattr(&pair.slave).unwrap();
        let child = on_terminal(server, &pair.slave);
        let keys = File::from(pair.master.try_clone().unwrap());
        // A screen has no lines: what is drawn is cut at the escapes that move the cursor.
        let screen = Output::of_parts(Some(File::from(pair.master)), 0x1b);
        Self { child, keys, line: File::from(pair.slave), before, screen }
    }

    fn until_shown(&self, text: &str) {
        let shown = || self.screen.lines().iter().any(|part| part.contains(text));
        wait::until_or(&format!("{text:?} is shown"), shown, || self.screen.tail());
    }

    fn press(&mut self, key: &str) {
        self.keys.write_all(key.as_bytes()).unwrap();
    }

    /// Waits for its end, checks that the terminal is as it was, and gives the exit code.
    fn wait_for_end(mut self) -> Option<i32> {
        let status = wait::until_some("top has ended", || self.child.0.try_wait().unwrap());
        // The beginning of an escape is the end of the part before it.
        self.line.write_all(b"\x1b").unwrap();
        self.until_shown("[?1049l"); // the screen as it was before
        self.until_shown("[?25h"); // the cursor is seen
        let after = tcgetattr(self.line.as_fd()).unwrap();
        assert_eq!(after, self.before, "the modes of the terminal are restored");
        status.code()
    }
}

#[test]
fn a_terminal_of_80_by_24_shows_workers_live_and_is_restored_after_q() {
    let server = Server::start(["--workers", "2"]);
    let mut terminal = Terminal::open(&server);
    terminal.until_shown("REQ/S");
    terminal.until_shown(&server.worker(crate::server::Slot(1)).to_string());
    let load = Load::start(&server.address(), 4, Connections::Kept, "/");
    load.until_more(200);
    terminal.until_shown("<5");
    load.stop().expect_no_loss();
    for part in terminal.screen.lines() {
        // Escape [ row ; column H
        let place = part.strip_prefix('[').and_then(|rest| rest.split_once('H'));
        if let Some((row, column)) = place.and_then(|(place, _)| place.split_once(';')) {
            let (row, column): (u32, u32) = (row.parse().unwrap(), column.parse().unwrap());
            assert!(row <= 24 && column <= 80, "drawn at {row};{column}");
        }
    }
    terminal.press("?");
    terminal.until_shown("Ctrl-C");
    terminal.press("q");
    assert_eq!(terminal.wait_for_end(), Some(0));
}

#[test]
fn a_terminal_is_restored_after_signals_and_control_c() {
    let server = Server::start(["--workers", "1"]);
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let terminal = Terminal::open(&server);
        terminal.until_shown("REQ/S");
        kill(pid_of(&terminal.child.0), signal).unwrap();
        assert_eq!(terminal.wait_for_end(), Some(0), "{signal}");
    }
    let mut terminal = Terminal::open(&server);
    terminal.until_shown("REQ/S");
    terminal.press("\u{3}");
    assert_eq!(terminal.wait_for_end(), Some(0));
}

#[test]
fn a_terminal_that_is_gone_ends_it() {
    let server = Server::start(["--workers", "1"]);
    let pair = pair();
    let mut child = on_terminal(&server, &pair.slave);
    let mut keys = File::from(pair.master);
    let mut drawn = Vec::new();
    while !String::from_utf8_lossy(&drawn).contains("REQ/S") {
        let mut part = [0; 1_024];
        let length = keys.read(&mut part).unwrap();
        drawn.extend_from_slice(&part[..length]);
    }
    drop(keys);
    wait::until("top has ended", || child.0.try_wait().unwrap().is_some());
}

#[test]
fn a_terminal_is_restored_when_the_server_ends() {
    let server = Server::start(["--workers", "1"]);
    let terminal = Terminal::open(&server);
    terminal.until_shown("REQ/S");
    assert_eq!(server.stop(), 0);
    let screen = terminal.screen.clone();
    assert_eq!(terminal.wait_for_end(), Some(69));
    let parts = screen.lines();
    let said =
        parts.iter().find(|part| part.contains("error: ")).expect("it says why it has ended");
    assert!(said.starts_with("[?1049l"), "behind the last escape: {said}");
}

#[test]
fn a_pipe_gets_one_plain_table_with_the_rates_of_the_interval() {
    let server = Server::start(["--workers", "2"]);
    let load = Load::start(&server.address(), 4, Connections::Kept, "/");
    load.until_more(100);
    let ended = top(&server, ["--interval", "0.5"]);
    load.stop().expect_no_loss();
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert!(lines[0].contains("generation 1") && lines[0].ends_with("workers 2/2"), "{}", lines[0]);
    let rate: f64 = lines[1].split(' ').next().unwrap().parse().unwrap();
    assert!(rate > 10.0, "{}", lines[1]);
    assert!(lines[3].trim_start().starts_with("SLOT"), "{}", ended.stdout);
    for slot in 0..2_usize {
        let cells: Vec<_> = lines[4 + slot].split_whitespace().collect();
        assert_eq!((cells[0], cells[2]), (slot.to_string().as_str(), "ready"));
        assert_eq!(
            cells[1],
            server.worker(crate::server::Slot(u32::try_from(slot).unwrap())).to_string()
        );
    }
    assert!(!ended.stdout.contains('\u{1b}'));
}

#[test]
fn the_document_counts_by_slot_and_is_that_of_the_admin_listener() {
    let server = Server::start(["--workers", "2"]);
    server.until_observed(2);
    for path in ["/", "/", "/api/server-error"] {
        server.get(path);
    }
    server.until("all have ended", |metrics| {
        metrics.sum("http_server_request_duration_seconds_count") == 3
    });
    let ended = top(&server, ["--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let document: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let status = server.admin_get("/status").expect_status(200).json();
    for document in [&document, &status] {
        let workers = document["workers"].as_array().unwrap();
        let sum =
            |field: &str| workers.iter().map(|slot| slot[field].as_u64().unwrap()).sum::<u64>();
        assert_eq!((workers.len(), sum("requests"), sum("errors")), (2, 3, 1), "{document:#}");
        assert_eq!(
            (document["schema"].as_u64(), document["degraded"].as_bool()),
            (Some(1), Some(false))
        );
        for worker in workers.iter().filter(|worker| worker["requests"] != 0) {
            assert!(worker["p50_ms"].as_f64() <= worker["p99_ms"].as_f64(), "{worker}");
            assert!(worker["p99_ms"].is_f64() && worker["cpu_seconds"].is_f64(), "{worker}");
            assert!(worker["rss_bytes"].as_f64() > Some(0.0), "{worker}");
        }
        for field in
            ["pid", "state", "since_seconds", "restarts", "in_flight", "lag_ms", "handler_ns"]
        {
            assert!(workers.iter().all(|worker| !worker[field].is_null()), "{field}: {document:#}");
        }
    }
    let keys = |document: &serde_json::Value| -> Vec<String> {
        document.as_object().unwrap().keys().filter(|key| *key != "observer").cloned().collect()
    };
    assert_eq!(keys(&document), keys(&status));
    assert!(status["observer"]["rings"][0]["lag_bytes"]["log"].is_u64(), "{status:#}");
}

#[test]
fn a_worker_that_was_replaced_is_seen() {
    let server = Server::start(["--workers", "2"]);
    let killed = server.kill(crate::server::Slot(0));
    server.until_true("the worker is replaced", || {
        server.pids().workers.get(&crate::server::Slot(0)).is_some_and(|pid| *pid != killed)
    });
    server.until_true("the slot has had two", || {
        let document: serde_json::Value =
            serde_json::from_str(&top(&server, ["--json"]).stdout).unwrap();
        document["workers"][0]["restarts"] == 1
    });
}

#[test]
fn without_a_server_or_with_a_wrong_interval_it_says_so() {
    let ended = Setup::new().args(["top", "--once"]).run();
    assert_eq!(ended.code, 69);
    assert!(ended.stderr.contains("no saola running in"), "{}", ended.stderr);
    for wrong in ["0.1", "61", "abc", "NaN"] {
        let ended = Setup::new().args(["top", "--interval", wrong]).run();
        assert_eq!(ended.code, 64, "{wrong}: {}", ended.stderr);
    }
}

#[test]
fn a_reader_that_has_left_ends_it_quietly() {
    let server = Server::start(["--workers", "1"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = Setup::new()
        .in_folder_of(&server)
        .args(["top", "--interval", "60"])
        .stdout(crate::setup::Stdout::Given(writer.into()))
        .run();
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
}

//! Hears of what happens to its server: keeps a journal of workers in the file that `JOURNAL` names.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;

use axum::{Router, routing::get};
use saola::{Ended, Hooks, WorkerExit};

/// Lives in the supervisor, which has one thread: a line at a time, and quickly.
struct Journal {
    path: Option<String>,
    exits: u32,
}

impl Journal {
    fn write(&self, line: &str) {
        let Some(path) = &self.path else { return };
        let file = OpenOptions::new().append(true).create(true).open(path);
        // A journal that cannot be written is no reason to stop serving.
        let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
}

impl Hooks for Journal {
    fn when_ready(&mut self) {
        self.write("ready");
    }

    /// In the worker: what one keeps for itself is not seen by the supervisor, nor by the next.
    fn post_fork(&mut self, slot: u32) {
        self.write(&format!("worker {slot} is born after {} ends", self.exits));
    }

    fn child_exit(&mut self, exit: &WorkerExit) {
        self.exits += 1;
        let how = match exit.status {
            Ended::Code(code) => format!("code {code}"),
            Ended::Signal(signal) => format!("signal {signal}"),
        };
        self.write(&format!("worker {} ended: {}, {how}", exit.slot, exit.cause));
    }

    fn workers_changed(&mut self, old: u32, new: u32) {
        self.write(&format!("workers {old} -> {new}"));
    }

    fn on_exit(&mut self) {
        self.write("the end");
    }
}

fn main() -> ExitCode {
    let path = std::env::vars().find(|(name, _)| name == "JOURNAL").map(|(_, path)| path);
    saola::Server::new()
        .hooks(Journal { path, exits: 0 })
        .serve(|_worker| async { Ok(Router::new().route("/", get(|| async { "hello" }))) })
}

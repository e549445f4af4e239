//! Redis servers of the tests' own.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::app::kept::Kept;
use crate::app::postgres::free_port;
use crate::app::tools;
use crate::wait;

/// A running Redis.
pub(crate) struct Redis {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    kept: RefCell<Kept>,
}

impl Redis {
    /// Starts one; none where Redis is not installed.
    pub(crate) fn start() -> Option<Self> {
        let program = tools::find("redis-server", &[])?;
        let folder = TempDir::with_prefix("saola-redis-").unwrap().keep();
        let port = free_port();
        let kept = RefCell::new(run(&program, &folder, port));
        let redis = Self { program, folder, port, kept };
        redis.until_ready();
        Some(redis)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The first line of the answer to an inline command.
    pub(crate) fn ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(wait::DEADLINE))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    pub(crate) fn stop(&self) {
        self.kept.borrow().stop();
    }

    /// Starts it again, empty, on the same port.
    pub(crate) fn start_again(&self) {
        *self.kept.borrow_mut() = run(&self.program, &self.folder, self.port);
        self.until_ready();
    }

    pub(crate) fn freeze(&self) {
        self.kept.borrow().freeze();
    }

    pub(crate) fn thaw(&self) {
        self.kept.borrow().thaw();
    }

    fn until_ready(&self) {
        wait::until("Redis answers", || self.ask("PING").is_ok_and(|answer| answer == "+PONG"));
    }
}

fn run(program: &std::path::Path, folder: &std::path::Path, port: u16) -> Kept {
    let port = port.to_string();
    let command = [
        program.to_str().unwrap(),
        "--bind",
        "127.0.0.1",
        "--port",
        &port,
        "--save",
        "", // nothing of it is kept
        "--appendonly",
        "no",
    ];
    Kept::start(command, folder, Signal::SIGTERM)
}

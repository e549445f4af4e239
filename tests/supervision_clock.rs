//! A wall clock that jumps: every deadline is measured on the monotonic one, so nobody is taken for hung or too old.

use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;

use crate::load::{Connections, Load};
use crate::server::Server;
use crate::setup::Setup;
use crate::wait;

/// A wall clock that says so many seconds more or less, as a file tells it. It is loaded before the C library.
const SHIM: &str = r"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME && result == 0) {
        char text[32] = {0};
        int file = open(JUMP, O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            if (read(file, text, sizeof text - 1) > 0) now->tv_sec += atol(text);
            close(file);
        }
    }
    return result;
}
";

/// Compiles the shim; it reads `jump`.
fn shim(folder: &Path, jump: &Path) -> PathBuf {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    std::fs::write(&source, SHIM).unwrap();
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg(format!("-DJUMP=\"{}\"", jump.display()))
        .status();
    assert!(status.unwrap().success(), "the C compiler that the build needs");
    library
}

/// The wall clock of the server, as the line of a request tells it.
fn told_at(server: &Server) -> Timestamp {
    let id = server.get("/").request_id().to_owned();
    let line = server.until_line("its line", |line| line.get("request_id") == id);
    line.get("time").parse().unwrap()
}

#[test]
fn a_wall_clock_that_jumps_an_hour_kills_nobody() {
    let setup = Setup::new();
    // Not where the server's files are: a mount of shared memory may forbid code.
    let folder = tempfile::tempdir().unwrap();
    let jump = folder.path().join("jump");
    std::fs::write(&jump, "0").unwrap();
    let library = shim(folder.path(), &jump);
    let args = ["--workers", "2", "--request-timeout", "20s", "--max-lifetime", "30m"];
    let server = setup.env("LD_PRELOAD", library.to_str().unwrap()).args(args).start();
    let before = server.until_whole(2).workers;
    let load = Load::start(&server.address(), 2, Connections::Kept, "/api/slow?ms=20");
    let mut last = 0;
    for seconds in [3600, -3600, 0] {
        let real = told_at(&server);
        std::fs::write(&jump, seconds.to_string()).unwrap();
        // Workers look at it ten times a second.
        wait::until("the server sees it jump", || {
            let jumped = told_at(&server).duration_since(real).as_secs() + last;
            (jumped - seconds).abs() < 60
        });
        last = seconds;
        load.until_more(60);
    }
    load.stop().expect_no_loss();
    assert_eq!(server.until_whole(2).workers, before, "the same workers serve");
    assert!(server.lines_of("worker died").is_empty());
    assert_eq!(server.stop(), 0);
}

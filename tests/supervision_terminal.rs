//! Servers that were started on a terminal: its end and its size. `script` is the terminal.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::kill;

use crate::setup::Setup;
use crate::wait;

#[test]
fn the_end_of_the_terminal_stops_a_server_unless_it_was_started_by_nohup() {
    if is_hup_ignored() {
        println!("SKIPPED: the tests were themselves started by nohup, and so is all they start");
        return;
    }
    let run = |prefix: &str| {
        let setup = Setup::new();
        let (folder, program) = (setup.folder().to_owned(), env!("CARGO_BIN_EXE_saola"));
        let run_dir = folder.join("run");
        let command = format!(
            "{prefix} {program} --bind 127.0.0.1:0 --admin-bind off --workers 1 --run-dir {} --pidfile {}",
            run_dir.display(),
            folder.join("pid").display()
        );
        // `script` is the terminal; its end is the end of the terminal.
        let mut script = Command::new("script");
        script.args(["-qc", &command, "/dev/null"]).current_dir(&folder).stdin(Stdio::piped());
        let mut terminal = script.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let status = || {
            let ended = Setup::new()
                .args(["status", "--json", "--run-dir", run_dir.to_str().unwrap()])
                .run();
            (ended.code == 0).then_some(ended.stdout)
        };
        wait::until("it serves", || status().is_some_and(|text| text.contains("running")));
        let pid = std::fs::read_to_string(folder.join("pid")).unwrap();
        let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
        terminal.kill().unwrap();
        terminal.wait().unwrap();
        Some((setup, pid, run_dir))
    };
    let Some((_folder, pid, run_dir)) = run("") else {
        println!("SKIPPED: there is no `script` here to be a terminal");
        return;
    };
    let is_gone = |pid| {
        let _reaped = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
        kill(pid, None).is_err()
    };
    wait::until("it has stopped", || is_gone(pid));
    assert!(!run_dir.join("control.sock").exists(), "in order");
    let (_folder, pid, run_dir) = run("nohup").unwrap();
    let stop = Setup::new().args(["stop", "--wait", "--run-dir", run_dir.to_str().unwrap()]).run();
    assert_eq!(stop.code, 0, "it serves on: {}", stop.stderr);
    wait::until("it has stopped", || is_gone(pid));
}

#[test]
fn a_terminal_that_is_resized_pauses_nobody() {
    // Sent by the kernel, with a code that no process can give itself: the terminal's driver does it on a resize.
    let setup = Setup::new();
    let run_dir = setup.folder().join("run");
    let mut script = Command::new("script");
    let command = format!(
        "{} --bind 127.0.0.1:0 --admin-bind off --workers 1 --run-dir {} & P=$!; \
         while ! [ -e {1}/control.sock ]; do sleep 0.05; done; sleep 0.3; stty rows 10 cols 20; stty rows 30 cols 90; \
         wait $P",
        env!("CARGO_BIN_EXE_saola"),
        run_dir.display()
    );
    let spawned = script
        .args(["-qc", &command, "/dev/null"])
        .current_dir(setup.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut terminal) = spawned else {
        println!("SKIPPED: there is no `script` here to be a terminal");
        return;
    };
    let ask = |args: &[&str]| {
        Setup::new().args(args.iter().copied()).args(["--run-dir", run_dir.to_str().unwrap()]).run()
    };
    wait::until("it serves", || ask(&["status", "--json"]).stdout.contains("running"));
    wait::pause(Duration::from_millis(800));
    assert!(ask(&["status", "--json"]).stdout.contains("\"paused\": false"));
    assert_eq!(ask(&["stop", "--wait"]).code, 0);
    let mut text = String::new();
    let _closed = terminal.stdout.take().unwrap().read_to_string(&mut text);
    terminal.wait().unwrap();
    assert!(!text.contains("paused"), "{text}");
}

/// Whether this process ignores SIGHUP (proc(5), `SigIgn`), which its children inherit.
fn is_hup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1
}

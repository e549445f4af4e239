//! A service that the tests start beside the server, and that never outlives them: a shell keeps it, and ends it when the
//! pipe from the test process breaks, be that by the end of the test, a panic or a SIGKILL.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// A running service.
pub(crate) struct Kept {
    keeper: RefCell<Child>,
    pub(crate) pid: Pid,
}

/// Arguments: the signal that ends the service, a folder to remove then, the service.
const KEEPER: &str = r#"
signal=$1 folder=$2; shift 2
"$@" >> "$folder/log" 2>&1 & pid=$!
echo $pid
read -r verdict
kill -CONT $pid; kill -$signal $pid; wait $pid
[ "$verdict" = keep ] || rm -rf "$folder"
"#;

impl Kept {
    /// Starts `command` in `folder`, where its output goes to `log`; `end` is the signal that ends it.
    pub(crate) fn start(
        command: impl IntoIterator<Item = impl AsRef<OsStr>>,
        folder: &Path,
        end: Signal,
    ) -> Self {
        let mut shell = Command::new("sh");
        let name = end.as_str().trim_start_matches("SIG");
        shell.args(["-c", KEEPER, "keeper", name]).arg(folder).args(command).current_dir(folder);
        // Of its own group: Ctrl-C is for the tests, and their end is what ends the service.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = shell.spawn().unwrap();
        let mut pid = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap());
        Self { keeper: RefCell::new(keeper), pid }
    }

    /// Ends it and keeps its folder, to start it there again.
    pub(crate) fn stop(&self) {
        self.end(b"keep\n");
    }

    /// Stops the service, and then its own children: a stopped one has no more of them.
    pub(crate) fn freeze(&self) {
        kill(self.pid, Signal::SIGSTOP).unwrap();
        let stat = format!("/proc/{}/stat", self.pid);
        wait::until("the service stands still", || {
            std::fs::read_to_string(&stat).unwrap().contains(") T ")
        });
        self.signal_children(Signal::SIGSTOP);
    }

    /// Lets all of them go on.
    pub(crate) fn thaw(&self) {
        self.signal_children(Signal::SIGCONT);
        kill(self.pid, Signal::SIGCONT).unwrap();
    }

    fn signal_children(&self, signal: Signal) {
        let children =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).unwrap();
        for pid in children.split_whitespace() {
            // It may have ended meanwhile.
            let _gone = kill(Pid::from_raw(pid.parse().unwrap()), signal);
        }
    }

    /// Lets the pipe break, as the end of the process would.
    pub(crate) fn abandon(&self) {
        drop(self.keeper.borrow_mut().stdin.take());
    }

    fn end(&self, verdict: &[u8]) {
        let mut keeper = self.keeper.borrow_mut();
        // Gone when it was stopped before.
        let Some(mut pipe) = keeper.stdin.take() else { return };
        let _ended_already = pipe.write_all(verdict);
        drop(pipe);
        wait::until("the keeper of a service has ended", || keeper.try_wait().unwrap().is_some());
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.end(b"");
    }
}

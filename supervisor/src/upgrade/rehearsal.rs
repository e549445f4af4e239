//! The rehearsal of a new program (S51): run beside the server with the arguments, the environment and the state that it
//! would take over; it boots one worker and says `ok`, or the upgrade is refused and nothing has happened.

use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Image, REHEARSAL, VARIABLES};
use crate::Exit;
use crate::lifecycle::cause::Status;

/// One that runs.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    pid: u32,
    output: PipeReader,
    heard: Vec<u8>,
}

impl Rehearsal {
    /// Starts the program at `path` in `home`, where this one was started.
    pub(crate) fn start(
        path: &Path,
        image: &Image,
        home: BorrowedFd<'_>,
        state: &OwnedFd,
    ) -> io::Result<Self> {
        let (output, input) = io::pipe()?;
        let flags = OFlag::from_bits_retain(fcntl(&output, FcntlArg::F_GETFL)?);
        fcntl(&output, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let mut command = Command::new(path);
        if let Some((name, rest)) = image.arguments.split_first() {
            command.arg0(name).args(rest);
        }
        for name in VARIABLES {
            command.env_remove(name);
        }
        command.env(REHEARSAL, state.as_raw_fd().to_string());
        command.current_dir(format!("/proc/self/fd/{}", home.as_raw_fd()));
        command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
        fcntl(state, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let child = command.spawn();
        fcntl(state, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        Ok(Self { pid: child?.id(), output, heard: Vec::new() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Reads what it says; all but the end is let go, should it say much.
    pub(crate) fn listen(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..16 {
            match self.output.read(&mut buffer) {
                Ok(length) if length > 0 => {
                    self.heard.extend(buffer.get(..length).unwrap_or_default());
                }
                Ok(_) | Err(_) => break,
            }
        }
        let surplus = self.heard.len().saturating_sub(MOST_HEARD);
        self.heard.drain(..surplus);
    }

    /// It was reaped: what came of it. The version that is ready to take over, or why it is not.
    pub(crate) fn verdict(mut self, status: Status) -> Result<String, (Exit, String)> {
        self.listen();
        judge(&String::from_utf8_lossy(&self.heard), status)
    }

    /// Nobody wants to know any more. It was not reaped, so its pid is its own.
    pub(crate) fn cancel(&self) {
        if let Ok(pid) = i32::try_from(self.pid) {
            let _dead = kill(Pid::from_raw(pid), Signal::SIGKILL);
            // It cannot take its files away any more. Never through a link.
            let _none = std::fs::remove_dir_all(folder(self.pid));
        }
    }
}

impl AsFd for Rehearsal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}

/// What a program says that can take over.
pub(crate) fn consent(version: &str, format: u32) -> String {
    format!("{CONSENT}{version} {format}")
}

fn judge(output: &str, status: Status) -> Result<String, (Exit, String)> {
    let said = output.lines().find_map(|line| line.strip_prefix(CONSENT)?.rsplit_once(' '));
    if let (Status::Exited(0), Some((version, _))) = (status, said) {
        return Ok(version.to_owned());
    }
    let errors: Vec<_> = output.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    let last = output.lines().rev().find(|line| !line.trim().is_empty());
    let text = match (errors.as_slice(), last) {
        ([], None) => format!("it ended with {status} and did not say that it could take over"),
        ([], Some(last)) => format!("{last} ({status})"),
        (errors, _) => format!("{} ({status})", errors.join("; ")),
    };
    let exit = match status {
        Status::Exited(4) => Exit::Load,
        Status::Exited(64) => Exit::Usage,
        Status::Exited(_) | Status::Signaled { .. } => Exit::Boot,
    };
    Err((exit, text))
}

const CONSENT: &str = "saola can take over: ";
const MOST_HEARD: usize = 16 << 10;

/// Where the process `pid` tries a worker.
pub(crate) fn folder(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("saola-check-{pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_program_that_says_so_can_take_over() {
        let consent = consent("2.0.0 beta", 1);
        let output = format!("hello from main\n{consent}\n");
        assert_eq!(judge(&output, Status::Exited(0)), Ok("2.0.0 beta".to_owned()));
        let refused = |output: &str, status| judge(output, status).unwrap_err();
        assert_eq!(refused(&output, Status::Exited(1)).0, Exit::Boot);
        assert_eq!(refused("", Status::Exited(0)).0, Exit::Boot);
        let (exit, text) = refused("error: a\nx\nerror: b\n", Status::Exited(64));
        assert_eq!((exit, text.as_str()), (Exit::Usage, "a; b (exit 64)"));
        let (exit, text) = refused("oops\n", Status::Signaled { signal: 11, core: false });
        assert_eq!((exit, text.as_str()), (Exit::Boot, "oops (signal 11)"));
    }
}

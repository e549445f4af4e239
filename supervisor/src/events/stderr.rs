//! Standard error of its own, which never blocks: for errors of the start, and for lines while no observer runs (S75).

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc;
use nix::sys::socket::{MsgFlags, send};

/// An open file description of our own, so that the flag of the one we share with others stays as it is; a regular file needs
/// no flag.
#[derive(Debug)]
pub(crate) enum Stderr {
    File(File),
    /// A socket cannot be opened anew (ENXIO); it takes the flag with each message.
    Socket,
}

impl Stderr {
    pub(crate) fn open() -> Self {
        Self::of(std::io::stderr().as_fd())
    }

    fn of(stderr: BorrowedFd<'_>) -> Self {
        // A regular file never makes us wait. Stdout may be the same (`> log 2>&1`): with a place of its own in the file, each
        // would write over the other.
        let shared = stderr.try_clone_to_owned().map(File::from);
        if let Ok(file) = shared
            && file.metadata().is_ok_and(|facts| facts.is_file())
        {
            return Self::File(file);
        }
        let mut options = OpenOptions::new();
        options.append(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY);
        let path = format!("/proc/self/fd/{}", stderr.as_raw_fd());
        options.open(path).map_or(Self::Socket, Self::File)
    }

    /// Whether the line was written, all of it: what does not fit is the reader's loss, never our wait.
    pub(crate) fn write(&mut self, line: &[u8]) -> bool {
        match self {
            Self::File(file) => file.write_all(line).is_ok(),
            Self::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(std::io::stderr().as_raw_fd(), line, flags)
                    .is_ok_and(|sent| sent == line.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::unistd::pipe;

    use super::*;

    #[test]
    fn a_file_that_stdout_shares_keeps_the_lines_of_both() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut stdout = File::create_new(&path).unwrap();
        let mut stderr = Stderr::of(stdout.as_fd());
        stdout.write_all(b"one\n").unwrap();
        assert!(stderr.write(b"two, which is long\n"));
        stdout.write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one\ntwo, which is long\nthree\n");
    }

    #[test]
    fn a_pipe_is_never_waited_for_and_its_other_users_notice_nothing() {
        let (_read, write) = pipe().unwrap();
        let mut stderr = Stderr::of(write.as_fd());
        while stderr.write(&[b'x'; 4_096]) {}
        let flags = fcntl(&write, FcntlArg::F_GETFL).unwrap();
        assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
    }
}

//! Standard error of its own, which never blocks: for errors of the start, and for lines while no observer runs (S75).

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc;
use nix::sys::socket::{MsgFlags, send};

/// An open file description of our own, so that the flag of the one we share with others stays as it is.
#[derive(Debug)]
pub(crate) enum Stderr {
    File(File),
    /// A socket cannot be opened anew (ENXIO); it takes the flag with each message.
    Socket,
}

impl Stderr {
    pub(crate) fn open() -> Self {
        let mut options = OpenOptions::new();
        options.append(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY);
        options.open("/proc/self/fd/2").map_or(Self::Socket, Self::File)
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

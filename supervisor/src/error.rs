//! What can go wrong before the server serves, and the exit code of each.

use nix::errno::Errno;
use saola_observability::{RunDirError, SlotError};

use crate::Exit;
use crate::listeners::ListenError;
use crate::pidfile::PidfileError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot fork: {} threads are running ({}); start threads in the worker closure", names.len() + 1, names.join(", "))]
    Threads { names: Vec<String> },
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Pidfile(#[from] PidfileError),
    #[error("cannot give the run directory to the user of the workers")]
    Ownership(#[source] std::io::Error),
    #[error("cannot make the slot files")]
    Slots(#[from] SlotError),
    #[error(
        "cannot run workers as user {uid}: only root can; start it as root or leave --user out"
    )]
    Identity { uid: u32 },
    #[error("cannot {attempt}: {why}")]
    Takeover { attempt: &'static str, why: String },
    #[error("cannot {attempt}: {}", errno.desc())]
    System { attempt: &'static str, errno: Errno },
}

impl Error {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Threads { .. } => Exit::Internal,
            // No space shows when the files are made.
            Self::RunDir(_) | Self::Slots(_) | Self::Ownership(_) | Self::Pidfile(_) => {
                Exit::RunDir
            }
            Self::Listen(error) => match error {
                ListenError::InUse { .. } => Exit::AddressInUse,
                ListenError::Permission { .. } => Exit::Permission,
                ListenError::NotASocket { .. }
                | ListenError::Name { .. }
                | ListenError::Inherited { .. }
                | ListenError::NoneInherited { .. } => Exit::Usage,
                ListenError::System { .. } => Exit::System,
                ListenError::Interrupted => Exit::Success,
            },
            Self::Identity { .. } => Exit::Permission,
            Self::Takeover { .. } | Self::System { .. } => Exit::System,
        }
    }

    /// The whole chain on one line, as stderr shows it.
    pub(crate) fn line(&self) -> String {
        let mut line = format!("error: {self}");
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            line.push_str(": ");
            line.push_str(&cause.to_string());
            source = cause.source();
        }
        line.push('\n');
        line
    }
}

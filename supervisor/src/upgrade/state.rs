//! The state that one image hands to the next: JSON with a format number, of which a release reads its own and the one
//! before (S52). Numbers of descriptors are those of this process, which an exec does not change.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lifecycle::event::QueueNumber;
use crate::lifecycle::handover::Handover;

/// Everything that a running server is, but for its program.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct State {
    pub(crate) format: u32,
    /// Of the image that wrote this, and the one that it makes room for.
    pub(crate) from: Program,
    pub(crate) to: Program,
    /// Of the settings of the image that an upgrade begins with.
    pub(crate) memento: Option<String>,
    pub(crate) run_dir: PathBuf,
    /// As the settings have said it; it cannot be changed by an upgrade.
    pub(crate) given_run_dir: Option<PathBuf>,
    pub(crate) lock: RawFd,
    pub(crate) pidfile: Option<(PathBuf, RawFd)>,
    pub(crate) listeners: Vec<Socket>,
    pub(crate) admin: Option<Socket>,
    /// What the settings have said of the admin listener.
    pub(crate) admin_bind: String,
    pub(crate) control: Option<ControlState>,
    pub(crate) workers: Vec<WorkerState>,
    pub(crate) observer: Option<ObserverState>,
    pub(crate) is_nohup: bool,
    pub(crate) had_terminal: bool,
    pub(crate) last_reload: Option<Value>,
    pub(crate) last_upgrade: Option<Value>,
    /// None in a rehearsal, which takes nothing over.
    pub(crate) life: Option<Handover>,
}

#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Socket {
    #[serde(flatten)]
    pub(crate) sockets: Sockets,
    pub(crate) address: String,
    pub(crate) bind: String,
    pub(crate) file: Option<SocketFile>,
}

/// The one that all workers share, or one for each accept queue.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) enum Sockets {
    #[serde(rename = "fd")]
    Shared(RawFd),
    #[serde(rename = "own")]
    Own { by_queue: Vec<(QueueNumber, RawFd)>, backlog: u32 },
}

/// The file of a unix socket, and the lock beside it.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct SocketFile {
    pub(crate) path: PathBuf,
    pub(crate) inode: u64,
    pub(crate) lock: RawFd,
}

#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct WorkerState {
    pub(crate) slot: u32,
    pub(crate) child: Child,
    pub(crate) channel: Option<RawFd>,
}

#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct ObserverState {
    pub(crate) child: Child,
    pub(crate) lifeline: RawFd,
    pub(crate) age: Duration,
}

/// A process, and when it was born: a pid alone could be another's by now.
#[derive(Copy, Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
}

#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct ControlState {
    pub(crate) fd: RawFd,
    pub(crate) path: PathBuf,
    pub(crate) next: u64,
    pub(crate) connections: Vec<ConnectionState>,
    pub(crate) waiting: Vec<WaitingState>,
}

#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct ConnectionState {
    pub(crate) number: u64,
    pub(crate) fd: RawFd,
    pub(crate) uid: u32,
    pub(crate) pid: i32,
    pub(crate) input: Vec<u8>,
    pub(crate) output: Vec<u8>,
}

#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct WaitingState {
    pub(crate) client: u64,
    pub(crate) connection: u64,
    pub(crate) id: Value,
    pub(crate) waits: bool,
}

impl State {
    /// Understands a state of this format or the one before.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for an operator.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |error: serde_json::Error| format!("the state cannot be read: {error}");
        let Format { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if format != FORMAT {
            return Err(format!("the state has format {format}, this version reads {FORMAT}"));
        }
        serde_json::from_slice(bytes).map_err(unreadable)
    }

    /// Whether each worker has an accept queue of its own; none where there is no socket of which that could be said.
    pub(crate) fn reuses_port(&self) -> Option<bool> {
        let socket = self.listeners.first()?;
        Some(matches!(socket.sockets, Sockets::Own { .. }))
    }

    /// Every descriptor that it names.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let mut all = vec![self.lock];
        all.extend(self.pidfile.iter().map(|(_, fd)| *fd));
        for socket in self.listeners.iter().chain(&self.admin) {
            match &socket.sockets {
                Sockets::Shared(fd) => all.push(*fd),
                Sockets::Own { by_queue, .. } => {
                    all.extend(by_queue.iter().map(|(_, fd)| fd));
                }
            }
            all.extend(socket.file.iter().map(|file| file.lock));
        }
        if let Some(control) = &self.control {
            all.push(control.fd);
            all.extend(control.connections.iter().map(|connection| connection.fd));
        }
        all.extend(self.workers.iter().filter_map(|worker| worker.channel));
        all.extend(self.observer.iter().map(|observer| observer.lifeline));
        all
    }
}

/// The first: there is none before it.
pub(crate) const FORMAT: u32 = 1;

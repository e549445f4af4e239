//! Why a worker ended: the finer cause of a line, and the closed sets of the metrics (S30, F44).

use std::fmt;

use saola_observability::LostReason;
use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Status {
    Exited(i32),
    Signaled { signal: i32, core: bool },
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit {code}"),
            Self::Signaled { signal, .. } => write!(f, "signal {signal}"),
        }
    }
}

/// Whether the kernel has taken a process because memory ran out.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Oom {
    No,
    Yes,
    /// Its count cannot be read here.
    Unknown,
}

/// Which part of its boot a worker failed in.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Stage {
    /// Anything but the user's closure. Exit code 3.
    Boot,
    /// The user's closure returned an error. Exit code 4.
    Load,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    Exit,
    Signal,
    Panic,
    Boot,
    Load,
    Fork,
    Heartbeat,
    BootTimeout,
    /// Somebody has stopped it (`SIGSTOP`), and nobody has continued it.
    Stopped,
    /// Beats, and takes no connection though some wait.
    AcceptStalled,
    /// `max_requests` are served.
    Requests,
    /// `max_lifetime` has passed.
    Lifetime,
    MaxMemory,
    MaxMemoryHard,
    /// Ended by the kernel, which needed its memory.
    Oom,
    Reload,
    /// Belonged to a generation that was given up before it served.
    Discarded,
    /// Another program serves.
    Upgrade,
    /// The program it belonged to did not prove itself.
    Rollback,
    Ttou,
    /// Asked for by number.
    Scale,
    /// Left by itself, asked by somebody else than the supervisor.
    Retired,
    /// The server stops.
    Stop,
    /// The server stops at once.
    Quit,
}

impl Cause {
    /// What the end of a worker that nobody asked to go means.
    pub(crate) fn of(status: Status) -> Self {
        match status {
            Status::Exited(PANICKED) => Self::Panic,
            Status::Exited(_) => Self::Exit,
            Status::Signaled { .. } => Self::Signal,
        }
    }

    /// What an end before READY means (S14).
    pub(crate) fn of_boot(status: Status) -> Self {
        match status {
            Status::Exited(4) => Self::Load,
            Status::Exited(_) | Status::Signaled { .. } => Self::Boot,
        }
    }

    /// The word in the line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Panic => "panic",
            Self::Boot => "boot",
            Self::Load => "load",
            Self::Fork => "fork",
            Self::Heartbeat => "heartbeat",
            Self::BootTimeout => "boot_timeout",
            Self::Stopped => "stopped",
            Self::AcceptStalled => "accept_stalled",
            Self::Requests => "requests",
            Self::Lifetime => "lifetime",
            Self::MaxMemory => "max_memory",
            Self::MaxMemoryHard => "max_memory_hard",
            Self::Oom => "oom",
            Self::Scale => "scale",
            Self::Reload => "reload",
            Self::Discarded => "discarded",
            Self::Upgrade => "upgrade",
            Self::Rollback => "rollback",
            Self::Ttou => "ttou",
            Self::Retired => "retired",
            Self::Stop => "stop",
            Self::Quit => "quit",
        }
    }

    /// The label of `saola_worker_restarts_total`; none when the server ends.
    pub(crate) fn restart_reason(self) -> Option<&'static str> {
        match self {
            Self::Exit | Self::Signal | Self::Panic | Self::Boot | Self::Load | Self::Fork => {
                Some("crash")
            }
            Self::Heartbeat | Self::BootTimeout | Self::Stopped | Self::AcceptStalled => {
                Some("timeout")
            }
            Self::MaxMemory | Self::MaxMemoryHard | Self::Oom => Some("memory"),
            Self::Requests | Self::Lifetime => Some("max_requests"),
            Self::Reload | Self::Discarded => Some("reload"),
            Self::Upgrade | Self::Rollback => Some("upgrade"),
            Self::Ttou | Self::Scale | Self::Retired => Some("scale"),
            Self::Stop | Self::Quit => None,
        }
    }

    /// Why requests that died with the worker are lost.
    pub(crate) fn lost_reason(self) -> LostReason {
        match self {
            Self::Exit | Self::Signal | Self::Panic | Self::Boot | Self::Load | Self::Fork => {
                LostReason::Crash
            }
            Self::Heartbeat | Self::BootTimeout | Self::Stopped | Self::AcceptStalled => {
                LostReason::Timeout
            }
            Self::MaxMemoryHard | Self::Oom => LostReason::Memory,
            Self::Requests
            | Self::Lifetime
            | Self::MaxMemory
            | Self::Reload
            | Self::Discarded
            | Self::Upgrade
            | Self::Rollback
            | Self::Ttou
            | Self::Scale
            | Self::Retired
            | Self::Stop => LostReason::Drain,
            Self::Quit => LostReason::Quit,
        }
    }

    /// Whether nobody wanted this end: it counts against the budget (S28).
    pub(crate) fn is_unplanned(self) -> bool {
        self == Self::Oom || matches!(self.restart_reason(), Some("crash" | "timeout"))
    }
}

/// The code of a child whose closure panicked (`process.rs`).
pub(crate) const PANICKED: i32 = 101;

//! The supervisor of Saola: it forks, watches and replaces workers, and never serves a request itself.
//!
//! One thread, no async runtime, no HTTP. Decisions are made by a pure machine (`lifecycle.rs`); `supervisor.rs` carries
//! them out. What a worker and an observer *do* is not known here: the caller hands that in as [`Children`].

mod channel;
mod error;
mod events;
mod lifecycle;
mod listeners;
mod process;
mod signals;
mod slots;
mod supervisor;

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use saola_observability::{Choice, Event, SlotFiles};

pub use channel::{Channel, Order, Stage};
pub use listeners::{Bind, BindError, Listener};

/// Everything that the supervisor is told. Read and checked by the caller.
#[derive(Clone)]
pub struct Settings {
    /// The server's name, shown in titles and lines.
    pub name: String,
    /// The version, kept in the run directory's lock for whoever meets it.
    pub version: &'static str,
    /// Where to listen; a name may mean several addresses. Not empty.
    pub bind: Vec<Bind>,
    /// Where the observer listens.
    pub admin_bind: AdminBind,
    /// How many workers there are to be.
    pub workers: NonZeroU32,
    /// Where that number is from: `flag`, `cgroup quota`.
    pub workers_from: &'static str,
    /// The most workers that `SIGTTIN` may ask for; at least `workers`.
    pub max_workers: NonZeroU32,
    /// How many connections may wait on each socket. Default 4096.
    pub backlog: u32,
    /// The longest a worker may go without a heartbeat; zero switches this off. Default 30 s.
    pub timeout: Duration,
    /// The longest a worker may take from fork to READY. Default 60 s.
    pub boot_timeout: Duration,
    /// The longest a worker may take to finish open requests. Default 30 s.
    pub graceful_timeout: Duration,
    /// How long a worker that was told to end may take before it is killed. Default 2 s.
    pub abort_grace: Duration,
    /// How long a stopping server serves on before it drains. Default 0.
    pub pre_stop_delay: Duration,
    /// How many generations may drain beside the one that serves. Default 2.
    pub max_old_generations: NonZeroU32,
    /// How the run directory is found. Its `slots_at_peak` is at least [`Settings::slots_at_peak`].
    pub run_dir: Choice,
    /// Writes an operator line, with its newline, for the moments when no observer runs.
    pub encode: Encode,
}

impl Settings {
    /// The most slots that can be in use at once: every generation that may live beside another.
    pub fn slots_at_peak(&self) -> u32 {
        self.limits().slots()
    }

    fn limits(&self) -> lifecycle::Limits {
        lifecycle::Limits {
            workers: self.workers.get(),
            max_workers: self.max_workers.max(self.workers).get(),
            timeout: self.timeout,
            boot_timeout: self.boot_timeout,
            graceful_timeout: self.graceful_timeout,
            abort_grace: self.abort_grace,
            pre_stop_delay: self.pre_stop_delay,
            max_old_generations: self.max_old_generations.get(),
        }
    }
}

/// Writes one line with its newline. A closure, so that the encoder of all lines can stay with the observer.
pub type Encode = std::rc::Rc<dyn Fn(&Event<'_>) -> Vec<u8>>;

/// Where the observer's admin listener is.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum AdminBind {
    /// `127.0.0.1:9090`; that it is taken is a warning.
    Default,
    /// As the operator said; that it is taken is an error.
    Given(Bind),
    /// There is none.
    Off,
}

/// What the children do. Each is called in a process of its own, which ends with the answer.
pub trait Children {
    /// Serves until told to stop.
    fn worker(&mut self, birth: Birth) -> Exit;
    /// Reads and exports until told to stop.
    fn observer(&mut self, birth: ObserverBirth) -> Exit;
}

/// What a worker is born with: these descriptors, 0 to 2, and nothing else.
#[derive(Debug)]
pub struct Birth {
    /// The number of its place.
    pub slot: u32,
    /// The generation it belongs to, from 1.
    pub generation: u64,
    /// How many workers there are to be.
    pub workers: u32,
    /// To attach, before any code that counts.
    pub slot_files: SlotFiles,
    /// The sockets to accept from.
    pub listeners: Vec<Listener>,
    /// To the supervisor.
    pub channel: Channel,
    /// Where the slot files are.
    pub run_dir: PathBuf,
}

/// What the observer is born with: these descriptors, 0 to 2, and nothing else.
#[derive(Debug)]
pub struct ObserverBirth {
    /// To attach, before any code that counts.
    pub slot_files: SlotFiles,
    /// The byte `q` or the end of the file mean: read everything to its end, then exit (O3).
    pub lifeline: OwnedFd,
    /// The admin listener, if there is one.
    pub admin: Option<Listener>,
    /// Where the slot files are.
    pub run_dir: PathBuf,
}

/// How a process of Saola ends. `main` turns it into a number, nothing else does.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Exit {
    /// As it was asked to.
    Success,
    /// A worker died or hung before it was ready.
    Boot,
    /// The application failed to load.
    Load,
    /// An address is in use.
    AddressInUse,
    /// The run directory was refused.
    RunDir,
    /// Wrong settings or usage.
    Usage,
    /// No supervisor can be reached.
    Unavailable,
    /// A broken invariant, or a thread before a fork.
    Internal,
    /// Some other system call failed at the start.
    System,
    /// Refused because something else is under way.
    Busy,
    /// Permission denied.
    Permission,
    /// A waiting command was not answered in time.
    TimedOut,
}

impl Exit {
    /// The number that the operating system is told.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Boot => 3,
            Self::Load => 4,
            Self::AddressInUse => 5,
            Self::RunDir => 6,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::System => 71,
            Self::Busy => 75,
            Self::Permission => 77,
            Self::TimedOut => 124,
        }
    }
}

/// Runs a server until it is told to stop, or cannot start.
///
/// The caller's process becomes the supervisor: it must have no other thread, and no more use for its arguments, whose
/// memory becomes the title. What went wrong stands on stderr or in the log; the answer is for `main`.
pub fn run(settings: &Settings, children: &mut dyn Children) -> Exit {
    supervisor::run(settings, children)
}

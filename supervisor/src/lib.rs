//! The supervisor of Saola: it forks, watches and replaces workers, and never serves a request itself.
//!
//! One thread, no async runtime, no HTTP. Decisions are made by a pure machine (`lifecycle.rs`); `supervisor.rs` carries
//! them out. What a worker and an observer *do* is not known here: the caller hands that in as [`Children`].

mod channel;
pub mod client;
mod control;
mod descriptors;
mod error;
mod events;
mod hooks;
mod identity;
mod lifecycle;
mod listeners;
mod notify;
mod oom;
mod pidfile;
mod process;
mod rehearse;
mod signals;
mod slots;
mod supervisor;
mod upgrade;

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use saola_observability::{Choice, Event, SlotFiles};

pub use channel::{Channel, Order, Stage};
pub use hooks::{Ended, Hooks, WorkerExit};
pub use identity::{Identity, Owner};
pub use listeners::{Bind, BindError, Listener};
pub use notify::Manager;
pub use process::WorkerTitle;
pub use upgrade::{Image, Start, recall, retreat};

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
    /// Whether each worker has a socket, and so an accept queue, of its own. Only where all of `bind` is TCP. Default no.
    pub reuse_port: bool,
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
    /// The age at which a worker is replaced, its successor first. Default 0: never.
    pub max_lifetime: Duration,
    /// The least age at which a worker that asks for it is replaced. Default 1 s.
    pub min_lifetime: Duration,
    /// Private bytes over which a worker is replaced, its successor first. Default 0: no limit.
    pub max_memory: u64,
    /// Private bytes over which a worker drains at once. Default 0: no limit.
    pub max_memory_hard: u64,
    /// How long the server waits for any worker to serve before it ends with 3. Default 0: for ever.
    pub give_up: Duration,
    /// Whether an observer runs. Without one nobody reads what the workers write.
    pub has_observer: bool,
    /// How long the old workers of an upgrade stand by, should the new ones fail. Default 5 s.
    pub upgrade_probation: Duration,
    /// The program that runs.
    pub image: Image,
    /// What the caller needs to read these settings as they are now, should this program come back after a failed upgrade.
    pub memento: Option<String>,
    /// A file that holds the pid, locked. Default none.
    pub pidfile: Option<PathBuf>,
    /// Permissions that new files do not get. Default `0o077`.
    pub umask: u32,
    /// Where the server goes before it opens anything. Default: where it was started.
    pub chdir: Option<PathBuf>,
    /// Permissions of unix sockets with a path. Default `0o660`.
    pub socket_mode: u32,
    /// Who owns them. Default: whoever makes them.
    pub socket_owner: Owner,
    /// Who workers and observer are. Default: whoever starts the server.
    pub identity: Option<Identity>,
    /// A program that is run for each event. Default none.
    pub hook: Option<PathBuf>,
    /// What the service manager gave us.
    pub manager: Manager,
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

    /// Names of settings that only a restart or an upgrade can change (S47), and that differ.
    fn fixed_differences(&self, new: &Self) -> Vec<&'static str> {
        let pairs = [
            ("run_dir", self.run_dir.given != new.run_dir.given),
            ("ring_bytes", self.run_dir.shape != new.run_dir.shape),
            ("name", self.name != new.name),
            ("pidfile", self.pidfile != new.pidfile),
            ("reuse_port", self.reuse_port != new.reuse_port),
            ("umask", self.umask != new.umask),
            ("chdir", self.chdir != new.chdir),
            ("socket_mode", self.socket_mode != new.socket_mode),
            ("socket_user or socket_group", self.socket_owner != new.socket_owner),
            ("user or group", self.identity != new.identity),
        ];
        pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// Of the sockets that workers accept from.
    fn waiting(&self) -> listeners::Waiting {
        listeners::Waiting { reuse_port: self.reuse_port, ..self.waiting_alone() }
    }

    /// Of a socket that one process accepts from.
    fn waiting_alone(&self) -> listeners::Waiting {
        listeners::Waiting {
            backlog: self.backlog,
            reuse_port: false,
            socket_mode: self.socket_mode,
            socket_owner: self.socket_owner,
        }
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
            max_lifetime: self.max_lifetime,
            min_lifetime: self.min_lifetime,
            max_memory: self.max_memory,
            max_memory_hard: self.max_memory_hard,
            give_up: self.give_up,
            has_observer: self.has_observer,
            reuse_port: self.reuse_port,
            upgrade_probation: self.upgrade_probation,
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

impl AdminBind {
    /// Where it is when nobody says.
    fn fallback() -> Bind {
        Bind::Tcp { host: "127.0.0.1".to_owned(), port: 9090 }
    }
}

/// What the children do. Each is called in a process of its own, which ends with the answer.
pub trait Children {
    /// Serves until told to stop.
    fn worker(&mut self, birth: Birth) -> Exit;
    /// Reads and exports until told to stop.
    fn observer(&mut self, birth: ObserverBirth) -> Exit;
    /// What else is to hear of the life of the server.
    fn hooks(&mut self) -> Option<&mut (dyn Hooks + 'static)> {
        None
    }
    /// Reads the settings anew, for the workers of `generation`; those of the serving one are kept beside them.
    ///
    /// # Errors
    ///
    /// Every mistake in them: nothing changes then.
    fn reread(&mut self, generation: u64) -> Result<Reread, Vec<String>>;
    /// From now on only `generation` has children: what was read for others is needed no more.
    fn settle(&mut self, generation: u64);
}

/// Settings that were read anew.
#[derive(Clone)]
pub struct Reread {
    /// The supervisor's part.
    pub settings: Settings,
    /// Whether the observer is to be replaced, because its part changed.
    pub observer_changed: bool,
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
    /// Its own, to be told apart by.
    pub title: WorkerTitle,
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
    /// The generation that serves: whose settings hold.
    pub generation: u64,
}

/// How a process of Saola ends. `main` turns it into a number, nothing else does.
#[derive(Copy, Clone, Eq, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
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

/// Boots one worker and ends it again: what `check --boot` does. Nothing of a running server is touched.
///
/// # Errors
///
/// The exit code and the reason: 3 or 4 as at a start.
pub fn boot_once(settings: &Settings, children: &mut dyn Children) -> Result<(), (Exit, String)> {
    rehearse::boot_once(settings, children)
}

/// Runs a server until it is told to stop, or cannot start.
///
/// The caller's process becomes the supervisor: it must have no other thread, and no more use for its arguments, whose
/// memory becomes the title. What went wrong stands on stderr or in the log; the answer is for `main`.
pub fn run(settings: &Settings, children: &mut dyn Children) -> Exit {
    supervisor::run(settings, children)
}

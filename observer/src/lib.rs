//! The observer of Saola: reads the slot files of all processes and turns them into lines on stdout, spans for a
//! collector and answers of the admin listener.
//!
//! It reads and never steers: no worker waits for it, and if it dies the next one goes on at its cursors.

mod admin;
mod again;
mod bridge;
mod environment;
mod filter;
pub mod follow;
pub mod logfmt;
mod lost;
mod metrics;
mod otlp;
mod output;
mod profile;
mod reader;
mod rhythm;
mod run;
mod status;
pub mod top;
mod voice;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use saola_observability::Slot;
use saola_observability::reader::ReadError;

pub use environment::SettingError;
pub use filter::{AccessLog, LevelFilter, LineFilter};
pub use otlp::{Certificates, Compression, OtlpSettings, Protocol, Resource, SpanLimits};
pub use profile::ProfileSettings;

/// What the observer is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The run directory, whose slot files it reads.
    pub run_dir: PathBuf,
    /// Who the telemetry is from; its name is the key `service` of every line.
    pub service: Resource,
    /// How lines look: [`logfmt::FormatChoice::resolve`].
    pub format: logfmt::Format,
    /// Whether lines for people are coloured: [`logfmt::ColourFacts::wants_colour`].
    pub has_colour: bool,
    /// Which records become lines.
    pub lines: LineFilter,
    /// From this duration on a request's line is a warning. Default 1 s.
    pub slow_request: Duration,
    /// Where spans go; `None` exports none.
    pub otlp: Option<OtlpSettings>,
    /// Where profiles go; `None` pushes none.
    pub profiles: Option<ProfileSettings>,
    /// Profile samples that workers take, a second of CPU time; 0 is none.
    pub profile_hz: u32,
    /// The host that the admin listener was bound to, if it was a name: a `Host` that requests may carry.
    pub admin_name: Option<String>,
    /// What the admin listener says to who asks for a profile of a heap, if workers write none.
    pub no_heap_profiles: Option<String>,
    /// Said once at start, as warnings: [`OtlpSettings::warnings`].
    pub warnings: Vec<String>,
}

/// Why [`run`] returned.
#[derive(Debug)]
pub enum ExitReason {
    /// It was told to, or the supervisor died; everything that could come out is out.
    Stopped,
    /// It could not begin.
    Failed(Error),
}

/// The observer could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No runtime.
    #[error("cannot build the observer's runtime")]
    Runtime(#[source] io::Error),
    /// The lifeline is no pipe.
    #[error("cannot watch the observer's lifeline")]
    Lifeline(#[source] io::Error),
    /// No thread for stdout.
    #[error("cannot start the writer of stdout")]
    Output(#[source] io::Error),
    /// The slot files cannot be read.
    #[error("cannot read the slot files")]
    Slots(#[from] ReadError),
}

/// Runs the observer in a process of its own, just forked: ignores the signals that reach the whole group, builds a
/// runtime, and returns when byte `q` or the end of `lifeline` has come, at most two seconds later.
///
/// `slot` is the observer's own, attached on this thread; `admin` is a bound listener, TCP or unix. The caller leaves
/// by `_exit`: the thread that writes stdout may hang in `write(2)` for ever.
pub fn run(
    settings: Settings,
    slot: &'static Slot,
    lifeline: OwnedFd,
    admin: Option<OwnedFd>,
) -> ExitReason {
    prepare();
    again::tell_of_panics();
    otlp::install_tls();
    let stdout = match io::stdout().as_fd().try_clone_to_owned() {
        Ok(stdout) => stdout,
        Err(error) => return ExitReason::Failed(Error::Output(error)),
    };
    run::run(settings, run::Given { slot, lifeline, admin, stdout })
}

/// Makes the process deaf to what a terminal or a service manager sends to all: the lifeline decides.
fn prepare() {
    for number in
        [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGPIPE]
    {
        ignore(number);
    }
    // Blocked signals would only stay pending. Neither this nor the name is worth not starting for.
    let _ = SigSet::empty().thread_set_mask();
    let _ = prctl::set_name(c"saola-observer");
}

#[expect(unsafe_code, reason = "ignores a signal; nix cannot know which handlers are sound")]
fn ignore(number: Signal) {
    // SAFETY: sigaction(2) wants a handler that is safe to run in a signal context; SIG_IGN runs no code at all.
    let former = unsafe { signal(number, SigHandler::SigIgn) };
    debug_assert!(former.is_ok(), "these signals can be ignored");
}

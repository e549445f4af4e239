//! `check --boot`: one worker, up to READY, in a run directory of its own and on a port that nobody knows (S10).

use std::io::Write as _;
use std::os::fd::{AsFd as _, RawFd};
use std::path::PathBuf;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use saola_observability::Chosen;
use saola_observability::reader::Reader;

use crate::channel::{HungUp, Line, Stage, Word};
use crate::error::Error;
use crate::lifecycle::event::QueueNumber;
use crate::listeners::{self, Bind};
use crate::process::{self, Plan, Process, Role, Title};
use crate::slots::Slots;
use crate::upgrade::state::{FORMAT, State};
use crate::upgrade::{rehearsal, unseal};
use crate::{Birth, Children, Exit, Settings, WorkerTitle};

/// Boots one worker and ends it again.
///
/// # Errors
///
/// The exit code and the reason: 3 or 4 as at a start.
pub(crate) fn boot_once(
    settings: &Settings,
    children: &mut dyn Children,
) -> Result<(), (Exit, String)> {
    let mut settings = settings.clone();
    settings.run_dir.given = Some(rehearsal::folder(std::process::id()));
    let Chosen { dir, shape, .. } = Slots::choose(&settings).map_err(|error| refusal(&error))?;
    let mut slots =
        Slots::create(dir, shape, settings.identity.clone()).map_err(|error| refusal(&error))?;
    let result = fork(&settings, children, &mut slots)
        .and_then(|(process, line)| watch(&settings, &process, &line));
    slots.remove();
    result
}

/// Shows a running server that this program could take over: it understands the state, reads the slot files, and one
/// worker boots (S51).
pub(crate) fn rehearse(
    settings: &Settings,
    children: &mut dyn Children,
    state: RawFd,
) -> Result<Exit, Error> {
    let refuse = |why: String| Error::Takeover { attempt: "take over", why };
    let bytes = unseal(state).map_err(|error| refuse(error.to_string()))?;
    let state = State::parse(&bytes).map_err(refuse)?;
    let own = settings.pidfile.as_ref();
    let mut fixed = Vec::new();
    if state.given_run_dir != settings.run_dir.given {
        fixed.push("run_dir");
    }
    if state.pidfile.as_ref().map(|(path, _)| path) != own {
        fixed.push("pidfile");
    }
    if state.reuses_port().is_some_and(|reuses_port| reuses_port != settings.reuse_port) {
        fixed.push("reuse_port");
    }
    if !fixed.is_empty() {
        return Err(refuse(format!("{} changed: needs a restart", fixed.join(", "))));
    }
    let mut reader = Reader::open(&state.run_dir).map_err(|error| refuse(error.to_string()))?;
    let _families = reader.read().map_err(|error| refuse(error.to_string()))?;
    if let Some(bad) = reader.bad().first() {
        return Err(refuse(format!("{}: {}", bad.path.display(), bad.why)));
    }
    drop(reader);
    if let Err((exit, why)) = boot_once(settings, children) {
        let line = format!("error: a worker cannot boot: {why}\n");
        let _closed = std::io::stderr().write_all(line.as_bytes());
        return Ok(exit);
    }
    let consent = rehearsal::consent(settings.version, FORMAT);
    let _closed = writeln!(std::io::stdout(), "{consent}");
    Ok(Exit::Success)
}

fn fork(
    settings: &Settings,
    children: &mut dyn Children,
    slots: &mut Slots,
) -> Result<(Process, Line), (Exit, String)> {
    let system = |error: &dyn std::fmt::Display| (Exit::System, error.to_string());
    let title = Title::claim();
    let (line, channel) = Line::pair().map_err(|error| system(&error))?;
    let address = Bind::Tcp { host: "127.0.0.1".to_owned(), port: 0 };
    let mut kept =
        listeners::bind_now(&address, &[], settings.waiting_alone()).map_err(|e| system(&e))?;
    let shared: Result<Vec<_>, _> =
        kept.iter_mut().map(|kept| kept.share(QueueNumber::default())).collect();
    let birth = Birth {
        slot: 0,
        generation: 1,
        workers: settings.workers.get(),
        slot_files: slots
            .open_worker(crate::lifecycle::event::SlotNumber(0), 1)
            .map_err(|error| system(&error))?,
        listeners: shared.map_err(|error| system(&error))?,
        channel,
        title: WorkerTitle { title, text: "saola: check".to_owned() },
        run_dir: PathBuf::from(slots.path()),
    };
    let identity = settings.identity.as_ref();
    let plan = Plan { role: Role::Worker, identity, title, name: "saola: check" };
    let process = process::fork(&plan, birth, |birth| children.worker(birth).code());
    match process {
        Ok(process) => Ok((process, line)),
        Err(why) => Err((Exit::System, format!("cannot fork: {why:?}"))),
    }
}

/// Waits for its word, and ends it.
fn watch(settings: &Settings, process: &Process, line: &Line) -> Result<(), (Exit, String)> {
    let end = Instant::now() + settings.boot_timeout;
    let mut result = None;
    while result.is_none() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            result = Some(Err((Exit::Boot, "it was not ready within boot_timeout".to_owned())));
            break;
        }
        let mut fds = [PollFd::new(line.as_fd(), PollFlags::POLLIN)];
        let _woken = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        let (words, hung_up) = line.read();
        result = words.into_iter().find_map(|word| match word {
            Word::Ready => Some(Ok(())),
            Word::Failed(Stage::Load, text) => Some(Err((Exit::Load, text))),
            Word::Failed(Stage::Boot, text) => Some(Err((Exit::Boot, text))),
            Word::Stopped
            | Word::Drained(_)
            | Word::Recycle(_)
            | Word::Stack(_)
            | Word::Unknown(_) => None,
        });
        if result.is_none() && hung_up == HungUp::Yes {
            result = Some(Err((Exit::Boot, "it died before it was ready".to_owned())));
        }
    }
    process.signal(Signal::SIGKILL);
    while !process.is_dead() {
        let _a_millisecond = poll(&mut [], PollTimeout::from(1u8));
    }
    while process::reap().is_some() {}
    result.unwrap_or(Ok(()))
}

fn refusal(error: &crate::error::Error) -> (Exit, String) {
    (error.exit(), error.to_string())
}

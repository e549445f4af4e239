//! `saola top`: workers, rates, latencies and running requests, live, for whoever asks and without any server noticing
//! (O74, O75). It has no cursor and asks nobody: everything is in the slot files.

mod picture;
mod screen;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use saola_observability::reader::{ReadError, Reader};
use serde_json::Value;

use crate::status::Status;
use picture::{COLUMNS, Picture, RUNNING};
use screen::{Screen, Then};

/// What to show.
#[derive(Clone, Debug)]
pub struct Top {
    /// The run directory of the server.
    pub run_dir: PathBuf,
    /// The name of the service.
    pub service: String,
    /// How long rates are taken over, and between two pictures.
    pub interval: Duration,
    /// How it is shown.
    pub shows: Shows,
}

/// How a server is shown.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Shows {
    /// On a terminal, until a key or a signal ends it.
    Screen,
    /// As one plain table.
    Table,
    /// As the document of `/status`, without what only the observer knows.
    Json,
}

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The slot files cannot be read, or the server has ended.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The terminal cannot be used.
    #[error("cannot use the terminal")]
    Terminal(#[from] io::Error),
}

/// Shows what is asked for on `out`, which is stdout.
///
/// # Errors
///
/// [`TopError`] if no server runs there, its files may not be read, or the terminal cannot be used.
pub fn top(asked: &Top, out: &mut (impl Write + AsFd)) -> Result<(), TopError> {
    let mut reader = Reader::open(&asked.run_dir)?;
    let first = Status::read(&mut reader, &asked.service)?;
    let text = match asked.shows {
        Shows::Screen => return live(asked, &mut reader, first),
        Shows::Json => format!("{:#}\n", Value::Object(first.json())),
        Shows::Table => {
            if is_closed(out, asked.interval) {
                return Ok(());
            }
            let now = Status::read(&mut reader, &asked.service)?;
            table(&Picture::between(Some(&first), &now))
        }
    };
    // A reader who has left, as `head` does, has seen enough.
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(())
}

/// Waits for an interval; says whether nobody reads any more.
fn is_closed(out: &impl AsFd, time: Duration) -> bool {
    let by = Instant::now() + time;
    loop {
        let left = by.saturating_duration_since(Instant::now());
        let mut out = [PollFd::new(out.as_fd(), PollFlags::empty())];
        // Rounded up: a wait of less than a millisecond is none.
        let wait =
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        // An interrupted wait begins again.
        if poll(&mut out, wait).is_ok_and(|count| count > 0) {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}

fn table(picture: &Picture) -> String {
    let [who, how] = picture.head();
    let degraded = if picture.is_degraded { "  DEGRADED" } else { "" };
    let mut text = format!("{who}{degraded}\n{how}\n\n");
    let mut line = |cells: &[String]| {
        for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
            let _ = write!(text, "{cell:>width$} ", width = usize::from(width)); // writing to a String cannot fail
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    };
    line(&COLUMNS.map(|(name, _)| name.to_owned()));
    picture.rows.iter().for_each(|row| line(&row.cells()));
    if !picture.running.is_empty() {
        text.push('\n');
        let heads = RUNNING.map(str::to_owned);
        for cells in [heads].into_iter().chain(picture.running.iter().map(picture::Running::cells))
        {
            let [age, method, route, worker, trace] = cells;
            let _ = writeln!(text, "{age:>8} {method:7} {route:32} {worker:>6} {trace}"); // nor this
        }
    }
    if let Some(telemetry) = picture.telemetry() {
        let _ = write!(text, "\n{telemetry}\n"); // nor this
    }
    text
}

/// The terminal as long as it is ours. Whatever ends it, it is as it was: dropping this restores it, and before that a hook
/// of ratatui does if it is a panic, so that its message is seen.
struct Borrowed(DefaultTerminal);

impl Drop for Borrowed {
    fn drop(&mut self) {
        // A terminal that has hung up needs nothing.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

fn live(asked: &Top, reader: &mut Reader, first: Status) -> Result<(), TopError> {
    let (keyboard, signals) = (keyboard()?, enders()?);
    let mut terminal = Borrowed(ratatui::try_init()?);
    let mut screen = Screen::default();
    let mut last = first;
    let mut picture = Picture::between(None, &last);
    let mut due = Instant::now() + asked.interval.min(SOON);
    loop {
        terminal.0.draw(|frame| screen.draw(frame, &picture))?;
        if wait(&keyboard, &signals, due)? == Then::Quit {
            return Ok(());
        }
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()?
                && screen.key(key, &picture) == Then::Quit
            {
                return Ok(());
            }
        }
        if Instant::now() >= due {
            let now = Status::read(reader, &asked.service)?;
            if !screen.is_paused {
                picture = Picture::between(Some(&last), &now);
            }
            (last, due) = (now, Instant::now() + asked.interval);
        }
    }
}

/// Waits for a key, a change of the terminal's size, or the time of the next picture. crossterm could wait for keys, but
/// not for our signals, and at a terminal that is gone it reads for ever.
fn wait(keyboard: &OwnedFd, signals: &SignalFd, due: Instant) -> io::Result<Then> {
    let left = due.saturating_duration_since(Instant::now());
    let mut wanted = [
        PollFd::new(keyboard.as_fd(), PollFlags::POLLIN),
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
    ];
    // Rounded up: a wait of less than a millisecond is none.
    let time = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut wanted, time) {
        // A change of size interrupts it.
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let [keyboard, signals] = wanted.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
    let is_gone =
        keyboard.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL);
    Ok(if is_gone || !signals.is_empty() { Then::Quit } else { Then::Go })
}

/// The terminal that crossterm reads keys from.
fn keyboard() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return stdin.as_fd().try_clone_to_owned();
    }
    Ok(File::options().read(true).write(true).open("/dev/tty")?.into())
}

/// What ends it, in place of what would end it with the terminal as it is.
fn enders() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// The first rates come soon, whatever the interval is.
const SOON: Duration = Duration::from_secs(1);

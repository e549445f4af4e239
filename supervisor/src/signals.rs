//! Signals as events: all blocked, read from one descriptor, with their senders (section 5). No handler runs.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};

use crate::lifecycle::asked::{Origin, Scale, Stop};
use crate::lifecycle::event::Event;
use crate::process;

/// The supervisor's ear.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
    /// Started by `nohup`: the end of the terminal means nothing.
    is_nohup: bool,
    had_terminal: bool,
}

/// What a signal means here.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Some child has died.
    ChildDied,
    Life(Event),
    /// Somebody who rotates logs; they go to stdout.
    Reopen(Origin),
    /// Write what the workers are busy with.
    Dump,
    /// The terminal has gone: the event, and that line.
    TerminalGone(Event),
}

impl Signals {
    /// Blocks the signals and takes them over from whoever started us: an inherited ignore would hide them.
    pub(crate) fn take() -> nix::Result<Self> {
        let mut mask = SigSet::empty();
        let mut is_nohup = false;
        for signal in READ {
            mask.add(signal);
            let inherited = process::dispose(signal, SigHandler::SigDfl)?;
            is_nohup |= signal == Signal::SIGHUP && matches!(inherited, SigHandler::SigIgn);
        }
        process::dispose(Signal::SIGPIPE, SigHandler::SigIgn)?;
        let mask = process::with_dump_signal(mask);
        mask.thread_block()?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd, is_nohup, had_terminal: has_terminal() })
    }

    /// As [`Signals::take`], where an image before this one has seen how the server was started.
    pub(crate) fn take_over(is_nohup: bool, had_terminal: bool) -> nix::Result<Self> {
        Ok(Self { is_nohup, had_terminal, ..Self::take()? })
    }

    /// How the server was started: by `nohup`, and on a terminal.
    pub(crate) fn origin(&self) -> (bool, bool) {
        (self.is_nohup, self.had_terminal)
    }

    /// All that arrived, in the order of arrival.
    pub(crate) fn read(&self) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Ok(Some(info)) = self.fd.read_signal() {
            heard.extend(self.understand(&info));
        }
        heard
    }

    fn understand(&self, info: &siginfo) -> Option<Heard> {
        if i32::try_from(info.ssi_signo) == Ok(process::dump_signal()) {
            return Some(Heard::Dump);
        }
        let signal = Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()?;
        let from =
            Origin { signal: signal.as_str(), pid: info.ssi_pid, uid: info.ssi_uid, client: None };
        // A terminal that is resized or asks its background also sends these; only a person counts (S16).
        let is_from_process = info.ssi_code <= 0;
        match signal {
            Signal::SIGCHLD => Some(Heard::ChildDied),
            Signal::SIGTERM | Signal::SIGINT => {
                Some(Heard::Life(Event::Stop(Stop::Graceful, from)))
            }
            Signal::SIGQUIT => Some(Heard::Life(Event::Stop(Stop::Quick, from))),
            Signal::SIGHUP if self.had_terminal && !has_terminal() => {
                (!self.is_nohup).then_some(Heard::TerminalGone(Event::Stop(Stop::Graceful, from)))
            }
            Signal::SIGHUP => Some(Heard::Life(Event::Reload(from))),
            Signal::SIGUSR2 => Some(Heard::Life(Event::Upgrade(None, from))),
            Signal::SIGUSR1 => Some(Heard::Reopen(from)),
            Signal::SIGTTIN if is_from_process => {
                Some(Heard::Life(Event::Scale(Scale::More, from)))
            }
            Signal::SIGTTOU if is_from_process => {
                Some(Heard::Life(Event::Scale(Scale::Fewer, from)))
            }
            Signal::SIGWINCH if is_from_process => Some(Heard::Life(Event::Pause(from))),
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `/dev/tty` opens only for a process that has a controlling terminal.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

const READ: [Signal; 10] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGWINCH,
    Signal::SIGCHLD,
];

//! The way to the loop (S8), and the way out of it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use saola_observability::Chosen;
use saola_observability::clock::wall_ns;

use super::Supervisor;
use super::look::Gauge;
use crate::control::Control;
use crate::error::Error;
use crate::events::{Events, Stderr};
use crate::hooks::Hooks;
use crate::lifecycle::Lifecycle;
use crate::listeners::{self, Bind, Kept, ListenError};
use crate::notify::Notify;
use crate::pidfile::Pidfile;
use crate::process::{self, Title};
use crate::signals::Signals;
use crate::slots::Slots;
use crate::{AdminBind, Children, Exit, Settings};

/// Starts, serves and stops; an error of the start is one line on stderr.
pub(crate) fn run(settings: &Settings, children: &mut dyn Children) -> Exit {
    let mut stderr = Stderr::open();
    match start(settings, children, &mut stderr) {
        Ok(exit) => exit,
        // A stop that was asked for while an address was waited for.
        Err(Error::Listen(ListenError::Interrupted)) => Exit::Success,
        Err(error) => {
            stderr.write(error.line().as_bytes());
            error.exit()
        }
    }
}

fn start(
    settings: &Settings,
    children: &mut dyn Children,
    stderr: &mut Stderr,
) -> Result<Exit, Error> {
    let names = process::other_threads();
    if !names.is_empty() {
        return Err(Error::Threads { names });
    }
    let title = Title::claim();
    title.set(&format!("saola: supervisor [{}] starting", settings.name));
    let signals =
        Signals::take().map_err(|errno| Error::System { attempt: "take over signals", errno })?;
    raise_descriptor_limit();
    settle_in(settings)?;
    let Chosen { dir, shape, mut warnings } = Slots::choose(settings)?;
    let listeners = bind(&settings.bind, settings, &signals, stderr)?;
    let admin = bind_admin(settings, &signals, stderr, &mut warnings)?;
    warnings.extend(backlog_warning(settings));
    let pidfile = settings.pidfile.as_deref().map(Pidfile::take).transpose()?;
    let slots = Slots::create(dir, shape)?;
    let mut events = Events::new(slots.own(), Stderr::open(), settings);
    for warning in &warnings {
        events.warning("start", warning, crate::events::Voice::Stderr);
    }
    let control = control_socket(&slots, &mut events);
    let now = Instant::now();
    let mut supervisor = Supervisor {
        settings: settings.clone(),
        children,
        life: Lifecycle::new(settings.limits(), wall_ns(), now),
        signals,
        slots,
        events,
        title,
        listeners,
        admin,
        workers: BTreeMap::new(),
        observer: None,
        queue: VecDeque::new(),
        reaped: BTreeMap::new(),
        exit: None,
        control,
        coming: None,
        last_reload: None,
        gauge: Gauge::default(),
        notify: Notify::open(&settings.manager),
        hooks: Hooks::new(settings.hook.clone()),
    };
    let exit = supervisor.live();
    let Supervisor { listeners, admin, slots, control, .. } = supervisor;
    if let Some(control) = control {
        control.remove();
    }
    // Sockets first, while the lock keeps a successor from making its own.
    drop((listeners, admin));
    if let Some(pidfile) = pidfile {
        pidfile.remove();
    }
    slots.remove();
    Ok(exit)
}

impl Supervisor<'_> {
    /// Says where it listens, once an observer can print it.
    pub(super) fn announce(&mut self) {
        let voice = self.voice();
        let queue = listeners::system_backlog()
            .map_or(self.settings.backlog, |most| most.min(self.settings.backlog));
        for kept in &self.listeners {
            self.events.listening(&kept.listener.address, "service", queue, voice);
        }
        if let Some(kept) = &self.admin {
            self.events.listening(&kept.listener.address, "admin", queue, voice);
        }
    }
}

/// Binds, and waits between the tries where a stop that is asked for meanwhile is heard.
fn bind(
    binds: &[Bind],
    settings: &Settings,
    signals: &Signals,
    stderr: &mut Stderr,
) -> Result<Vec<Kept>, ListenError> {
    listeners::bind_all(binds, settings.waiting(), &mut |error, pause| {
        stderr.write(format!("warning: {error}; trying again\n").as_bytes());
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
        // A signal this early can only mean that the start is not wanted any more: there is no child to hear of.
        match poll(&mut fds, timeout) {
            Ok(1..) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })
}

fn bind_admin(
    settings: &Settings,
    signals: &Signals,
    stderr: &mut Stderr,
    warnings: &mut Vec<String>,
) -> Result<Option<Kept>, ListenError> {
    match &settings.admin_bind {
        AdminBind::Off => Ok(None),
        AdminBind::Given(address) => {
            let kept = bind(std::slice::from_ref(address), settings, signals, stderr)?;
            Ok(kept.into_iter().next())
        }
        AdminBind::Default => {
            match listeners::bind_now(&AdminBind::fallback(), &[], settings.waiting()) {
                Ok(kept) => Ok(kept.into_iter().next()),
                Err(error) => {
                    warnings.push(format!("{error}; serving without the admin listener"));
                    Ok(None)
                }
            }
        }
    }
}

/// Without it the server serves all the same: signals are left.
fn control_socket(slots: &Slots, events: &mut Events) -> Option<Control> {
    match Control::bind(&slots.control_socket()) {
        Ok(control) => Some(control),
        Err(error) => {
            let text = format!("no control socket: {error}");
            events.warning("start", &text, crate::events::Voice::Stderr);
            None
        }
    }
}

/// Before anything relative is opened (S64).
fn settle_in(settings: &Settings) -> Result<(), Error> {
    if let Some(folder) = &settings.chdir {
        nix::unistd::chdir(folder)
            .map_err(|errno| Error::System { attempt: "change to the folder of chdir", errno })?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(settings.umask));
    Ok(())
}

/// Sockets need descriptors; the hard limit is what the system grants without asking (S65).
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Refused where a sandbox forbids it; then the limit is what it was.
        let _refused = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn backlog_warning(settings: &Settings) -> Option<String> {
    let most = listeners::system_backlog()?;
    let asked = settings.backlog;
    (most < asked).then(|| format!("backlog {asked} is cut to {most} by net.core.somaxconn"))
}

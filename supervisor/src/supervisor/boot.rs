//! The way to the loop (S8), and the way out of it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use saola_observability::Chosen;

use super::look::Gauge;
use super::upgrade::Programs;
use super::{Supervisor, own_process, takeover};
use crate::control::Control;
use crate::descriptors::errno_of;
use crate::error::Error;
use crate::events::{Events, Stderr};
use crate::hooks::Program as HookProgram;
use crate::lifecycle::Lifecycle;
use crate::listeners::{self, Bind, Kept, ListenError, Waiting};
use crate::notify::Notify;
use crate::oom::OomKills;
use crate::pidfile::Pidfile;
use crate::process::Title;
use crate::rehearse;
use crate::signals::Signals;
use crate::slots::Slots;
use crate::upgrade::Start;
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
    match &settings.image.start {
        Start::First => {}
        Start::Rehearsal { state } => return rehearse::rehearse(settings, children, *state),
        Start::Takeover { state, back, failure } => {
            return takeover::run(settings, children, (*state, *back), failure.as_deref());
        }
    }
    own_process::count_threads()?;
    let home = Programs::home()
        .map_err(|error| Error::System { attempt: "open the folder", errno: errno_of(&error) })?;
    if let Some(identity) = settings.identity.as_ref().filter(|other| !other.is_allowed()) {
        return Err(Error::Identity { uid: identity.uid });
    }
    let title = Title::claim();
    title.set(&format!("saola: supervisor [{}] starting", settings.name));
    let signals =
        Signals::take().map_err(|errno| Error::System { attempt: "take over signals", errno })?;
    own_process::raise_descriptor_limit();
    own_process::settle_in(settings)?;
    let Chosen { dir, shape, mut warnings } = Slots::choose(settings)?;
    let listeners = bind(&settings.bind, settings.waiting(), &signals, stderr)?;
    let admin = bind_admin(settings, &signals, stderr, &mut warnings)?;
    warnings.extend(backlog_warning(settings));
    let pidfile = settings.pidfile.as_deref().map(Pidfile::take).transpose()?;
    let slots = Slots::create(dir, shape, settings.identity.clone())?;
    let mut events = Events::new(slots.own(), Stderr::open(), settings);
    for warning in &warnings {
        events.warning("start", warning, crate::events::Voice::Stderr);
    }
    let control = control_socket(&slots, &mut events);
    let supervisor = Supervisor {
        listeners,
        admin,
        pidfile,
        ..Supervisor::new(
            settings,
            children,
            (signals, slots, events),
            (title, control),
            Programs::of(settings, home),
        )
    };
    Ok(supervisor.run())
}

impl<'a> Supervisor<'a> {
    /// Without sockets, children and a past.
    pub(super) fn new(
        settings: &Settings,
        children: &'a mut dyn Children,
        (signals, slots, events): (Signals, Slots, Events),
        (title, control): (Title, Option<Control>),
        programs: Programs,
    ) -> Self {
        Self {
            settings: settings.clone(),
            children,
            life: Lifecycle::new(settings.limits(), own_process::seed(), Instant::now()),
            signals,
            slots,
            events,
            title,
            listeners: Vec::new(),
            admin: None,
            abandoned: Vec::new(),
            workers: BTreeMap::new(),
            observer: None,
            queue: VecDeque::new(),
            reaped: BTreeMap::new(),
            exit: None,
            control,
            coming: None,
            last_reload: None,
            last_upgrade: None,
            gauge: Gauge::default(),
            notify: Notify::open(&settings.manager),
            hook_program: HookProgram::new(settings.hook.clone()),
            admin_bind: settings.admin_bind.clone(),
            pidfile: None,
            programs,
            oom_kills: OomKills::find(),
            is_damaged: false,
            is_adopted: false,
        }
    }

    /// Lives, and leaves nothing behind.
    pub(super) fn run(mut self) -> Exit {
        let exit = self.live();
        let Self { listeners, admin, slots, control, pidfile, .. } = self;
        if let Some(control) = control {
            control.remove();
        }
        // Sockets first, while the lock keeps a successor from making its own.
        drop((listeners, admin));
        if let Some(pidfile) = pidfile {
            pidfile.remove();
        }
        slots.remove();
        exit
    }
}

impl Supervisor<'_> {
    /// Says where it listens, once an observer can print it.
    pub(super) fn announce(&mut self) {
        let voice = self.voice();
        let queue = listeners::system_backlog()
            .map_or(self.settings.backlog, |most| most.min(self.settings.backlog));
        for kept in &self.listeners {
            self.events.listening(&kept.address, "service", queue, voice);
        }
        if let Some(kept) = &self.admin {
            self.events.listening(&kept.address, "admin", queue, voice);
        }
    }
}

/// Binds, and waits between the tries where a stop that is asked for meanwhile is heard.
fn bind(
    binds: &[Bind],
    waiting: Waiting,
    signals: &Signals,
    stderr: &mut Stderr,
) -> Result<Vec<Kept>, ListenError> {
    listeners::bind_all(binds, waiting, &mut |error, pause| {
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
            let kept =
                bind(std::slice::from_ref(address), settings.waiting_alone(), signals, stderr)?;
            Ok(kept.into_iter().next())
        }
        AdminBind::Default => {
            match listeners::bind_now(&AdminBind::fallback(), &[], settings.waiting_alone()) {
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

fn backlog_warning(settings: &Settings) -> Option<String> {
    let most = listeners::system_backlog()?;
    let asked = settings.backlog;
    (most < asked).then(|| format!("backlog {asked} is cut to {most} by net.core.somaxconn"))
}

//! The two halves of an upgrade that need the system: trying the new program, and leaving for it or for the old one.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use nix::unistd::{chdir, fchdir};

use super::Supervisor;
use crate::hooks::Call;
use crate::lifecycle::cause::Status;
use crate::lifecycle::event::{Event, Image, Notice};
use crate::upgrade::rehearsal::Rehearsal;
use crate::upgrade::state::{self, FORMAT, ObserverState, State, WorkerState};
use crate::upgrade::{self, Inherited};
use crate::{AdminBind, Exit, Hooks, Settings};

/// What the supervisor holds for upgrades.
pub(super) struct Programs {
    /// The one that runs; what stands at its path later is what an upgrade runs.
    pub(super) own: state::Program,
    /// The folder in which the server was started: what is relative means it.
    pub(super) home: OwnedFd,
    /// The one that is tried, or that has shown that it can take over.
    pub(super) next: Option<state::Program>,
    /// The one before, until this one has proved itself.
    pub(super) before: Option<Before>,
    pub(super) rehearsal: Option<Rehearsal>,
}

pub(super) struct Before {
    pub(super) program: state::Program,
    pub(super) memento: Option<String>,
    pub(super) image: OwnedFd,
}

impl Programs {
    /// Where the server is started from, before anything changes the folder.
    pub(super) fn home() -> io::Result<OwnedFd> {
        Ok(std::fs::File::open(".")?.into())
    }

    pub(super) fn of(settings: &Settings, home: OwnedFd) -> Self {
        let (path, version) = (settings.image.path.clone(), settings.version.to_owned());
        let own = state::Program { path, version };
        Self { own, home, next: None, before: None, rehearsal: None }
    }

    /// The versions of an upgrade that has just ended or is under way: from, to.
    pub(super) fn versions(&self) -> (String, String) {
        let own = &self.own.version;
        match (&self.before, &self.next) {
            (Some(before), _) => (before.program.version.clone(), own.clone()),
            (None, Some(next)) => (own.clone(), next.version.clone()),
            (None, None) => (own.clone(), String::new()),
        }
    }
}

impl Supervisor<'_> {
    /// Tries the new program; its end answers.
    pub(super) fn rehearse(&mut self, path: Option<PathBuf>) {
        let path = path.unwrap_or_else(|| self.programs.own.path.clone());
        let program = state::Program { path, version: String::new() };
        self.programs.next = Some(program.clone());
        let mut open = Inherited::new();
        // Only to be understood: none of what it names is open in the rehearsal.
        let state = self.state(&mut open, None).and_then(|state| seal(&state));
        let rehearsal = state.and_then(|state| {
            let (image, home) = (&self.settings.image, self.programs.home.as_fd());
            Rehearsal::start(&program.path, image, home, &state)
        });
        match rehearsal {
            Ok(rehearsal) => self.programs.rehearsal = Some(rehearsal),
            Err(error) => {
                let text = format!("cannot run {}: {error}", program.path.display());
                self.queue.push_back(Event::Rehearsed(Err((Exit::Usage, text))));
            }
        }
    }

    /// The end of an upgrade, however it came: there is nothing to go back to and nothing to go on to.
    pub(super) fn forget_programs(&mut self, notice: &Notice) {
        if let Notice::Upgraded { .. }
        | Notice::UpgradeFailed { .. }
        | Notice::UpgradeRolledBack { .. } = notice
        {
            self.programs.before = None;
            self.programs.next = None;
        }
    }

    pub(super) fn cancel_rehearsal(&mut self) {
        if let Some(rehearsal) = self.programs.rehearsal.take() {
            rehearsal.cancel();
        }
    }

    /// The rehearsal was reaped.
    pub(super) fn judge_rehearsal(&mut self, rehearsal: Rehearsal, status: Status) {
        let result = rehearsal.verdict(status).map(|version| {
            if let Some(next) = &mut self.programs.next {
                next.version = version;
            }
        });
        self.tell(Event::Rehearsed(result));
    }

    /// Runs another program in the place of this one. It returns only if that cannot be done.
    pub(super) fn leave(&mut self, image: Image) {
        self.call_hook("pre_exec", Hooks::pre_exec);
        self.hook_program.call(Call { event: "pre_exec", ..Call::default() });
        self.run_hooks();
        self.listen_to_workers();
        let failure = match image {
            Image::New => self.run_next(),
            Image::Old => self.run_before(),
        };
        // Back in the folder that the settings have named.
        if let Some(folder) = &self.settings.chdir {
            let _was_there_before = chdir(folder);
        }
        self.tell(Event::ExecFailed(failure.to_string()));
    }

    fn run_next(&self) -> io::Error {
        let Some(next) = &self.programs.next else { return io::ErrorKind::NotFound.into() };
        let own = match std::fs::File::open("/proc/self/exe") {
            Ok(own) => OwnedFd::from(own),
            Err(error) => return error,
        };
        self.replace(&upgrade::Program::Path(&next.path), Some(&own))
    }

    fn run_before(&self) -> io::Error {
        let Some(before) = &self.programs.before else { return io::ErrorKind::NotFound.into() };
        self.replace(&upgrade::Program::Open(before.image.as_fd()), None)
    }

    fn replace(&self, program: &upgrade::Program<'_>, back: Option<&OwnedFd>) -> io::Error {
        let mut open = Inherited::new();
        let state = self.life.hand_over(Instant::now());
        let state = match self.state(&mut open, state).and_then(|state| seal(&state)) {
            Ok(state) => state,
            Err(error) => return error,
        };
        open.keep(state.as_fd());
        if let Some(back) = back {
            open.keep(back.as_fd());
        }
        let variables =
            upgrade::takeover_variables(state.as_fd(), back.map(std::os::fd::AsFd::as_fd));
        let attempt = fchdir(&self.programs.home).and_then(|()| open.open());
        let errno = match attempt {
            Ok(()) => upgrade::replace(program, &self.settings.image.arguments, &variables),
            Err(errno) => errno,
        };
        open.close_on_exec();
        errno.into()
    }

    /// Everything that the next image must know. Without a life it is only good for a rehearsal.
    fn state<'a>(
        &'a self,
        open: &mut Inherited<'a>,
        life: Option<crate::lifecycle::handover::Handover>,
    ) -> io::Result<State> {
        let Programs { own, next, before, .. } = &self.programs;
        let to = match (before, next) {
            (Some(before), _) => before.program.clone(),
            (None, Some(next)) => next.clone(),
            (None, None) => own.clone(),
        };
        let (is_nohup, had_terminal) = self.signals.origin();
        let lock = self.slots.lock().ok_or(io::ErrorKind::NotFound)?;
        let mut workers = Vec::new();
        for (slot, worker) in &self.workers {
            let channel = worker.line.as_ref().map(|line| open.keep(line.as_fd()));
            let child = worker.process.hand_over();
            workers.push(WorkerState { slot: slot.0, child, channel });
        }
        Ok(State {
            format: FORMAT,
            from: own.clone(),
            to,
            memento: match before {
                Some(before) => before.memento.clone(),
                None => self.settings.memento.clone(),
            },
            run_dir: self.slots.path().to_owned(),
            given_run_dir: self.settings.run_dir.given.clone(),
            lock: open.keep(lock),
            pidfile: self.pidfile.as_ref().map(|pidfile| pidfile.hand_over(open)),
            listeners: self.listeners.iter().map(|kept| kept.hand_over(open)).collect(),
            admin: self.admin.as_ref().map(|kept| kept.hand_over(open)),
            admin_bind: text_of(&self.admin_bind),
            control: self.control.as_ref().map(|control| control.hand_over(open)),
            workers,
            observer: self.observer.as_ref().map(|observer| ObserverState {
                child: observer.process.hand_over(),
                lifeline: open.keep(observer.lifeline.as_fd()),
                age: observer.born.elapsed(),
            }),
            is_nohup,
            had_terminal,
            last_reload: self.last_reload.clone(),
            last_upgrade: self.last_upgrade.clone(),
            life,
        })
    }
}

fn seal(state: &State) -> io::Result<OwnedFd> {
    upgrade::seal(&serde_json::to_vec(state)?)
}

pub(super) fn text_of(bind: &AdminBind) -> String {
    match bind {
        AdminBind::Default => "default".to_owned(),
        AdminBind::Given(bind) => bind.to_string(),
        AdminBind::Off => "off".to_owned(),
    }
}

/// The reverse of [`text_of`].
pub(super) fn admin_bind_of(text: &str) -> AdminBind {
    match text {
        "default" => AdminBind::Default,
        text => text.parse().map_or(AdminBind::Off, AdminBind::Given),
    }
}

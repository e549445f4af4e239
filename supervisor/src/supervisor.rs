//! The supervisor's loop: wait, tell the life cycle what happened, carry out what it answers. All system calls that
//! follow from a decision are made here, through the files that know them.

mod boot;
mod configure;
mod dump;
mod hooks;
mod look;
mod obey;
mod operate;
mod own_process;
mod queues;
mod takeover;
mod upgrade;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use configure::Coming;
use look::Gauge;
use serde_json::Value;
use upgrade::Programs;

use crate::channel::{HungUp, Line, Word};
use crate::control::Control;
use crate::events::{self, Events, Voice};
use crate::hooks::{Program as HookProgram, Whose};
use crate::lifecycle::Lifecycle;
use crate::lifecycle::cause::{Oom, Status};
use crate::lifecycle::event::{Event, SlotNumber};
use crate::listeners::Kept;
use crate::notify::Notify;
use crate::oom::OomKills;
use crate::pidfile::Pidfile;
use crate::process::{self, Process, Reaped, Title};
use crate::signals::{Heard, Signals};
use crate::slots::Slots;
use crate::upgrade::rehearsal::Rehearsal;
use crate::{AdminBind, Children, Exit, Hooks, Settings};

pub(crate) use boot::run;

/// Everything that the supervisor holds.
struct Supervisor<'a> {
    settings: Settings,
    children: &'a mut dyn Children,
    life: Lifecycle,
    signals: Signals,
    slots: Slots,
    events: Events,
    title: Title,
    listeners: Vec<Kept>,
    admin: Option<Kept>,
    /// Sockets that no worker accepts from any more, with connections in them that somebody is to serve.
    abandoned: Vec<OwnedFd>,
    workers: BTreeMap<SlotNumber, Worker>,
    observer: Option<Observer>,
    /// What is to be told, in order: carrying a command out may make new events.
    queue: VecDeque<Event>,
    /// The dead whose burial the life cycle is about to order.
    reaped: BTreeMap<SlotNumber, Reaped>,
    exit: Option<Exit>,
    /// None where the socket could not be made.
    control: Option<Control>,
    coming: Option<Coming>,
    last_reload: Option<Value>,
    last_upgrade: Option<Value>,
    gauge: Gauge,
    notify: Notify,
    hook_program: HookProgram,
    /// Where the settings that serve say that the observer listens.
    admin_bind: AdminBind,
    pidfile: Option<Pidfile>,
    programs: Programs,
    oom_kills: OomKills,
    /// The next generation is to count in new files.
    is_damaged: bool,
    /// It was begun by another program, and is gone on with.
    is_adopted: bool,
}

struct Worker {
    process: Process,
    image: Image,
    /// None once the worker has hung up: a closed socket would wake the loop for ever.
    line: Option<Line>,
}

/// Of which program a worker is.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Image {
    Own,
    /// Of the one before this.
    Other,
}

struct Observer {
    process: Process,
    /// Its end is the order to leave, as is the byte `q`.
    lifeline: OwnedFd,
    born: Instant,
}

impl Supervisor<'_> {
    /// Runs until the life cycle says that it is over.
    fn live(&mut self) -> Exit {
        if self.is_adopted {
            events::resume(&self.life.picture(Instant::now()));
            self.tell(Event::Adopted);
            // Some may have died between the two programs, and their signal with the one before.
            self.reap();
        } else {
            self.call_hook("on_starting", Hooks::on_starting);
            self.tell(Event::Started);
            self.announce();
        }
        loop {
            if let Some(image) = self.life.leaves_for() {
                self.leave(image);
            }
            if let Some(exit) = self.exit {
                return exit;
            }
            self.wait();
            // First, so that a gap of the supervisor's own is seen before what piled up in it is judged (S39).
            if self.life.deadline().is_some_and(|due| due <= Instant::now()) {
                self.tell(Event::Tick);
            }
            if let Some(rehearsal) = &mut self.programs.rehearsal {
                rehearsal.listen();
            }
            // Before the dead are reaped: a worker's last words belong to its death.
            self.listen_to_workers();
            self.listen_to_signals();
            self.listen_to_operators();
            self.tell_the_manager();
            self.run_hooks();
        }
    }

    /// Sleeps until something happens or the next deadline, rounded up to a millisecond.
    fn wait(&self) {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let lines = self.workers.values().filter_map(|worker| worker.line.as_ref());
        fds.extend(lines.map(|line| PollFd::new(line.as_fd(), PollFlags::POLLIN)));
        fds.extend(
            self.programs
                .rehearsal
                .iter()
                .map(|rehearsal| PollFd::new(rehearsal.as_fd(), PollFlags::POLLIN)),
        );
        for (fd, has_output) in self.control.iter().flat_map(Control::descriptors) {
            let wanted =
                if has_output { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
            fds.push(PollFd::new(fd, wanted));
        }
        let patience = self.life.deadline().map_or(Duration::from_secs(1), |due| {
            due.saturating_duration_since(Instant::now()) + Duration::from_micros(999)
        });
        let patience = self.notify.patience().map_or(patience, |most| most.min(patience));
        let timeout = PollTimeout::try_from(patience.as_millis()).unwrap_or(PollTimeout::MAX);
        // EINTR and the rest: the loop looks at everything after each wait, whatever woke it.
        let _woken = poll(&mut fds, timeout);
    }

    fn listen_to_workers(&mut self) {
        let mut heard = Vec::new();
        for (&slot, worker) in &mut self.workers {
            let Some(line) = &worker.line else { continue };
            let (words, hung_up) = line.read();
            for word in words {
                // Of a worker that has died meanwhile, READY is a boot failure (S13).
                if word != Word::Ready || !worker.process.is_dead() {
                    heard.push((slot, word));
                }
            }
            if hung_up == HungUp::Yes {
                worker.line = None;
            }
        }
        for (slot, word) in heard {
            let event = match word {
                Word::Ready => Event::Ready(slot),
                Word::Failed(stage, text) => Event::BootFailed { slot, stage, text },
                Word::Stopped => Event::Stopped(slot),
                Word::Drained(forced) => Event::Drained { slot, forced },
                Word::Recycle(why) => Event::RecycleWanted { slot, why },
                Word::Stack(addresses) => {
                    self.print_stack(slot, &addresses);
                    continue;
                }
                Word::Unknown(verb) => {
                    let voice = self.voice();
                    self.events.unknown_word(slot, &verb, voice);
                    continue;
                }
            };
            self.tell(event);
        }
    }

    fn listen_to_signals(&mut self) {
        for heard in self.signals.read() {
            let voice = self.voice();
            match heard {
                Heard::ChildDied => self.reap(),
                Heard::Life(event) => self.tell(event),
                Heard::Dump => _ = self.dump(None),
                Heard::Reopen(from) => self.events.nothing_to_reopen(from, voice),
                Heard::TerminalGone(event) => {
                    self.events.terminal_gone(voice);
                    self.tell(event);
                }
            }
        }
    }

    /// Reaps all the dead, known or not; the end of a stranger changes nothing (S58).
    fn reap(&mut self) {
        while let Some(reaped) = process::reap() {
            if self.observer.as_ref().is_some_and(|observer| observer.process.pid() == reaped.pid) {
                self.observer = None;
                self.tell(Event::ObserverExited(reaped.status));
                continue;
            }
            let is_rehearsal = |rehearsal: &mut Rehearsal| rehearsal.pid() == reaped.pid;
            if let Some(rehearsal) = self.programs.rehearsal.take_if(is_rehearsal) {
                self.judge_rehearsal(rehearsal, reaped.status);
                continue;
            }
            let is_success = reaped.status == Status::Exited(0);
            match self.hook_program.reaped(reaped.pid, is_success) {
                Whose::Stranger => {}
                Whose::Done => continue,
                Whose::Failed((event, why)) => {
                    let voice = self.voice();
                    self.events.hook_failed(event, &why, voice);
                    continue;
                }
            }
            let Some(slot) = self.slot_of(reaped.pid) else { continue };
            // Its words may have come between the last look and its death.
            self.listen_to_workers();
            self.workers.remove(&slot);
            self.reaped.insert(slot, reaped);
            let oom = match reaped.status {
                Status::Signaled { signal: 9, .. } => self.oom_kills.look(),
                Status::Exited(_) | Status::Signaled { .. } => Oom::No,
            };
            self.tell(Event::Exited { slot, status: reaped.status, oom });
        }
    }

    fn slot_of(&self, pid: u32) -> Option<SlotNumber> {
        self.workers.iter().find(|(_, worker)| worker.process.pid() == pid).map(|(&slot, _)| slot)
    }

    /// Tells the life cycle, does what it says, and tells it what came of that.
    fn tell(&mut self, event: Event) {
        self.queue.push_back(event);
        while let Some(event) = self.queue.pop_front() {
            for command in self.life.on(event, Instant::now()) {
                self.obey(command);
            }
        }
        self.settle_queues();
        self.retitle();
    }

    fn voice(&self) -> Voice {
        if self.observer.is_some() { Voice::Ring } else { Voice::Stderr }
    }

    fn retitle(&self) {
        let (ready, workers) = (self.life.ready_workers(), self.life.workers());
        let (name, generation) = (&self.settings.name, self.life.generation());
        let title = format!("saola: supervisor [{name}] gen {generation}, {ready}/{workers}");
        self.title.set(&title);
    }
}

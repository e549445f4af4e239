//! Commands of the life cycle, carried out.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::{pipe2, write};
use saola_observability::clock::monotonic_ns;

use super::{Image, Observer, Supervisor, Worker};
use crate::channel::{Line, Order, Stage};
use crate::descriptors::errno_of;
use crate::events::{Busy, Loss};
use crate::hooks::{self, Trouble};
use crate::lifecycle::event::QueueNumber;
use crate::lifecycle::event::{
    Blow, Command, Ending, Event, ForkFailure, Notice, Report, SlotNumber,
};
use crate::listeners::Kept;
use crate::process::{self, Inheritance, Plan, Role};
use crate::{Birth, Children, Exit, ObserverBirth, WorkerTitle};

impl Supervisor<'_> {
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Fork { slot, generation } => match self.fork_worker(slot, generation) {
                Ok(worker) => {
                    self.workers.insert(slot, worker);
                }
                Err(why) => self.queue.push_back(Event::ForkFailed { slot, why }),
            },
            Command::ForkObserver => match self.fork_observer() {
                Ok(observer) => self.observer = Some(observer),
                Err(_said_by_the_life_cycle) => self.queue.push_back(Event::ObserverForkFailed),
            },
            Command::Stop { slot, deadline, idle } => {
                self.listeners.iter().for_each(Kept::turn_away);
                self.order(slot, Order::Stop { deadline, idle });
            }
            Command::Drain { slot, deadline, idle } => {
                self.order(slot, Order::Drain { deadline, idle });
            }
            Command::Quit(slot) => self.order(slot, Order::Quit),
            Command::Pause(slot) => self.order(slot, Order::Pause),
            Command::Resume(slot) => self.order(slot, Order::Resume),
            Command::Kill { slot, how } => self.strike(slot, how),
            Command::Bury { slot, report } => self.bury(slot, &report),
            Command::Release(slot) => self.slots.release(slot),
            Command::Look => self.look(),
            Command::StopObserver => {
                if let Some(observer) = &self.observer {
                    // It is dead already, or the pipe holds the one byte that it will ever hold.
                    let _dead = write(&observer.lifeline, b"q");
                }
            }
            Command::KillObserver => {
                if let Some(observer) = &self.observer {
                    observer.process.signal(Signal::SIGKILL);
                }
            }
            Command::CloseListeners => {
                self.listeners.clear();
                self.abandoned.clear();
            }
            Command::Emit(notice) => self.emit(&notice),
            Command::Configure { generation } => self.configure(generation),
            Command::Promote { generation } => self.promote(generation),
            Command::Discard { generation } => self.discard(generation),
            Command::Rehearse { path } => self.rehearse(path),
            Command::CancelRehearsal => self.cancel_rehearsal(),
            Command::Reply { client, answer } => self.reply(client, &answer),
            Command::Exit(ending) => {
                self.exit = Some(match ending {
                    Ending::Asked => Exit::Success,
                    Ending::Boot => Exit::Boot,
                    Ending::Load => Exit::Load,
                    Ending::Fork => Exit::System,
                });
            }
        }
    }

    fn fork_worker(&mut self, slot: SlotNumber, generation: u64) -> Result<Worker, ForkFailure> {
        self.call_hook("pre_fork", |hooks| hooks.pre_fork(slot.0));
        let (line, channel) = Line::pair().map_err(system)?;
        let listeners = self.share_listeners(slot, generation).map_err(system)?;
        let slot_files = self
            .slots
            .open_worker(slot, generation)
            .map_err(|error| ForkFailure::System(error.to_string()))?;
        let run_dir = self.slots.path().to_owned();
        let workers = self.life.workers();
        let name = format!("saola: worker {} [{}] gen {generation}", slot.0, self.settings.name);
        let title = WorkerTitle { title: self.title, text: name.clone() };
        let slot = slot.0;
        let birth =
            Birth { slot, generation, workers, slot_files, listeners, channel, title, run_dir };
        let identity = self.settings.identity.as_ref();
        let plan = Plan { role: Role::Worker, identity, title: self.title, name: &name };
        let process = process::fork(&plan, birth, |birth| begin(self.children, birth).code())?;
        Ok(Worker { process, image: Image::Own, line: Some(line) })
    }

    fn fork_observer(&mut self) -> Result<Observer, ForkFailure> {
        let (theirs, lifeline) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(system)?;
        let slot_files =
            self.slots.open_observer().map_err(|error| ForkFailure::System(error.to_string()))?;
        let admin = self
            .admin
            .as_mut()
            .map(|kept| kept.share(QueueNumber::default()))
            .transpose()
            .map_err(|error| system(errno_of(&error)))?;
        let run_dir = self.slots.path().to_owned();
        let generation = self.life.generation();
        let birth = ObserverBirth { slot_files, lifeline: theirs, admin, run_dir, generation };
        let name = format!("saola: observer [{}]", self.settings.name);
        let identity = self.settings.identity.as_ref();
        let plan = Plan { role: Role::Observer, identity, title: self.title, name: &name };
        let process = process::fork(&plan, birth, |birth| self.children.observer(birth).code())?;
        Ok(Observer { process, lifeline, born: Instant::now() })
    }

    fn order(&self, slot: SlotNumber, order: Order) {
        if let Some(line) = self.workers.get(&slot).and_then(|worker| worker.line.as_ref()) {
            line.order(order);
        }
    }

    fn strike(&self, slot: SlotNumber, how: Blow) {
        let signal = match how {
            Blow::Abort => Signal::SIGABRT,
            Blow::Kill => Signal::SIGKILL,
        };
        if let Some(worker) = self.workers.get(&slot) {
            worker.process.signal(signal);
        }
    }

    /// First the requests that died, then the line; from then on the slot is free.
    fn bury(&mut self, slot: SlotNumber, report: &Report) {
        let Some(reaped) = self.reaped.remove(&slot) else { return };
        let buried = self.slots.bury(slot, reaped, report.cause.lost_reason());
        let loss = Loss {
            pid: reaped.pid,
            requests: buried.count(),
            served: buried.served,
            max_rss_bytes: reaped.max_rss_bytes,
        };
        self.tell_hooks_of_exit(slot, report, reaped);
        let voice = self.voice();
        self.events.worker_ended(slot, report, &loss, voice);
    }

    fn emit(&mut self, notice: &Notice) {
        let (state, busy) = match notice {
            Notice::WorkerSlow { slot, .. } | Notice::WorkerStuck { slot, .. } => {
                (self.state_of(*slot), self.busy(*slot))
            }
            _ => (None, None),
        };
        // Before the blow that follows a line about a stuck worker: the signals arrive in the order of their sending.
        if let Notice::WorkerSlow { slot, .. } | Notice::WorkerStuck { slot, .. } = notice {
            self.ask_for_stack(*slot);
        }
        self.remember(notice);
        let voice = self.voice();
        match notice {
            Notice::Upgrading { .. }
            | Notice::Upgraded { .. }
            | Notice::UpgradeFailed { .. }
            | Notice::UpgradeRolledBack { .. } => {
                let versions = self.programs.versions();
                self.events.upgrade(notice, (&versions.0, &versions.1), voice);
            }
            notice => self.events.notice(notice, (state, busy.as_ref()), voice),
        }
        self.forget_programs(notice);
    }

    /// What the kernel says that a worker does.
    pub(super) fn state_of(&self, slot: SlotNumber) -> Option<char> {
        self.workers.get(&slot)?.process.state()
    }

    /// The oldest request that a worker is busy with.
    pub(super) fn busy(&mut self, slot: SlotNumber) -> Option<Busy> {
        let entries = self.slots.in_flight(slot);
        let oldest = entries.first()?;
        Some(Busy {
            in_flight: entries.len(),
            trace_id: oldest.trace.to_string(),
            request_id: oldest.request_id.clone(),
            method: oldest.method.as_str(),
            route: oldest.route.clone(),
            age: Duration::from_nanos(monotonic_ns().saturating_sub(oldest.start_ns)),
        })
    }
}

/// In the worker: its hook, and its work.
fn begin(children: &mut dyn Children, birth: Birth) -> Exit {
    let hooked = children.hooks();
    let trouble = hooked.and_then(|hooks| hooks::call(hooks, |hooks| hooks.post_fork(birth.slot)));
    if trouble == Some(Trouble::Panicked) {
        birth.channel.failed(Stage::Boot, "hook post_fork has panicked");
        return Exit::Boot;
    }
    children.worker(birth)
}

impl Inheritance for Birth {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let listeners = self.listeners.iter().map(|listener| listener.fd.as_fd());
        listeners.chain(self.slot_files.descriptors()).chain([self.channel.as_fd()]).collect()
    }
}

impl Inheritance for ObserverBirth {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let admin = self.admin.iter().map(|listener| listener.fd.as_fd());
        admin.chain(self.slot_files.descriptors()).chain([self.lifeline.as_fd()]).collect()
    }
}

fn system(errno: Errno) -> ForkFailure {
    ForkFailure::System(errno.desc().to_owned())
}

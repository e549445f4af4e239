//! Joins the three parts, which do not know each other: what the supervisor's children do.

use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;

use saola_observability::Slot;
use saola_observability::rings::heap_file;
use saola_supervisor::{Birth, Children, Exit, ObserverBirth, Reread, WorkerTitle};
use saola_worker::{
    Balance, BoxError, ExitReason, Hooks, MakeService, WorkerInfo, chain, heap_profiles,
};

use crate::application::Application;
use crate::settings::mistake::Mistake;
use crate::settings::{Settings, Telemetry};
use crate::{scrape, telemetry};

/// The children of one server.
pub(crate) struct Joined<'a, F> {
    /// By generation: while one boots beside another, each has its own.
    settings: BTreeMap<u64, Settings>,
    again: &'a dyn Fn() -> Result<Settings, Vec<Mistake>>,
    make: &'a F,
    hooks: Option<Box<dyn saola_supervisor::Hooks>>,
    /// Shared by all workers that are forked from here. A server without it serves as well, only less evenly.
    balance: Option<Balance>,
}

impl<'a, F> Joined<'a, F> {
    /// `again` reads flags, environment and file anew.
    pub(crate) fn new(
        settings: Settings,
        again: &'a dyn Fn() -> Result<Settings, Vec<Mistake>>,
        make: &'a F,
    ) -> Self {
        let settings = BTreeMap::from([(FIRST, settings)]);
        Self { settings, again, make, hooks: None, balance: Balance::new().ok() }
    }

    /// These hear of what happens to the server.
    pub(crate) fn with_hooks(mut self, hooks: Option<Box<dyn saola_supervisor::Hooks>>) -> Self {
        self.hooks = hooks;
        self
    }

    /// What the children of a generation run with: its own, or those before it.
    fn settings_of(&self, generation: u64) -> Option<&Settings> {
        let upto = self.settings.range(..=generation).next_back();
        upto.or_else(|| self.settings.first_key_value()).map(|(_, settings)| settings)
    }
}

const FIRST: u64 = 1;

impl<F, Fut, A> Children for Joined<'_, F>
where
    F: Fn(WorkerInfo) -> Fut,
    Fut: Future<Output = Result<A, BoxError>>,
    A: Application,
{
    fn worker(&mut self, birth: Birth) -> Exit {
        let Birth { slot, generation, workers, slot_files, listeners, channel, title, run_dir } =
            birth;
        let attached = match Slot::attach(slot_files) {
            Ok(attached) => attached,
            Err(error) => {
                channel.failed(saola_supervisor::Stage::Boot, &chain(&error));
                return Exit::Boot;
            }
        };
        let Some(settings) = self.settings_of(generation) else { return Exit::Internal };
        if settings.telemetry == Telemetry::Full {
            telemetry::install(attached, settings.levels.clone(), settings.spans.clone());
        }
        let mut config = settings.worker.clone();
        config.late_trace_rate_limit = LATE_TRACES.div_ceil(workers.max(1));
        config.heap_file = heap_profiles().ok().map(|()| heap_file(&run_dir, slot));
        config.metrics = settings.metrics.then(|| scrape::answer(run_dir));
        let control = match channel.orders() {
            Ok(control) => control,
            Err(error) => {
                channel
                    .failed(saola_supervisor::Stage::Boot, &format!("cannot hear orders: {error}"));
                return Exit::Boot;
            }
        };
        let listeners: Vec<_> = listeners
            .into_iter()
            .map(|listener| saola_worker::Listener {
                speech: settings.listening.speech(&listener.address),
                fd: listener.fd,
                address: listener.address,
                backlog: listener.backlog,
            })
            .collect();
        let addresses = listeners.iter().map(|listener| listener.address.clone()).collect();
        let info = WorkerInfo::new(slot, workers, generation, addresses);
        let balance = self.balance.clone();
        let birth = saola_worker::Birth { info, listeners, balance, control, parse: order };
        let exit =
            saola_worker::run(Maker(self.make), birth, attached, config, hooks(channel, title));
        match exit {
            ExitReason::Drained => Exit::Success,
            ExitReason::Boot => Exit::Boot,
            ExitReason::Load => Exit::Load,
            ExitReason::Internal => Exit::Internal,
        }
    }

    fn observer(&mut self, birth: ObserverBirth) -> Exit {
        let ObserverBirth { slot_files, lifeline, admin, run_dir, generation } = birth;
        let slot = match Slot::attach(slot_files) {
            Ok(slot) => slot,
            Err(error) => return last_words(&chain(&error)),
        };
        let Some(settings) = self.settings_of(generation) else { return Exit::Internal };
        let mut settings = settings.observer.clone();
        settings.run_dir = run_dir;
        settings.no_heap_profiles = heap_profiles().err().map(|reason| reason.to_string());
        match saola_observer::run(settings, slot, lifeline, admin.map(|listener| listener.fd)) {
            saola_observer::ExitReason::Stopped => Exit::Success,
            saola_observer::ExitReason::Failed(error) => last_words(&chain(&error)),
        }
    }

    fn hooks(&mut self) -> Option<&mut (dyn saola_supervisor::Hooks + 'static)> {
        Some(self.hooks.as_mut()?.as_mut())
    }

    fn reread(&mut self, generation: u64) -> Result<Reread, Vec<String>> {
        let settings = (self.again)()
            .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        // Its settings are plain values: what prints alike is alike.
        let print = |settings: &Settings| format!("{:?}", settings.observer);
        let before = self.settings_of(generation).map(print);
        let reread = Reread {
            settings: settings.supervisor.clone(),
            observer_changed: before != Some(print(&settings)),
        };
        self.settings.insert(generation, settings);
        Ok(reread)
    }

    fn settle(&mut self, generation: u64) {
        // What serves may have been read for a generation before it: it stays until something newer serves.
        let serving = self.settings.range(..=generation).next_back().map(|(&of, _)| of);
        self.settings.retain(|of, _| Some(*of) == serving);
    }
}

/// The observer prints everybody's lines; when it cannot, there is only stderr.
#[expect(clippy::print_stderr, reason = "nobody else can say it")]
fn last_words(text: &str) -> Exit {
    eprintln!("error: {text}");
    Exit::Internal
}

/// The user's factory as the worker calls it.
struct Maker<'a, F>(&'a F);

impl<F, Fut, A> MakeService for Maker<'_, F>
where
    F: Fn(WorkerInfo) -> Fut,
    Fut: Future<Output = Result<A, BoxError>>,
    A: Application,
{
    type Service = A::Service;
    type Body = A::Body;

    async fn make(self, worker: &WorkerInfo) -> Result<A::Service, BoxError> {
        (self.0)(worker.clone()).await.map(Application::into_service)
    }
}

/// What the worker tells goes over the channel, which its hooks share.
fn hooks(channel: saola_supervisor::Channel, title: WorkerTitle) -> Hooks {
    let channel = Rc::new(channel);
    let [ready, failed, recycle, stopped, drained] = std::array::from_fn(|_| Rc::clone(&channel));
    Hooks {
        ready: Box::new(move || ready.ready()),
        failed: Box::new(move |stage, text| {
            let stage = match stage {
                saola_worker::Stage::Boot => saola_supervisor::Stage::Boot,
                saola_worker::Stage::Load => saola_supervisor::Stage::Load,
            };
            failed.failed(stage, text);
        }),
        ask_recycle: Box::new(move || recycle.wants_recycle()),
        stopped: Box::new(move || {
            title.draining();
            stopped.stopped();
        }),
        drained: Box::new(move |forced| drained.drained(forced)),
    }
}

/// The supervisor's order in the worker's words.
fn order(datagram: &[u8]) -> Option<saola_worker::Order> {
    saola_supervisor::Channel::parse(datagram).map(|order| match order {
        saola_supervisor::Order::Stop { deadline, .. } => saola_worker::Order::Stop { deadline },
        saola_supervisor::Order::Drain { deadline, idle } => {
            saola_worker::Order::Handover { deadline, idle }
        }
        saola_supervisor::Order::Pause => saola_worker::Order::Pause,
        saola_supervisor::Order::Resume => saola_worker::Order::Resume,
        saola_supervisor::Order::Quit => saola_worker::Order::Quit,
    })
}

/// Traces a second that a server keeps for an error or slowness alone, shared by its workers.
const LATE_TRACES: u32 = 100;

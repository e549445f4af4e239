//! A worker from its birth to its exit: signals, runtime, the user's service, listeners, then serving.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as HttpBody;
use nix::sys::eventfd::EventFd;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signalfd::SignalFd;
use saola_observability::closed::{Level, SlotState};
use saola_observability::{Slot, profile};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::accept::exclusive::Exclusive;
use crate::accept::tokio::Tokio;
use crate::accept::{Accept, Listener, Permits};
use crate::birth::{Birth, ExitReason, Hooks, MakeService, Parse, Stage};
use crate::chain::chain;
use crate::config::{AcceptMode, Config};
use crate::control::Speeches;
use crate::drain::{Orders, Shutdown};
use crate::heartbeat::Beat;
use crate::request::body::RequestBody;
use crate::request::current;
use crate::serve::serve_with;
use crate::worker::Worker;
use crate::{BoxError, ServeError, control, handlers, metrics};

/// Runs a worker on the calling thread, in a process that has been forked for it. Returns when it should exit.
pub fn run<M: MakeService>(
    make: M,
    birth: Birth,
    slot: &'static Slot,
    config: Config,
    hooks: Hooks,
) -> ExitReason {
    current::record_panics(slot);
    metrics::register();
    slot.set_state(SlotState::Starting);
    let beat = Beat::new();
    let (runtime, signals, config) = match prepare(slot, config, &birth.control, &beat) {
        Ok(prepared) => prepared,
        Err(error) => {
            (hooks.failed)(Stage::Boot, &error.to_string());
            return ExitReason::Boot;
        }
    };
    let service = catch_unwind(AssertUnwindSafe(|| runtime.block_on(make.make(&birth.info))));
    let exit = match service {
        Err(_) => fail(hooks, Stage::Boot, "the application's factory panicked"),
        Ok(Err(error)) => fail(hooks, Stage::Load, &chain(&*error)),
        Ok(Ok(service)) => {
            let life = AssertUnwindSafe(|| {
                runtime.block_on(live(service, birth, slot, config, hooks, (signals, beat)))
            });
            catch_unwind(life).unwrap_or(ExitReason::Internal)
        }
    };
    // Work on the blocking pool that nobody waits for any more does not hold the exit up.
    runtime.shutdown_background();
    profile::stop();
    exit
}

fn fail(hooks: Hooks, stage: Stage, text: &str) -> ExitReason {
    (hooks.failed)(stage, text);
    match stage {
        Stage::Boot => ExitReason::Boot,
        Stage::Load => ExitReason::Load,
    }
}

fn prepare(
    slot: &'static Slot,
    mut config: Config,
    control: &OwnedFd,
    beat: &Beat,
) -> Result<(LocalRuntime, Heard, Config), ServeError> {
    let signals = control::signals().map_err(ServeError::Boot)?;
    let longest_drain = config.graceful_timeout + config.abort_grace;
    let term = handlers::install(control, longest_drain).map_err(ServeError::Boot)?;
    let (limit, _) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(|errno| ServeError::Boot(errno.into()))?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let room = limit.saturating_sub(RESERVED).saturating_sub(config.blocking_threads);
    if room < FEWEST {
        return Err(ServeError::Descriptors { limit, room, needed: FEWEST });
    }
    if room < config.worker_connections {
        let (asked, room_text) = (config.worker_connections.to_string(), room.to_string());
        let fields = [("asked", asked.as_str()), ("worker_connections", room_text.as_str())];
        crate::worker::event(
            slot,
            Level::Warn,
            "worker_connections lowered to the descriptor limit",
            None,
            &fields,
        );
        config.worker_connections = room;
    }
    slot.in_flight().set_detail(config.detail);
    profile::start(slot, config.profile_hz).map_err(ServeError::Boot)?;
    profile::watch_thread();
    let number = AtomicUsize::new(0);
    let [sleeper, waker] = [(); 2].map(|()| beat.clone());
    let (parks, unparks) = (move || sleeper.set_idle(true), move || waker.set_idle(false));
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(config.blocking_threads.max(1))
        .thread_keep_alive(Duration::from_secs(10))
        .on_thread_start(profile::watch_thread)
        .on_thread_park(parks)
        .on_thread_unpark(unparks)
        .thread_name_fn(move || format!("block-{}", number.fetch_add(1, Ordering::Relaxed)))
        .build_local(LocalOptions::default())
        .map_err(ServeError::Boot)?;
    Ok((runtime, Heard { signals, term }, config))
}

/// Where signals arrive.
struct Heard {
    signals: SignalFd,
    term: EventFd,
}

/// Descriptors that are no connections: listeners, epolls, slot files, the application's few.
const RESERVED: usize = 32;
const FEWEST: usize = 16;

/// From the service to the exit.
async fn live<S, B>(
    service: S,
    birth: Birth,
    slot: &'static Slot,
    config: Config,
    hooks: Hooks,
    (signals, beat): (Heard, Beat),
) -> ExitReason
where
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + 'static,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
    if let Err(error) = birth.listeners.iter().try_for_each(Listener::begin) {
        return fail(hooks, Stage::Boot, &format!("cannot begin to listen: {error}"));
    }
    let speech = Speeches::of(&birth.listeners);
    let (orders, shutdown) = Shutdown::channel();
    // Where each worker has a queue of its own, nobody else can take what waits there.
    let is_shared = birth.listeners.iter().all(|listener| listener.backlog.is_none());
    let balance = birth.balance.filter(|_| is_shared);
    let part = balance.and_then(|balance| balance.part(birth.info.slot));
    let listeners = Arc::new(birth.listeners);
    let exclusive = match config.accept {
        AcceptMode::Tokio => None,
        AcceptMode::Exclusive => match Exclusive::new(&listeners, beat.clone(), slot, part) {
            Ok(source) => Some(source),
            // A kernel or a file that does not know EPOLLEXCLUSIVE.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => None,
            Err(error) => return fail(hooks, Stage::Boot, &error.to_string()),
        },
    };
    let Hooks { ready, failed, ask_recycle, stopped, drained } = hooks;
    let permits = Permits::new(config.worker_connections);
    let background = birth.info.background.clone();
    let worker = match Worker::new(slot, config.clone(), permits, ask_recycle, background) {
        Ok(worker) => worker,
        Err(error) => {
            failed(Stage::Boot, &chain(&error));
            return ExitReason::Boot;
        }
    };
    let told = listen((birth.control, birth.parse), signals, orders, &config, &speech);
    let served = match exclusive {
        Some(source) => {
            // The source closes them when it is finished, which needs it to be the last that holds them.
            drop(listeners);
            with_orders(source, service, &worker, beat, (ready, stopped), shutdown, told).await
        }
        None => match Arc::try_unwrap(listeners)
            .map_err(|_| io::Error::other("listeners are shared"))
            .and_then(|listeners| Tokio::new(listeners, slot))
        {
            Ok(source) => {
                with_orders(source, service, &worker, beat, (ready, stopped), shutdown, told).await
            }
            Err(error) => {
                failed(Stage::Boot, &error.to_string());
                return ExitReason::Boot;
            }
        },
    };
    match served {
        Ok(forced) => {
            drained(forced);
            ExitReason::Drained
        }
        Err(error) => {
            worker.event(Level::Error, "the event loop ended", &[("error", &chain(&error))]);
            ExitReason::Internal
        }
    }
}

type Told = Box<dyn FnOnce()>;

async fn with_orders<A, S, B>(
    source: A,
    service: S,
    worker: &std::rc::Rc<Worker>,
    beat: Beat,
    (ready, stopped): (Told, Told),
    shutdown: Shutdown,
    told: impl Future<Output = io::Error>,
) -> Result<u64, ServeError>
where
    A: Accept,
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + 'static,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
    worker.slot.set_state(SlotState::Ready);
    ready();
    tokio::select! {
        drained = serve_with(source, service, worker, beat, stopped, shutdown) => drained.map(|drained| drained.forced),
        error = told => Err(ServeError::Control(error)),
    }
}

/// Passes orders on for ever; ends only by an error.
async fn listen(
    (control, parse): (OwnedFd, Parse),
    signals: Heard,
    orders: Orders,
    config: &Config,
    speech: &Speeches,
) -> io::Error {
    let Heard { signals, term } = signals;
    let by_signal = control::obey_signals(signals, orders.clone());
    let by_term = control::obey_term(term, orders.clone(), config);
    let by_supervisor = async {
        match control::obey_supervisor(control, parse, orders, config, speech).await {
            // The supervisor is gone and the drain ordered; signals still count.
            Ok(()) => std::future::pending().await,
            Err(error) => Err(error),
        }
    };
    let never: Result<((), (), ()), io::Error> =
        async { tokio::try_join!(by_signal, by_term, by_supervisor) }.await;
    never.err().unwrap_or_else(|| io::Error::other("orders ended"))
}

//! The heart of a worker, without fork, socket or signal: connections in, orders in, a drained worker out.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as HttpBody;
use saola_observability::Slot;
use saola_observability::closed::{Level, SlotState};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::accept::tokio::Tokio;
use crate::accept::{Accept, AcceptError, Accepted, Listener, Permits, Queue, Stream};
use crate::birth::Hooks;
use crate::chain::chain;
use crate::config::Config;
use crate::connection;
use crate::drain::{Drained, Draining, Order, Shutdown, Stage, Told};
use crate::heartbeat::{self, Beat};
use crate::request::body::RequestBody;
use crate::request::current;
use crate::worker::Worker;
use crate::{BoxError, ServeError, tls};

/// Serves connections of a source until it has been told to end and has done so.
///
/// Must run in a [`tokio::runtime::LocalRuntime`] or a `LocalSet`, on the thread that owns the slot.
///
/// # Errors
///
/// [`ServeError`] when the source of connections breaks or the kernel has no random numbers.
pub async fn serve<A, S, B>(
    source: A,
    service: S,
    slot: &'static Slot,
    config: Config,
    hooks: Hooks,
    shutdown: Shutdown,
) -> Result<Drained, ServeError>
where
    A: Accept,
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + 'static,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
    current::record_panics(slot);
    let Hooks { ready, ask_recycle, stopped, drained, failed: _ } = hooks;
    let permits = Permits::new(config.worker_connections);
    let worker = Worker::new(slot, config, permits, ask_recycle, TaskTracker::new())?;
    let beat = Beat::new();
    ready();
    slot.set_state(SlotState::Ready);
    let ended = serve_with(source, service, &worker, beat, stopped, shutdown).await?;
    drained(ended.forced);
    Ok(ended)
}

/// As [`serve`], with the shared state made by the caller.
pub(crate) async fn serve_with<A, S, B>(
    mut source: A,
    service: S,
    worker: &Rc<Worker>,
    beat: Beat,
    stopped: Box<dyn FnOnce()>,
    mut shutdown: Shutdown,
) -> Result<Drained, ServeError>
where
    A: Accept,
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + 'static,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
    let _ticking = Owned(tokio::task::spawn_local(heartbeat::beat(Rc::clone(worker), beat)));
    let _renewing = Owned(tokio::task::spawn_local(tls::renew(Rc::clone(worker))));
    current::begin_draining(false);
    let mut stopped = Some(stopped);
    let mut are_orders_open = true;
    let mut deadline = pin!(tokio::time::sleep(FOREVER));
    loop {
        let is_working = !worker.background.is_empty();
        if stopped.is_none() && worker.open_connections() == 0 && !is_working {
            return Ok(ended(worker, 0));
        }
        tokio::select! {
            biased;
            told = shutdown.0.recv(), if are_orders_open => match told {
                Some(Told::Order(Order::Pause)) => source.pause(),
                Some(Told::Order(Order::Resume)) => source.resume(),
                Some(Told::Order(order)) => if let Some(draining) = begin(worker, order) {
                    source.finish(queue(draining.stage));
                    deadline.as_mut().reset(draining.deadline);
                },
                // A drain waits for it, as for all work beside the requests.
                Some(Told::Empty(listener)) => {
                    let emptied = empty(listener, service.clone(), Rc::clone(worker));
                    worker.background.spawn_local(emptied);
                }
                None => are_orders_open = false,
            },
            () = &mut deadline, if worker.is_draining() => return Ok(force(worker, stopped.take()).await),
            () = worker.closed.notified(), if stopped.is_none() => {}
            () = worker.background.wait(), if stopped.is_none() && is_working => {}
            accepted = std::future::poll_fn(|cx| source.poll_accept(cx, &worker.permits)), if stopped.is_some() => {
                match accepted? {
                    Some(accepted) => take_on(accepted, service.clone(), worker).await,
                    None => if let Some(stopped) = stopped.take() {
                        stopped();
                    }
                }
            }
        }
    }
}

/// Gives a connection a task of its own, and its turn before the next is taken: what is accepted and not answered is what
/// a kill loses.
async fn take_on<I, S, B>(accepted: Accepted<I>, service: S, worker: &Rc<Worker>)
where
    I: Stream + 'static,
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + 'static,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
    worker.slot.liveness().add_accepted(1);
    let task = connection::serve(accepted, service, Rc::clone(worker));
    worker.begin_connection();
    // Owned by the runtime; it ends at the latest when the drain is forced.
    tokio::task::spawn_local(task);
    tokio::task::yield_now().await;
}

/// Serves what waits in the queue of a socket that nobody else accepts from, and closes it.
async fn empty<S, B>(listener: Listener, service: S, worker: Rc<Worker>)
where
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + 'static,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
    let source = Tokio::new(vec![listener], worker.slot).map_err(AcceptError::Acceptor);
    let emptied = match source {
        Ok(mut source) => {
            source.finish(Queue::Empty);
            loop {
                match std::future::poll_fn(|cx| source.poll_accept(cx, &worker.permits)).await {
                    Ok(Some(accepted)) => take_on(accepted, service.clone(), &worker).await,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
        }
        Err(error) => Err(error),
    };
    if let Err(error) = emptied {
        worker.event(Level::Error, "an accept queue is lost", &[("error", &chain(&error))]);
    }
}

const TURNS: usize = 64;
/// Far enough to mean "not set"; tokio's timers end before `Duration::MAX`.
const FOREVER: Duration = Duration::from_hours(24 * 365);

fn begin(worker: &Rc<Worker>, order: Order) -> Option<Draining> {
    let draining = Draining::next(worker.draining.get(), order, Instant::now())?;
    if !worker.is_draining() {
        worker.answered.set(0);
    }
    worker.draining.set(Some(draining));
    worker.slot.set_state(SlotState::Draining);
    worker.background.close();
    current::begin_draining(true);
    worker.look();
    Some(draining)
}

fn queue(stage: Stage) -> Queue {
    match stage {
        Stage::Stop => Queue::Empty,
        Stage::Handover | Stage::Quick => Queue::Leave,
    }
}

/// The deadline has passed: cuts every connection, which ends every record.
async fn force(worker: &Rc<Worker>, stopped: Option<Box<dyn FnOnce()>>) -> Drained {
    if let Some(stopped) = stopped {
        stopped();
    }
    let forced = u64::try_from(worker.open_connections()).unwrap_or(u64::MAX);
    worker.is_forced.set(true);
    worker.look();
    // What belongs to the application ends when it looks, or else with the process.
    while worker.open_connections() > worker.upgraded.get() {
        worker.closed.notified().await;
    }
    // Streams of HTTP/2 are tasks of their own and notice a turn later that their connection has gone.
    for _ in 0..TURNS {
        if worker.open_requests() == 0 && worker.open_connections() == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    ended(worker, forced)
}

fn ended(worker: &Worker, forced: u64) -> Drained {
    let elapsed = worker.draining.get().map_or(Duration::ZERO, |draining| draining.since.elapsed());
    let answered = worker.answered.get();
    let fields = [
        ("answered", answered.to_string()),
        ("forced", forced.to_string()),
        ("seconds", format!("{:.3}", elapsed.as_secs_f64())),
    ];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    worker.event(Level::Info, "drain", &fields);
    Drained { answered, forced, elapsed }
}

struct Owned(tokio::task::JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl From<AcceptError> for ServeError {
    fn from(error: AcceptError) -> Self {
        Self::Accept(error)
    }
}

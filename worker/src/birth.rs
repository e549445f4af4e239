//! What a worker is given by whoever forked it, and what it tells them.

use std::future::Future;
use std::os::fd::OwnedFd;

use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio_util::task::TaskTracker;

use crate::BoxError;
use crate::accept::{Balance, Listener};
use crate::drain::Order;
use crate::request::body::RequestBody;

/// What a user's factory is turned into; called once for each worker, inside its runtime.
pub trait MakeService {
    /// The service. It is cloned for each request, and stays on the worker's thread.
    type Service: tower_service::Service<
            Request<RequestBody>,
            Response = Response<Self::Body>,
            Error: Into<BoxError>,
        > + Clone
        + 'static;
    /// The body of its responses.
    type Body: HttpBody<Error: Into<BoxError>> + 'static;

    /// Makes the service. An error here is one of loading the application; a panic is one of booting the worker.
    fn make(self, worker: &WorkerInfo) -> impl Future<Output = Result<Self::Service, BoxError>>;
}

/// What a worker knows of itself, and its handle for work beside the requests.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The number of its slot.
    pub slot: u32,
    /// How many workers are configured.
    pub workers: u32,
    /// The generation it belongs to.
    pub generation: u64,
    /// Where the server listens.
    pub addresses: Vec<String>,
    pub(crate) background: TaskTracker,
}

impl WorkerInfo {
    /// A worker in a slot, one of so many.
    pub fn new(slot: u32, workers: u32, generation: u64, addresses: Vec<String>) -> Self {
        Self { slot, workers, generation, addresses, background: TaskTracker::new() }
    }

    /// Runs work beside the requests, on the worker's thread. A drain waits for it, until its deadline.
    ///
    /// Work without an end of its own watches [`draining`](crate::draining).
    pub fn background(&self, work: impl Future<Output = ()> + 'static) {
        self.background.spawn_local(work);
    }
}

/// What a worker inherits.
#[derive(Debug)]
pub struct Birth {
    /// What it knows of itself.
    pub info: WorkerInfo,
    /// Its listening sockets.
    pub listeners: Vec<Listener>,
    /// What it and its siblings know of each other's connections; none for a worker that takes all it can.
    pub balance: Option<Balance>,
    /// The channel on which the supervisor's orders come, one a datagram. Its end means that the supervisor has died.
    pub control: OwnedFd,
    /// Reads a datagram; `None` when it is no order.
    pub parse: Parse,
}

/// Understands an order; `None` is none.
pub type Parse = fn(&[u8]) -> Option<Order>;

/// Hears why a worker could not become ready.
pub type Failed = Box<dyn FnOnce(Stage, &str)>;

/// What a worker tells whoever started it.
pub struct Hooks {
    /// The service is made and connections are accepted. Called once.
    pub ready: Box<dyn FnOnce()>,
    /// The worker could not become ready, and ends.
    pub failed: Failed,
    /// `max_requests` are served: it goes on serving until it is told to hand over.
    pub ask_recycle: Box<dyn FnMut()>,
    /// Its accept queue is drained as ordered, and its listeners are closed.
    pub stopped: Box<dyn FnOnce()>,
    /// Its last connection has ended; so many were cut at the deadline.
    pub drained: Box<dyn FnOnce(u64)>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            ready: Box::new(|| ()),
            failed: Box::new(|_, _| ()),
            ask_recycle: Box::new(|| ()),
            stopped: Box::new(|| ()),
            drained: Box::new(|_| ()),
        }
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// Where a worker failed before it was ready.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Stage {
    /// In the worker, or by a panic.
    Boot,
    /// In the application's factory, which said so.
    Load,
}

/// Why a worker ends.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum ExitReason {
    /// It was told to, and did what was open.
    Drained,
    /// It could not become ready.
    Boot,
    /// The application could not be loaded.
    Load,
    /// Its event loop ended by itself.
    Internal,
}

impl ExitReason {
    /// The exit status of the process.
    pub const fn code(self) -> u8 {
        match self {
            Self::Drained => 0,
            Self::Boot => 3,
            Self::Load => 4,
            Self::Internal => 70,
        }
    }
}

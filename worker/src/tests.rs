//! Whole workers in process: duplex streams instead of sockets, a paused clock, and the records they leave.

mod agreement;
mod app;
mod corpus;
mod deadlines;
mod drain;
mod floods;
mod frames;
mod http1;
mod http2;
mod large;
mod proxies;
mod queues;
mod sockets;
mod tls;
mod upgrades;

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use saola_observability::{Outcome, Slot};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::accept::Permits;
use crate::heartbeat::Beat;
use crate::request::current;
use crate::serve::serve_with;
use crate::worker::{Finished, Worker};
use crate::{Config, Drained, Injected, Order, Orders, ServeError, Shutdown, Speech};
pub(crate) use app::{Body, app};

/// How long after a deadline it is now. Never early.
pub(crate) fn late(start: tokio::time::Instant, deadline: u64) -> Duration {
    start.elapsed().checked_sub(Duration::from_secs(deadline)).expect("a deadline is never early")
}

/// A slot of this thread's own. The statics go first: where they count in a test also takes a slot.
pub(crate) fn slot() -> &'static Slot {
    crate::metrics::register();
    Slot::in_memory()
}

/// A worker under test.
pub(crate) struct Server {
    streams: mpsc::UnboundedSender<DuplexStream>,
    pub(crate) orders: Orders,
    pub(crate) worker: Rc<Worker>,
    pub(crate) recycles: Rc<Cell<u32>>,
    served: JoinHandle<Result<Drained, ServeError>>,
}

/// One connection to it.
pub(crate) struct Client(pub(crate) DuplexStream);

/// A response as it stood on the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) fn config() -> Config {
    Config { seed: Some(1), ..Config::default() }
}

/// Runs a test in a runtime whose clock jumps to the next timer whenever nothing else can happen.
pub(crate) fn test<F: Future>(config: Config, body: impl FnOnce(Server) -> F) {
    test_speaking(Speech::default(), config, body);
}

/// As [`test`], of a listener with something before HTTP.
pub(crate) fn test_speaking<F: Future>(
    speech: Speech,
    config: Config,
    body: impl FnOnce(Server) -> F,
) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let server = Server::start(config, speech);
        body(server).await;
    });
}

impl Server {
    fn start(config: Config, speech: Speech) -> Self {
        let slot = slot();
        slot.in_flight().set_detail(config.detail);
        current::record_panics(slot);
        let background = TaskTracker::new();
        let permits = Permits::new(config.worker_connections);
        let recycles = Rc::new(Cell::new(0));
        let asked = Rc::clone(&recycles);
        let ask_recycle = Box::new(move || asked.set(asked.get() + 1));
        let worker = Worker::new(slot, config, permits, ask_recycle, background).unwrap();
        let (streams, source) = Injected::channel(speech);
        let (orders, shutdown) = Shutdown::channel();
        let shared = Rc::clone(&worker);
        let served = tokio::task::spawn_local(async move {
            let service = tower::service_fn(app);
            serve_with(source, service, &shared, Beat::new(), Box::new(|| ()), shutdown).await
        });
        Self { streams, orders, worker, recycles, served }
    }

    pub(crate) fn connect(&self) -> Client {
        self.connect_with(1 << 20)
    }

    /// Connects through a pipe that holds so many bytes.
    pub(crate) fn connect_with(&self, capacity: usize) -> Client {
        let (ours, theirs) = tokio::io::duplex(capacity);
        self.streams.send(theirs).unwrap();
        Client(ours)
    }

    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Worker) -> bool) {
        for _ in 0..10_000 {
            if condition(&self.worker) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("not in time: {what}");
    }

    /// The records so far.
    pub(crate) fn finished(&self) -> Vec<Finished> {
        self.worker.finished.borrow().clone()
    }

    pub(crate) fn outcomes(&self) -> Vec<(Option<u16>, Outcome)> {
        self.finished().iter().map(|finished| (finished.status, finished.outcome)).collect()
    }

    pub(crate) async fn drained(self) -> Drained {
        self.served.await.unwrap().unwrap()
    }

    pub(crate) async fn stop(self) -> Drained {
        self.orders.give(Order::Stop { deadline: Duration::from_secs(30) });
        let worker = Rc::clone(&self.worker);
        let drained = self.drained().await;
        assert_eq!(worker.slot.in_flight().running(), 0, "started = finished when nothing runs");
        assert_eq!(worker.open_requests(), 0);
        drained
    }
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).await.unwrap();
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        self.answer().await
    }

    /// Reads one response.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("a response head"));
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let field =
            |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let mut body = Vec::new();
        if let Some(length) = field("content-length:")
            && !matches!(status, 204 | 304)
        {
            body.resize(length.parse().unwrap(), 0);
            self.0.read_exact(&mut body).await.expect("a whole body");
        }
        let body = String::from_utf8(body).unwrap();
        Answer { status, head, body }
    }

    /// Reads to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).await.unwrap();
        rest
    }
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn closes(&self) -> bool {
        self.field("connection") == Some("close")
    }
}

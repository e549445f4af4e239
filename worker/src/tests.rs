//! Whole workers in process: duplex streams instead of sockets, a paused clock, and the records they leave.

mod agreement;
mod corpus;
mod deadlines;
mod drain;
mod floods;
mod frames;
mod http1;
mod http2;
mod proxies;
mod sockets;
mod tls;
mod upgrades;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use saola_observability::{Outcome, Slot};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::accept::Permits;
use crate::connection::Streamed;
use crate::heartbeat::Beat;
use crate::request::current;
use crate::serve::serve_with;
use crate::worker::{Finished, Worker};
use crate::{
    BoxError, Config, Drained, Injected, Order, Orders, RequestBody, ServeError, Shutdown, Speech,
};

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

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

fn text(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed_unsync())
}

fn frames(frames: Vec<Result<&'static str, &'static str>>) -> Response<Body> {
    let frames = frames.into_iter().map(|frame| match frame {
        Ok(text) => Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
        Err(error) => Err(BoxError::from(error)),
    });
    Response::new(BodyExt::boxed_unsync(Frames(frames.collect())))
}

/// A body of ready frames.
struct Frames(std::collections::VecDeque<Result<Frame<Bytes>, BoxError>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = self.0.pop_front();
        assert!(
            !matches!(&next, Some(Err(error)) if error.to_string() == "panic"),
            "the body panics"
        );
        std::task::Poll::Ready(next)
    }
}

/// A body of frames without end.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1000])))))
    }
}

/// Says by its route whether it is dropped as its request.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        crate::set_route(if crate::trace().is_some() { "/inside" } else { "/outside" });
    }
}

/// The service under test: one path for each thing that can happen.
async fn app(request: Request<RequestBody>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if request.method() == http::Method::POST {
        return Ok(uploaded(&path, request.into_body()).await);
    }
    Ok(match path.as_str() {
        "/" => {
            crate::set_route("/");
            text("hello")
        }
        "/panic" => panic!("on purpose"),
        "/sleep" => {
            tokio::time::sleep(Duration::from_secs(31)).await;
            text("late")
        }
        "/upgrade" => upgrade(request),
        "/peer" => text(peer(&request)),
        "/second" => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            text("a second later")
        }
        "/endless" => Response::new(BodyExt::boxed_unsync(Endless)),
        "/guarded" => {
            let _guard = Guard;
            tokio::time::sleep(Duration::from_secs(5)).await;
            text("")
        }
        "/large" => text("x".repeat(100_000)),
        "/empty" => text(""),
        "/204" => status(
            StatusCode::NO_CONTENT,
            Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync()),
        ),
        "/304" => status(StatusCode::NOT_MODIFIED, text("")),
        "/stream" => frames(vec![Ok("one"), Ok("two")]),
        "/trailers" => {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let body = text("data").into_body();
            Response::new(body.with_trailers(async { Some(Ok(trailers)) }).boxed_unsync())
        }
        "/broken" => frames(vec![Ok("one"), Err("broken")]),
        "/panicking" => frames(vec![Ok("one"), Err("panic")]),
        "/trace" => {
            let trace = crate::trace().expect("inside a request");
            let same = crate::blocking(|| crate::trace().expect("carried").span_id).await;
            assert_eq!(same, trace.span_id);
            text(format!(
                "{} {} {}",
                trace.traceparent(),
                trace.tracestate().unwrap_or("-"),
                trace.request_id()
            ))
        }
        _ => status(StatusCode::NOT_FOUND, text("nothing here")),
    })
}

/// Echoes behind a 101, and says goodbye when the worker drains.
fn upgrade(mut request: Request<RequestBody>) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::task::spawn_local(async move {
        let mut stream = Streamed(upgraded.await.expect("an upgrade"));
        let (mut byte, mut is_told) = ([0], false);
        loop {
            tokio::select! {
                biased;
                read = stream.read_exact(&mut byte) => match read {
                    Ok(_) => stream.write_all(&byte).await.expect("the client reads"),
                    Err(_) => return,
                },
                () = crate::draining(), if !is_told => {
                    stream.write_all(b"bye").await.expect("the client reads");
                    is_told = true;
                }
            }
        }
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS, text(""));
    for (name, value) in [("connection", "upgrade"), ("upgrade", "echo")] {
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    response
}

/// Client, socket, scheme, and the field as the application sees it.
fn peer(request: &Request<RequestBody>) -> String {
    let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let peer = crate::peer().expect("inside a request");
    let client = shown(peer.client.map(|client| client.to_string()));
    let socket = shown(peer.socket.map(|socket| socket.to_string()));
    let mut fields = request.headers().iter().filter(|(name, _)| name.as_str().starts_with('x'));
    let mut field = fields.find(|(name, _)| name.as_str().ends_with("for"));
    let field = shown(field.take().map(|(_, value)| value.to_str().unwrap().to_owned()));
    format!("{client} {socket} {} {field}", peer.scheme)
}

/// What takes a body.
async fn uploaded(path: &str, mut body: RequestBody) -> Response<Body> {
    match path {
        "/echo" => match body.collect().await {
            Ok(body) => text(body.to_bytes()),
            Err(error) => status(StatusCode::UNPROCESSABLE_ENTITY, text(error.to_string())),
        },
        "/dawdle" => {
            for _ in 0..2 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                let _ = body.frame().await;
            }
            text("read at last")
        }
        "/echo-sleep" => {
            let _ = body.collect().await;
            tokio::time::sleep(Duration::from_mins(5)).await;
            text("late")
        }
        "/small" | "/big" => {
            crate::body_limit(if path == "/big" { 2 << 20 } else { 10 });
            match body.collect().await {
                Ok(body) => text(body.to_bytes().len().to_string()),
                Err(error) => status(StatusCode::UNPROCESSABLE_ENTITY, text(error.to_string())),
            }
        }
        "/back" => Response::new(body.map_err(BoxError::from).boxed_unsync()),
        _ => status(StatusCode::NOT_FOUND, text("nothing here")),
    }
}

fn status(status: StatusCode, mut response: Response<Body>) -> Response<Body> {
    *response.status_mut() = status;
    response
}

//! The task of one connection: opening, then hyper.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as HttpBody;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use saola_observability::closed::Level;
use tokio::time::Instant;

use super::Connection;
use super::anchored::Anchored;
use super::drive::{Stage, drive};
use super::gate::{Gate, Opening};
use super::opening::open;
use super::transport::Transport;
use crate::BoxError;
use crate::accept::{Accepted, Permit, Stream};
use crate::request::Front;
use crate::request::body::RequestBody;
use crate::worker::Worker;

/// Serves one connection to its end. The permit, the deadlines and every request of it end here.
///
/// The future of a connection is of the size of what it holds in HTTP/1. The rest has boxes of its own: what comes before
/// HTTP, which is over soon, and HTTP/2, which has the room of many.
pub(crate) fn serve<I, S, B>(
    accepted: Accepted<I>,
    service: S,
    worker: Rc<Worker>,
) -> impl Future<Output = ()>
where
    I: Stream + 'static,
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + 'static,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
    let opened = Box::pin(begin(accepted, Rc::clone(&worker)));
    async move {
        let Some(Opened { gate, connection, opening }) = opened.await else { return };
        let front =
            Front { service, worker: Rc::clone(&worker), connection: Rc::clone(&connection) };
        let ended = match opening {
            Opening::Http1 => {
                let copies = worker.copies_bodies(Instant::now());
                connection.copies_bodies.set(copies);
                let mut http1 = http1(&worker);
                let io = TokioIo::new(Anchored::new(gate));
                let served = http1.writev(!copies).serve_connection(io, front);
                drive(&connection, Http1(served.with_upgrades())).await
            }
            Opening::Http2 => {
                let served = http2(&worker).serve_connection(TokioIo::new(gate), front);
                Box::pin(drive(&connection, Http2 { served, goodbye: None })).await
            }
            // Its answer has been written and recorded, or the client left.
            Opening::Over => return,
        };
        let Some(Err(error)) = ended else { return };
        connection.failed(&error);
        if error.is_parse() || error.is_user() {
            // The gate lets no head through that hyper refuses; if one does, this is how we hear of it.
            worker.event(Level::Warn, "a connection failed", &[("error", &error.to_string())]);
        }
    }
}

/// A connection whose protocol is known.
struct Opened<I: Stream> {
    gate: Gate<Transport<I>>,
    connection: Rc<Connection>,
    opening: Opening,
}

/// Does what comes before HTTP, and waits for the first head; `None` when the client did not do its part.
async fn begin<I: Stream>(accepted: Accepted<I>, worker: Rc<Worker>) -> Option<Opened<I>> {
    let Accepted { io, peer, speech, at, permit } = accepted;
    if worker.config.debug
        && let Some((uid, pid)) = io.owner()
    {
        let (uid, pid) = (uid.to_string(), pid.to_string());
        let fields = [("peer", "unix"), ("peer_uid", &*uid), ("peer_pid", &*pid)];
        worker.event(Level::Debug, "connection accepted", &fields);
    }
    let connection = Connection::new(&worker, peer, at);
    let number = worker.register(&connection);
    let place = Place { number, worker: Rc::clone(&worker), _permit: permit };
    let io = open(io, speech, &connection, at).await?;
    let mut gate = Gate::new(io, Rc::clone(&connection), place);
    let opening = drive(&connection, Opens(&mut gate)).await?.ok()?;
    Some(Opened { gate, connection, opening })
}

fn http1(worker: &Worker) -> http1::Builder {
    let config = &worker.config;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // It would also run while a connection is idle, and hyper would answer nothing.
        .header_read_timeout(None)
        .half_close(true)
        .keep_alive(true)
        .pipeline_flush(false)
        .max_headers(config.limit_request_fields)
        // No `max_header_size`: the gate limits heads, and trailers would be allowed as much instead of hyper's 16 KiB.
        .max_buf_size(131_072)
        .auto_date_header(true)
        .ignore_invalid_headers(false);
    builder
}

fn http2(worker: &Worker) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(1024)
        .max_header_list_size(65_536)
        .header_table_size(4096)
        .max_concurrent_streams(worker.config.http2_max_streams)
        .initial_stream_window_size(262_144)
        .initial_connection_window_size(1_048_576)
        .max_frame_size(16_384)
        .max_send_buf_size(131_072)
        .adaptive_window(false)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .auto_date_header(true);
    builder
}

/// What a connection takes up in its worker, for as long as its stream is open: also behind an upgrade.
pub(super) struct Place {
    number: u64,
    worker: Rc<Worker>,
    _permit: Permit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker.forget(self.number);
    }
}

struct Opens<'a, I: Stream>(&'a mut Gate<I>);

impl<I: Stream> Stage for Opens<'_, I> {
    type Output = std::io::Result<Opening>;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_open(cx)
    }
}

struct Http1<C>(C);

impl<C: Future + Unpin> Stage for Http1<C> {
    type Output = C::Output;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

struct Http2<I, S, B>
where
    I: Stream,
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>
        + Clone,
    B: HttpBody<Error: Into<BoxError>>,
{
    served: http2::Connection<TokioIo<Gate<I>>, Front<S>, LocalExecutor>,
    goodbye: Option<Instant>,
}

impl<I, S, B> Stage for Http2<I, S, B>
where
    I: Stream + 'static,
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + 'static,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
    type Output = hyper::Result<()>;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.served).poll(cx)
    }

    fn goodbye(&mut self) -> bool {
        if self.goodbye.is_some() {
            return false;
        }
        self.goodbye = Some(Instant::now());
        // GOAWAY first; open streams finish.
        Pin::new(&mut self.served).graceful_shutdown();
        true
    }
}

/// Runs the streams of HTTP/2 on this thread.
#[derive(Copy, Clone, Debug)]
pub(crate) struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        // Owned by the runtime; it ends with its stream, which ends with the connection.
        tokio::task::spawn_local(future);
    }
}

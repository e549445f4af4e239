//! The task of one connection: opening, hyper, and the timer around both.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as HttpBody;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use saola_observability::closed::Level;
use tokio::time::{Instant, Sleep};

use super::Connection;
use super::anchored::Anchored;
use super::deadlines::Due;
use super::gate::{Gate, Opening};
use super::opening::open;
use crate::BoxError;
use crate::accept::{Accepted, Permit, Stream};
use crate::clock::TICK;
use crate::request::Front;
use crate::request::body::RequestBody;
use crate::timer::TokioTimer;
use crate::worker::Worker;

/// Serves one connection to its end. The permit, the deadlines and every request of it end here.
pub(crate) async fn serve<I, S, B>(accepted: Accepted<I>, service: S, worker: Rc<Worker>)
where
    I: Stream + 'static,
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + 'static,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
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
    let Some(io) = open(io, speech, &connection, at).await else { return };
    let mut gate = Gate::new(io, Rc::clone(&connection), place);
    let opening = drive(&connection, Opens(&mut gate)).await;
    let front = Front { service, worker: Rc::clone(&worker), connection: Rc::clone(&connection) };
    let ended = match opening {
        Some(Ok(Opening::Http1)) => {
            let served = http1(&worker).serve_connection(Anchored::new(gate), front);
            drive(&connection, Http1(served.with_upgrades())).await
        }
        Some(Ok(Opening::Http2)) => {
            let served = http2(&worker).serve_connection(gate, front);
            drive(&connection, Http2 { served, goodbye: None }).await
        }
        // Nothing to tell anyone: the client left, or its answer has been written and recorded.
        Some(Ok(Opening::Over) | Err(_)) | None => return,
    };
    if let Some(Err(error)) = &ended {
        connection.failed(error);
    }
    if let Some(Err(error)) = ended
        && (error.is_parse() || error.is_user())
    {
        // The gate lets no head through that hyper refuses; if one does, this is how we hear of it.
        worker.event(Level::Warn, "a connection failed", &[("error", &error.to_string())]);
    }
}

fn http1(worker: &Worker) -> http1::Builder {
    let config = &worker.config;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer)
        // It would also run while a connection is idle, and hyper would answer nothing.
        .header_read_timeout(None)
        .half_close(true)
        .keep_alive(true)
        .pipeline_flush(false)
        .max_headers(config.limit_request_fields)
        .max_header_size(config.limit_request_head)
        .max_buf_size(131_072)
        .auto_date_header(true)
        .ignore_invalid_headers(false);
    builder
}

fn http2(worker: &Worker) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer)
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

/// A part of a connection's life that the clock can cut short.
pub(super) trait Stage {
    type Output;
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output>;
    /// Begins a graceful end; says whether the protocol has one, and it has not been said before.
    fn goodbye(&mut self) -> bool {
        false
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
    served: http2::Connection<Gate<I>, Front<S>, LocalExecutor>,
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

/// Runs a stage under the connection's deadlines; `None` when they cut it.
pub(super) async fn drive<S: Stage>(
    connection: &Rc<Connection>,
    mut stage: S,
) -> Option<S::Output> {
    let mut timer =
        std::pin::pin!(tokio::time::sleep_until(Instant::now() + connection.shortest()));
    connection.attention.set(true);
    let mut is_armed = false;
    // The runtime learns what has arrived when it looks. A connection whose first turn comes late, because the machine is
    // full, is idle only if it still is after that look.
    let (mut look, mut has_looked) = (std::pin::pin!(tokio::task::yield_now()), false);
    // An HTTP/2 client gets a second to answer the goodbye.
    let mut cut_at = None;
    std::future::poll_fn(|cx| {
        connection.remember(cx);
        loop {
            connection.ended_at.set(None);
            if let Poll::Ready(output) = stage.poll(cx) {
                return Poll::Ready(Some(output));
            }
            if !connection.attention.get() {
                // A request that has just ended has looked at the clock: an armed timer need not be asked.
                let is_early = |now| now + TICK < timer.deadline();
                if (is_armed && connection.ended_at.get().is_some_and(is_early))
                    || timer.as_mut().poll(cx).is_pending()
                {
                    is_armed = true;
                    return Poll::Pending;
                }
            }
            is_armed = false;
            if connection.worker.is_draining() && stage.goodbye() {
                connection.attention.set(true);
                continue;
            }
            let now = Instant::now();
            match connection.due(now) {
                Due::Cut => return Poll::Ready(None),
                Due::Idle if !has_looked => {
                    // The timer may be far: this verdict came of an order.
                    connection.attention.set(true);
                    ready!(look.as_mut().poll(cx));
                    has_looked = true;
                    continue;
                }
                Due::Idle if cut_at.is_none() && stage.goodbye() => cut_at = Some(now + GOODBYE),
                Due::Idle if cut_at.is_none_or(|at| at <= now) => {
                    connection.is_orderly.set(true);
                    return Poll::Ready(None);
                }
                Due::Idle => {}
                Due::Again => continue,
                Due::At(next) => {
                    rearm(timer.as_mut(), next);
                    continue;
                }
            }
            rearm(timer.as_mut(), cut_at.unwrap_or(now));
        }
    })
    .await
}

const GOODBYE: Duration = Duration::from_secs(1);

fn rearm(timer: Pin<&mut Sleep>, at: Instant) {
    if timer.deadline() != at || timer.is_elapsed() {
        timer.reset(at);
    }
}

impl Connection {
    pub(super) fn remember(&self, cx: &Context<'_>) {
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(cx.waker())) {
            *kept = Some(cx.waker().clone());
        }
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

//! From a parsed head to a response head: identity, limits, checks, the service, its panics and its deadline.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod check;
pub(crate) mod current;
pub(crate) mod deadline;
pub(crate) mod facts;
pub(crate) mod fields;
pub(crate) mod forwarded;
pub(crate) mod host;
pub(crate) mod ids;
mod large;
mod long;
pub(crate) mod reading;
pub(crate) mod sampling;
pub(crate) mod scope;

use std::future::Future;
use std::hint::cold_path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, SERVER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use saola_observability::closed::Level;
use tokio::task::JoinHandle;

use crate::BoxError;
use crate::branch::{rare, unlikely};
use crate::connection::Connection;
use crate::metrics;
use crate::worker::Worker;
use answer::Refusal;
use body::{RequestBody, ResponseBody, Source};
use check::Marks;
use facts::Head;
use fields::Fields;
use forwarded::Peer;
use ids::Origin;
use reading::Reading;
use scope::{Holder, Running, Waiting, caught};

/// What hyper calls: one a connection, around a clone of the user's service.
pub(crate) struct Front<S> {
    pub(crate) service: S,
    pub(crate) worker: Rc<Worker>,
    pub(crate) connection: Rc<Connection>,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Front<S>
where
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>
        + Clone,
    B: HttpBody<Error: Into<BoxError>>,
{
    type Response = Response<ResponseBody<B>>;
    type Error = std::convert::Infallible;
    type Future = RequestScope<S, S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let reading = Reading::of(request.body(), self.worker.config.limit_request_body);
        let known = &self.connection.host;
        let mut fields = Fields::read(request.headers(), &mut known.borrow_mut());
        let (mut peer, mut forwarded) = (None, Ok(()));
        if unlikely(fields.marks.has_forwarding) {
            (peer, forwarded) = self.forwarded(request.headers_mut());
            fields = Fields::read(request.headers(), &mut known.borrow_mut());
        }
        let marks = fields.marks;
        let (method, uri) = (request.method(), Some(request.uri()));
        let head = Head { method, version: request.version(), uri, fields: &fields, peer };
        let running = Running::begin(&self.connection, head, reading);
        let holder = Holder(Rc::clone(&running));
        let facts = &running.facts;
        let verdict = forwarded.and_then(|()| admit(&self.worker, marks, &mut request));
        if facts.id_origin == Origin::Made {
            request.headers_mut().insert(ids::REQUEST_ID, facts.request_id.clone());
        }
        running.can_upgrade.set(request.extensions().get::<OnUpgrade>().is_some());
        let state = match verdict {
            Err(refusal) => rare(State::Refused { refusal }),
            Ok(()) => match self.metrics(&request) {
                Some(join) => {
                    cold_path();
                    running.set_route("/metrics");
                    running.waiting.set(Waiting::Response);
                    State::Metrics { join }
                }
                // A clone for each request: after a panic none of it is used again.
                None => State::Uncalled { service: self.service.clone(), request: Some(request) },
            },
        };
        RequestScope { state, holder: Some(holder) }
    }
}

/// Limits and policy, before anything of the service is touched.
fn admit<B>(
    worker: &Worker,
    marks: Marks,
    request: &mut Request<B>,
) -> Result<(), &'static Refusal> {
    check::check(request, marks, worker.config.header_map)?;
    if unlikely(worker.open_requests() > worker.config.limit_concurrency) {
        return Err(Refusal::OVERLOAD);
    }
    Ok(())
}

impl<S> Front<S> {
    /// Whom proxies name; nobody when what they say cannot be.
    #[inline(never)] // a frame of its own: most requests have no use for it
    fn forwarded(
        &self,
        fields: &mut HeaderMap,
    ) -> (Option<Box<Peer>>, Result<(), &'static Refusal>) {
        let direct = self.connection.peer.borrow().clone();
        match forwarded::read(fields, direct, &self.worker.config.forwarded_allow_ips) {
            Ok(peer) => (Some(Box::new(peer)), Ok(())),
            Err(refusal) => (None, Err(refusal)),
        }
    }

    fn metrics<B>(&self, request: &Request<B>) -> Option<JoinHandle<Response<Bytes>>> {
        let answer = self.worker.config.metrics.as_ref()?;
        let is_asked = matches!(*request.method(), Method::GET | Method::HEAD);
        if request.uri().path() != "/metrics" || !is_asked {
            return None;
        }
        cold_path();
        let (answer, fields, method) =
            (std::sync::Arc::clone(answer), request.headers().clone(), request.method().clone());
        Some(tokio::task::spawn_blocking(move || answer(&fields, &method)))
    }
}

pin_project_lite::pin_project! {
    /// The future around one call of the service.
    pub(crate) struct RequestScope<S, F> {
        #[pin]
        state: State<S, F>,
        // Behind the state, so that a future given up has been dropped when its record ends.
        holder: Option<Holder>,
    }

    impl<S, F> PinnedDrop for RequestScope<S, F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(running) = this.holder.as_ref().map(|holder| Rc::clone(&holder.0)) {
                cold_path();
                // Given up: its destructors run as this request, and a panic in one is caught like any other.
                // The panic is marked on the record, and nobody is left to be told.
                running.takes_loop();
                let _ = caught(&running, || this.state.set(State::Over));
            }
        }
    }
}

pin_project_lite::pin_project! {
    #[project = StateProjection]
    enum State<S, F> {
        Refused { refusal: &'static Refusal },
        // `None` only for the moment of the call.
        Uncalled { service: S, request: Option<Request<Incoming>> },
        Called { #[pin] future: F },
        Metrics { join: JoinHandle<Response<Bytes>> },
        Over,
    }
}

impl<S, B> Future for RequestScope<S, S::Future>
where
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>,
    B: HttpBody<Error: Into<BoxError>>,
{
    type Output = Result<Response<ResponseBody<B>>, std::convert::Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(holder) = this.holder.take() else { return rare(Poll::Pending) };
        let running = &holder.0;
        running.remember(cx.waker());
        let mut polled = Poll::Pending;
        running.takes_loop();
        let is_caught = caught(running, || {
            polled = match running.expired.take() {
                Some(late) => rare(Poll::Ready(Err(Own::Refusal(running.refuses_late(late))))),
                None => step(this.state.as_mut(), running, cx),
            };
            if polled.is_ready() {
                // The service's future goes first, as this request: its destructors may still write events.
                this.state.set(State::Over);
            }
        });
        if unlikely(is_caught.is_err()) {
            polled = Poll::Ready(Err(Own::Refusal(Refusal::FAILED)));
            // What has panicked is dropped now, and may panic once more.
            let _ = caught(running, || this.state.set(State::Over));
        }
        let Poll::Ready(answer) = polled else {
            running.leaves_loop();
            *this.holder = Some(holder);
            return Poll::Pending;
        };
        running.keeps_loop();
        // Whatever the service says. A request that never came to it was refused for another reason.
        let was_called = running.waiting.get() == Waiting::Response;
        let is_allowed = running.reading.as_ref().is_none_or(|reading| reading.is_allowed());
        let is_too_large = was_called && !is_allowed;
        let own = match answer {
            Ok(response) if !is_too_large => {
                let body = response.body();
                let ends = (body.is_end_stream(), body.size_hint().exact());
                return Poll::Ready(Ok(respond(holder, response, ends, Source::service)));
            }
            answer => own(running, answer.err().filter(|_| !is_too_large)),
        };
        let length = own.body().len();
        let ends = (length == 0, u64::try_from(length).ok());
        Poll::Ready(Ok(respond(holder, own, ends, Source::own)))
    }
}

/// What the worker says in the service's place.
enum Own {
    Refusal(&'static Refusal),
    Metrics(Response<Bytes>),
}

/// What is said in the service's place; nothing in particular of a body that is too large.
#[cold]
fn own(running: &Running, own: Option<Own>) -> Response<Bytes> {
    match own {
        Some(Own::Metrics(response)) => response,
        Some(Own::Refusal(refusal)) => refused(running, refusal),
        None => refused(running, Refusal::BODY_TOO_LARGE),
    }
}

/// Goes as far as it can; runs the service's code, so it may panic.
fn step<S, B>(
    mut state: Pin<&mut State<S, S::Future>>,
    running: &Rc<Running>,
    cx: &mut Context<'_>,
) -> Poll<Result<Response<B>, Own>>
where
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>,
{
    loop {
        let polled = match state.as_mut().project() {
            StateProjection::Refused { refusal } => {
                return rare(Poll::Ready(Err(Own::Refusal(refusal))));
            }
            StateProjection::Over => return rare(Poll::Pending),
            StateProjection::Metrics { join } => {
                cold_path();
                let joined = ready!(Pin::new(join).poll(cx));
                return Poll::Ready(
                    Err(joined.map_or(Own::Refusal(Refusal::FAILED), Own::Metrics)),
                );
            }
            StateProjection::Uncalled { service, request } => match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    let Some(request) = request.take() else { return rare(Poll::Pending) };
                    let reading = running.reading.clone();
                    let future =
                        service.call(request.map(|incoming| RequestBody::new(incoming, reading)));
                    running.waiting.set(Waiting::Response);
                    state.set(State::Called { future });
                    continue;
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(Own::Refusal(unready(running, error))));
                }
                Poll::Pending => {
                    cold_path();
                    running.connection.look();
                    return Poll::Pending;
                }
            },
            StateProjection::Called { future } => ready!(future.poll(cx)),
        };
        return Poll::Ready(polled.map_err(|error| {
            cold_path();
            running.failed("the service failed", &error.into());
            running.exception.set(Some("service"));
            Own::Refusal(Refusal::FAILED)
        }));
    }
}

/// The service will never take this request.
#[cold]
fn unready(running: &Running, error: impl Into<BoxError>) -> &'static Refusal {
    running.failed("the service is not ready", &error.into());
    Refusal::OVERLOAD
}

#[cold]
fn refused(running: &Running, refusal: &'static Refusal) -> Response<Bytes> {
    if let Some(reason) = refusal.reason {
        metrics::REJECTED.with([reason]).inc();
    }
    if refusal.closes() {
        running.connection.last_request.set(true);
    }
    let mut response = refusal.response(&running.facts.request_id);
    if running.facts.method == Method::HEAD {
        *response.body_mut() = Bytes::new();
    }
    response
}

/// Dresses a response, and moves the record into its body.
fn respond<T, B: HttpBody>(
    holder: Holder,
    mut response: Response<T>,
    ends: (bool, Option<u64>),
    source: fn(T) -> Source<B>,
) -> Response<ResponseBody<B>> {
    let status = response.status();
    let promised = dress(&holder.0, status, response.headers_mut(), ends);
    response.map(|body| ResponseBody::new(source(body), promised, holder))
}

/// Adds what every response carries. The body is known to be empty, and to have a length, or not; says how many bytes the
/// client is promised.
#[inline] // so that it is compiled with the service, and shares its copy of what puts fields into a map
fn dress(
    running: &Running,
    status: StatusCode,
    fields: &mut HeaderMap,
    (is_empty, exact): (bool, Option<u64>),
) -> Option<u64> {
    running.responds(status.as_u16());
    fields.insert(ids::REQUEST_ID, running.facts.request_id.clone());
    if let Some(server) = &running.worker.config.server_header
        && let Some(own) = fields.insert(SERVER, server.clone())
    {
        cold_path();
        // The service's word counts. One look-up more for it is one less for all others.
        fields.insert(SERVER, own);
    }
    let is_alone = !running.is_stream();
    // An early answer: what the client still sends is read and thrown away after the answer (W60).
    if unlikely(is_alone && running.is_body_unread()) {
        running.connection.last_request.set(true);
        running.connection.linger.set(true);
    }
    if unlikely(status == StatusCode::SWITCHING_PROTOCOLS && running.can_upgrade.get()) {
        running.connection.upgrades();
    } else if unlikely(is_alone && running.connection.is_last(&running.worker)) {
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let has_no_body = running.facts.method == Method::HEAD
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || status.is_informational();
    if has_no_body || is_empty {
        // hyper never polls these, so the end is known here.
        running.completes();
    }
    let stated = || fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    if has_no_body { None } else { exact.or_else(stated) }
}

impl Running {
    fn failed(&self, message: &'static str, error: &BoxError) {
        self.worker.event_of(Level::Error, message, Some(self), &[("error", &error.to_string())]);
    }
}

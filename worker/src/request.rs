//! From a parsed head to a response head: identity, limits, checks, the service, its panics and its deadline.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod check;
pub(crate) mod current;
pub(crate) mod deadline;
pub(crate) mod facts;
pub(crate) mod fields;
pub(crate) mod forwarded;
pub(crate) mod ids;
mod long;
pub(crate) mod reading;
pub(crate) mod sampling;
pub(crate) mod scope;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, SERVER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use saola_observability::closed::Level;
use tokio::task::JoinHandle;

use crate::BoxError;
use crate::connection::Connection;
use crate::metrics;
use crate::worker::Worker;
use answer::Refusal;
use body::{RequestBody, ResponseBody, Source};
use facts::{Facts, Head};
use fields::Fields;
use forwarded::Peer;
use ids::Origin;
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

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (mut parts, incoming) = request.into_parts();
        let mut fields = Fields::read(&parts.headers);
        let (mut peer, mut forwarded) = (None, Ok(()));
        if fields.marks.has_forwarding {
            (peer, forwarded) = self.forwarded(&mut parts.headers);
            fields = Fields::read(&parts.headers);
        }
        let (method, uri) = (&parts.method, Some(&parts.uri));
        let head = Head { method, version: parts.version, uri, fields: &fields, peer };
        let running = Running::begin(&self.connection, head);
        let facts = &running.facts;
        let verdict = forwarded.and_then(|()| admit(&self.worker, facts, &mut parts));
        if facts.id_origin == Origin::Made {
            parts.headers.insert(ids::REQUEST_ID, facts.request_id.clone());
        }
        let (body, reading) = RequestBody::new(incoming, self.worker.config.limit_request_body);
        *running.reading.borrow_mut() = reading;
        running.can_upgrade.set(parts.extensions.get::<OnUpgrade>().is_some());
        let state = match verdict {
            Err(refusal) => State::Refused { refusal },
            Ok(()) => match self.metrics(&parts) {
                Some(join) => {
                    running.set_route("/metrics");
                    running.waiting.set(Waiting::Response);
                    State::Metrics { join }
                }
                // A clone for each request: after a panic none of it is used again.
                None => State::Ready {
                    service: self.service.clone(),
                    request: Some(Request::from_parts(parts, body)),
                },
            },
        };
        RequestScope { holder: Some(Holder(running)), state }
    }
}

/// Limits and policy, before anything of the service is touched.
fn admit(worker: &Worker, facts: &Facts, parts: &mut http::request::Parts) -> Result<(), Refusal> {
    let host = facts.host.as_ref().filter(|_| facts.marks.has_host);
    check::check(parts, host, facts.marks, worker.config.header_map)?;
    if worker.open_requests() > worker.config.limit_concurrency {
        return Err(Refusal::OVERLOAD);
    }
    Ok(())
}

impl<S> Front<S> {
    /// Whom proxies name; nobody when what they say cannot be.
    fn forwarded(&self, fields: &mut HeaderMap) -> (Option<Box<Peer>>, Result<(), Refusal>) {
        let direct = self.connection.peer.borrow().clone();
        match forwarded::read(fields, direct, &self.worker.config.forwarded_allow_ips) {
            Ok(peer) => (Some(Box::new(peer)), Ok(())),
            Err(refusal) => (None, Err(refusal)),
        }
    }

    fn metrics(&self, parts: &http::request::Parts) -> Option<JoinHandle<Response<Bytes>>> {
        let answer = self.worker.config.metrics.as_ref()?;
        if parts.uri.path() != "/metrics" || !matches!(parts.method, Method::GET | Method::HEAD) {
            return None;
        }
        let (answer, fields, method) =
            (std::sync::Arc::clone(answer), parts.headers.clone(), parts.method.clone());
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
                // Given up: its destructors run as this request, and a panic in one is caught like any other.
                // The panic is marked on the record, and nobody is left to be told.
                let _ = caught(&running, || this.state.set(State::Over));
            }
        }
    }
}

pin_project_lite::pin_project! {
    #[project = StateProjection]
    enum State<S, F> {
        Refused { refusal: Refusal },
        Ready { service: S, request: Option<Request<RequestBody>> },
        Called { #[pin] future: F },
        Metrics { join: JoinHandle<Response<Bytes>> },
        Over,
    }
}

/// What a poll of the state gave.
enum Step<B> {
    Own(Refusal),
    Answer(Response<Source<B>>),
}

impl<S, B> Future for RequestScope<S, S::Future>
where
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>,
    B: HttpBody<Error: Into<BoxError>>,
{
    type Output = Result<Response<ResponseBody<B>>, std::convert::Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(running) = this.holder.as_ref().map(|holder| Rc::clone(&holder.0)) else {
            return Poll::Pending;
        };
        running.remember(cx.waker());
        let late = running.expired.take();
        let mut polled = Poll::Pending;
        let is_caught = caught(&running, || {
            polled = match late {
                Some(late) => Poll::Ready(Step::Own(running.refuses_late(late))),
                None => step(this.state.as_mut(), &running, cx),
            };
            if polled.is_ready() {
                // The service's future goes first, as this request: its destructors may still write events.
                this.state.set(State::Over);
            }
        });
        if is_caught.is_err() {
            polled = Poll::Ready(Step::Own(Refusal::FAILED));
            // What has panicked is dropped now, and may panic once more.
            let _ = caught(&running, || this.state.set(State::Over));
        }
        let step = ready!(polled);
        // Whatever the service says. A request that never came to it was refused for another reason.
        let was_called = running.waiting.get() == Waiting::Response;
        let is_allowed =
            running.reading.borrow().as_ref().is_none_or(|reading| reading.is_allowed());
        let response = match step {
            _ if was_called && !is_allowed => refused(&running, Refusal::BODY_TOO_LARGE),
            Step::Own(refusal) => refused(&running, refusal),
            Step::Answer(response) => response,
        };
        let Some(holder) = this.holder.take() else { return Poll::Pending };
        Poll::Ready(Ok(respond(holder, response)))
    }
}

/// Goes as far as it can; runs the service's code, so it may panic.
fn step<S, B>(
    mut state: Pin<&mut State<S, S::Future>>,
    running: &Rc<Running>,
    cx: &mut Context<'_>,
) -> Poll<Step<B>>
where
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>,
{
    loop {
        let polled = match state.as_mut().project() {
            StateProjection::Refused { refusal } => return Poll::Ready(Step::Own(*refusal)),
            StateProjection::Over => return Poll::Pending,
            StateProjection::Metrics { join } => {
                let answer = |response: Response<Bytes>| Step::Answer(response.map(Source::own));
                return Pin::new(join)
                    .poll(cx)
                    .map(|result| result.map_or(Step::Own(Refusal::FAILED), answer));
            }
            StateProjection::Ready { service, request } => match service.poll_ready(cx) {
                Poll::Ready(Ok(())) => {
                    let Some(request) = request.take() else { return Poll::Pending };
                    let future = service.call(request);
                    running.waiting.set(Waiting::Response);
                    state.set(State::Called { future });
                    continue;
                }
                Poll::Ready(Err(error)) => {
                    running.failed("the service is not ready", &error.into());
                    return Poll::Ready(Step::Own(Refusal::OVERLOAD));
                }
                Poll::Pending => {
                    running.connection.look();
                    return Poll::Pending;
                }
            },
            StateProjection::Called { future } => ready!(future.poll(cx)),
        };
        return Poll::Ready(match polled {
            Ok(response) => Step::Answer(response.map(|body| Source::Service { body })),
            Err(error) => {
                running.failed("the service failed", &error.into());
                running.exception.set(Some("service"));
                Step::Own(Refusal::FAILED)
            }
        });
    }
}

fn refused<B>(running: &Running, refusal: Refusal) -> Response<Source<B>> {
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
    response.map(Source::own)
}

/// Adds what every response carries, and moves the record into its body.
fn respond<B: HttpBody>(
    holder: Holder,
    response: Response<Source<B>>,
) -> Response<ResponseBody<B>> {
    let running = Rc::clone(&holder.0);
    let (mut parts, source) = response.into_parts();
    running.responds(parts.status.as_u16());
    parts.headers.insert(ids::REQUEST_ID, running.facts.request_id.clone());
    if let Some(server) = &running.worker.config.server_header {
        parts.headers.entry(SERVER).or_insert_with(|| server.clone());
    }
    // An early answer: what the client still sends is read and thrown away after the answer (W60).
    if running.is_body_unread() && running.facts.version != Version::HTTP_2 {
        running.connection.last_request.set(true);
        running.connection.linger.set(true);
    }
    let upgrades = parts.status == StatusCode::SWITCHING_PROTOCOLS && running.can_upgrade.get();
    if upgrades {
        running.connection.upgrades();
    } else if running.facts.version != Version::HTTP_2
        && running.connection.is_last(&running.worker)
    {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let (is_empty, exact) = match &source {
        Source::Own { bytes } => {
            let length = bytes.as_ref().map_or(0, Bytes::len);
            (length == 0, u64::try_from(length).ok())
        }
        Source::Service { body } => (body.is_end_stream(), body.size_hint().exact()),
    };
    let has_no_body = running.facts.method == Method::HEAD
        || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || parts.status.is_informational();
    if has_no_body || is_empty {
        // hyper never polls these, so the end is known here.
        running.completes();
    }
    let stated = || parts.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    let promised = if has_no_body { None } else { exact.or_else(stated) };
    Response::from_parts(parts, ResponseBody::new(source, promised, holder))
}

impl Running {
    fn failed(&self, message: &'static str, error: &BoxError) {
        self.worker.event_of(Level::Error, message, Some(self), &[("error", &error.to_string())]);
    }
}

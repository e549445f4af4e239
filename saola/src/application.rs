//! What can be served: an axum `Router`, or any tower service through [`service`].

use std::task::{Context, Poll};

use http::{Request, Response};
use saola_worker::{BoxError, RequestBody};

/// Something that becomes a tower service for one worker.
pub trait Application {
    /// The service.
    type Service: tower_service::Service<
            Request<RequestBody>,
            Response = Response<Self::Body>,
            Error: Into<BoxError>,
        > + Clone
        + 'static;
    /// The body of its responses.
    type Body: http_body::Body<Error: Into<BoxError>> + 'static;

    /// Makes the service; called once in each worker.
    fn into_service(self) -> Self::Service;
}

/// Serves any tower service: `saola::serve(|_| async { Ok(saola::service(my_service)) })`.
///
/// A service names the route of a request itself, with [`saola_worker::set_route`].
pub fn service<S>(service: S) -> Service<S> {
    Service(service)
}

/// A tower service as an [`Application`]; made by [`service`].
#[derive(Clone, Debug)]
pub struct Service<S>(S);

impl<S, B> Application for Service<S>
where
    S: tower_service::Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + 'static,
    B: http_body::Body<Error: Into<BoxError>> + 'static,
{
    type Service = Self;
    type Body = B;

    fn into_service(self) -> Self {
        self
    }
}

impl<S: tower_service::Service<R>, R> tower_service::Service<R> for Service<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.0.call(request)
    }
}

//! What stands around the router: it sees each request before a route is chosen, and each answer whatever made it.
//!
//! Once around the whole instead of `Router::layer`, which wraps every route and boxes its future for each layer.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::http::{HeaderValue, Request, Uri, uri};
use axum::response::{IntoResponse as _, Response};
use saola::{Application, RequestBody};
use tower::util::{Either, option_layer};
use tower::{Layer as _, Service};
use tower_http::cors::{Cors, CorsLayer};

use crate::blog;
use crate::error::{Error, Form};

/// The router of all surfaces.
pub(crate) struct Front {
    pub(crate) router: Router,
    pub(crate) cors: Option<CorsLayer>,
}

impl Application for Front {
    // Outermost, so that a page may also read why it was refused.
    type Service = Either<Cors<Finish>, Finish>;
    type Body = Body;

    fn into_service(self) -> Self::Service {
        option_layer(self.cors).layer(Finish(Application::into_service(self.router)))
    }
}

/// What all answers have in common: refusals in the form of their surface, also for a panic.
#[derive(Clone)]
pub(crate) struct Finish(<Router as Application>::Service);

impl Service<Request<RequestBody>> for Finish {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let request = trim(request);
        let form = Form::of(request.uri().path());
        let answering = self.0.call(request);
        Box::pin(async move {
            let response = match saola::caught(answering).await {
                Ok(response) => response?,
                Err(_) => Error::Internal.into_response(),
            };
            let mut response = form.write(response);
            let headers = response.headers_mut();
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            Ok(response)
        })
    }
}

/// The paths of the blog are good with a slash at their end, and without.
fn trim(mut request: Request<RequestBody>) -> Request<RequestBody> {
    if let Some(path) = blog::without_slash(request.uri().path()) {
        let shorter = match request.uri().query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        let mut parts = request.uri().clone().into_parts();
        // A part of a path that was parsed is one again.
        parts.path_and_query = shorter.parse::<uri::PathAndQuery>().ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

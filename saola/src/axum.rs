//! axum's router as an application: the template of the matched route becomes the label `http_route`.

use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use saola_worker::RequestBody;
use tower::ServiceExt as _;
use tower::layer::layer_fn;
use tower::util::MapRequest;
use tower_service::Service;

use crate::application::Application;

impl Application for Router {
    type Service = MapRequest<Self, fn(http::Request<RequestBody>) -> Request>;
    type Body = axum::body::Body;

    fn into_service(self) -> Self::Service {
        // axum refuses a route layer on a router without routes.
        let router = if self.has_routes() { self.route_layer(layer_fn(Named)) } else { self };
        router.map_request(|request| request.map(axum::body::Body::new))
    }
}

/// One route, which tells its template. Inside the router, because `MatchedPath` is visible only there: a request that no
/// route matched never comes here. It hands on the future as it is: axum's own `from_fn` boxes it twice.
#[derive(Clone)]
struct Named<S>(S);

impl<S: Service<Request>> Service<Request> for Named<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> S::Future {
        if let Some(path) = request.extensions().get::<MatchedPath>() {
            saola_worker::set_route(path.as_str());
        }
        self.0.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_without_routes_is_an_application_too() {
        let _service = <Router as Application>::into_service(Router::new());
    }
}

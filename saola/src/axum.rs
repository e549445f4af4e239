//! axum's router as an application: the template of the matched route becomes the label `http_route`.

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use saola_worker::RequestBody;
use tower::ServiceExt as _;
use tower::util::MapRequest;

use crate::application::Application;

impl Application for Router {
    type Service = MapRequest<Self, fn(http::Request<RequestBody>) -> Request>;
    type Body = axum::body::Body;

    fn into_service(self) -> Self::Service {
        // axum refuses a route layer on a router without routes.
        let router = if self.has_routes() { self.route_layer(from_fn(name_route)) } else { self };
        router.map_request(|request| request.map(axum::body::Body::new))
    }
}

/// Inside the router, because `MatchedPath` is visible only there. A request that no route matched never comes here.
async fn name_route(request: Request, next: Next) -> Response {
    if let Some(path) = request.extensions().get::<MatchedPath>() {
        saola_worker::set_route(path.as_str());
    }
    next.run(request).await
}

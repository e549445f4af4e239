//! What stands before the router: it sees the path before any route is chosen.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Uri, uri};
use saola::{Application, RequestBody};
use tower::ServiceExt as _;
use tower::util::MapRequest;

use crate::blog;

/// The router of all surfaces.
pub(crate) struct Front(pub(crate) Router);

impl Application for Front {
    type Service = MapRequest<
        <Router as Application>::Service,
        fn(Request<RequestBody>) -> Request<RequestBody>,
    >;
    type Body = Body;

    fn into_service(self) -> Self::Service {
        Application::into_service(self.0).map_request(trim)
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

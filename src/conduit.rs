//! RealWorld's Conduit: users who write articles, comment on them, like them and follow each other.

mod articles;
mod comments;
mod profiles;
mod tags;
mod users;
mod viewer;

use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::error::Error;

pub(crate) fn router() -> OpenApiRouter<App> {
    users::router()
        .merge(profiles::router())
        .merge(articles::router())
        .merge(comments::router())
        .merge(tags::router())
}

/// `errors.article: ["not found"]` and the like.
fn missing(what: &'static [&'static str]) -> Error {
    Error::refused(StatusCode::NOT_FOUND, what, "not found")
}

fn forbidden(what: &'static [&'static str]) -> Error {
    Error::refused(StatusCode::FORBIDDEN, what, "forbidden")
}

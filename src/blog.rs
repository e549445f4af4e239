//! A blog: users, posts and votes.

mod posts;
mod users;
mod votes;

use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::error::Error;

pub(crate) fn router() -> OpenApiRouter<App> {
    users::router().merge(posts::router()).merge(votes::router())
}

/// The path without one slash at its end, which these paths may have: same handler, same route, no redirect.
pub(crate) fn without_slash(path: &str) -> Option<&str> {
    let shorter = path.strip_suffix('/')?;
    let rest = shorter.strip_prefix('/')?;
    let first = rest.split('/').next().unwrap_or_default();
    let is_ours = ["users", "login", "posts", "vote"].contains(&first);
    (is_ours && !shorter.ends_with('/')).then_some(shorter)
}

fn missing(text: String) -> Error {
    Error::detail(StatusCode::NOT_FOUND, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slash_is_cut_and_only_here() {
        assert_eq!(without_slash("/posts/"), Some("/posts"));
        assert_eq!(without_slash("/users/7/"), Some("/users/7"));
        for path in ["/", "/posts", "/posts//", "/docs/", "/api/items/", "/postscript/"] {
            assert_eq!(without_slash(path), None, "{path}");
        }
    }
}

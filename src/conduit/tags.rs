//! The tags in use.

use std::pin::pin;
use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::cache::Document;
use crate::db::{Sql, Statements as _};
use crate::error::Result;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Serialize, ToSchema)]
struct Tags {
    tags: Vec<String>,
}

/// Every tag of an article, in the order of their bytes
#[utoipa::path(get, path = "/api/tags", tag = "conduit", responses((status = 200, body = Tags)))]
async fn list(State(app): State<App>) -> Result<Document> {
    let listing = pin!(async {
        let mut tags: Vec<String> = app.db.query(&LIST, &[]).await?;
        // Here, because a database sorts by its own locale.
        tags.sort_unstable();
        Ok(Tags { tags })
    });
    app.cache.list(|| "tags".to_owned(), CACHED, listing).await
}

/// No longer than a list may be old when Redis was away at a write, which then could not make it so.
const CACHED: Duration = Duration::from_secs(10);

static LIST: Sql =
    Sql::select("conduit_article_tags", "SELECT DISTINCT tag FROM conduit_article_tags");

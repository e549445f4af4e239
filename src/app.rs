//! The router of all surfaces, and the endpoints of the system itself.

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};

use crate::error::Error;
use crate::json::Json;
use crate::{items, orders, simulate};

/// Everything that one worker serves.
pub(crate) fn router() -> Router {
    let items = items::Items::seeded();
    Router::new()
        .route("/", get(index))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .merge(items::router(items.clone()))
        .merge(orders::router(items))
        .merge(simulate::router())
        .fallback(|| async { Error::NotFound })
        .method_not_allowed_fallback(|| async { Error::MethodNotAllowed })
}

async fn index() -> Json<Value> {
    Json(json!({
        "message": "API is running",
        "version": env!("CARGO_PKG_VERSION"),
        "status": "running",
        "service": "saola",
    }))
}

/// Touches nothing: the process answers.
async fn health() -> Json<Value> {
    Json(json!({ "status": "healthy" }))
}

/// There is no store yet that could be away.
async fn ready() -> Json<Value> {
    Json(json!({ "status": "ready" }))
}

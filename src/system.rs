//! What the server says of itself: that it runs, that it answers, and what it waits for.

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::db::{Sql, Statements as _};
use crate::input::Json;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(index))
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(database_health))
}

/// What runs here
#[utoipa::path(get, path = "/", tag = "system", responses((status = 200)))]
async fn index() -> Json<Value> {
    Json(json!({
        "message": "API is running",
        "version": env!("CARGO_PKG_VERSION"),
        "status": "running",
        "service": "saola",
    }))
}

/// Whether the process answers; it touches nothing
#[utoipa::path(get, path = "/health", tag = "system", responses((status = 200)))]
async fn health() -> Json<Value> {
    Json(json!({ "status": "healthy" }))
}

/// Whether the database answers
#[utoipa::path(get, path = "/api/health", tag = "system", responses((status = 200), (status = 503)))]
async fn database_health(State(app): State<App>) -> (StatusCode, Json<Value>) {
    match app.db.query_one::<i64>(&ONE, &[]).await {
        Ok(_) => (StatusCode::OK, Json(json!({ "status": "ok" }))),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unavailable" }))),
    }
}

/// Whether requests can be served now
#[utoipa::path(get, path = "/ready", tag = "system", responses((status = 200), (status = 503)))]
async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let answers = app.db.query_one::<i64>(&ONE, &[]).await.is_ok();
    let database = if answers { app.db.system() } else { "unreachable" };
    let migrations = if app.db.is_current() { "current" } else { "pending" };
    let cache = app.cache.state().await;
    let (code, status) = if answers {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    let facts = json!({
        "status": status, "database": database, "migrations": migrations, "cache": cache,
    });
    (code, Json(facts))
}

static ONE: Sql = Sql::select("one", "SELECT CAST(1 AS BIGINT)");

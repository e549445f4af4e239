//! One worker's application: its state, its router, and the layers around all surfaces.

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use saola::{BoxError, WorkerInfo};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::Auth;
use crate::cache::Cache;
use crate::db::{Db, Sql, Statements as _};
use crate::error::Error;
use crate::front::Front;
use crate::input::Json;
use crate::settings::Settings;
use crate::shop::{self, Inventory};
use crate::{blog, boot, conduit, cors, items, openapi, orders, simulate, sweeper};

/// What the handlers of one worker share; each request takes a reference. Made after the fork: `main` opens nothing.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) db: Db,
    pub(crate) auth: Auth,
    pub(crate) cache: Cache,
    pub(crate) inventory: Inventory,
    pub(crate) settings: Arc<Settings>,
    pub(crate) worker: WorkerInfo,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// Makes the pool and everything else that a worker needs.
    ///
    /// # Errors
    ///
    /// What no waiting would mend; a database that is only away is waited for in the background.
    pub(crate) async fn start(worker: WorkerInfo) -> Result<Self, BoxError> {
        let settings = Settings::of_process().map_err(|mistakes| mistakes.join("; "))?;
        let db = Db::new(&settings.database, settings.pool_size)?;
        let settings = Arc::new(settings);
        let auth = Auth::new(&settings);
        let cache = Cache::new(settings.redis_url.as_ref())?;
        let inventory = Inventory::new(settings.inventory_url.as_ref(), &worker.addresses);
        let app = Self(Arc::new(Shared { db, auth, cache, inventory, settings, worker }));
        boot::settle(&app).await?;
        app.worker.background(sweeper::run(app.clone()));
        Ok(app)
    }

    /// Every endpoint, and what stands before them.
    pub(crate) fn into_front(self) -> Front {
        let mut router = OpenApiRouter::with_openapi(openapi::document())
            .routes(routes!(index))
            .routes(routes!(health))
            .routes(routes!(ready))
            .routes(routes!(database_health))
            .merge(conduit::router())
            .merge(blog::router())
            .merge(items::router())
            .merge(orders::router())
            .merge(shop::router())
            .merge(simulate::always());
        if self.settings.simulation {
            router = router.merge(simulate::router());
        }
        let (router, mut document) = router.split_for_parts();
        openapi::complete(&mut document);
        let cors = cors::layer(&self.settings.allowed_origins);
        let router = router
            .merge(openapi::router(document))
            .fallback(|| async { Error::NoRoute })
            .method_not_allowed_fallback(|| async { Error::MethodNotAllowed })
            .with_state(self);
        Front { router, cors }
    }
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

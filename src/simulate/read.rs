//! A cache to look into and a row to read: what a service does all day.

use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::cache::Found;
use crate::db::{self, Db, Sql, Statements as _, params};
use crate::error::{Error, Result};
use crate::input::{Id, Json, Name};
use crate::time::now;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(cached)).routes(routes!(item))
}

#[derive(Debug, Serialize, ToSchema)]
struct Cached {
    key: String,
    value: String,
    /// Whether it was there before.
    hit: bool,
}

/// Looks a key up; a miss makes a value that lives for a minute
#[utoipa::path(get, path = "/cache/{key}", tag = "simulate",
    params(("key" = String, Path, description = "1 to 128 of A-Z a-z 0-9 _ . : -")),
    responses((status = 200, body = Cached)))]
async fn cached(State(app): State<App>, Name(key): Name) -> Result<Json<Cached>> {
    let is_of = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    if !(1..=128).contains(&key.len()) || !key.bytes().all(is_of) {
        return Err(Error::invalid("path", "key", "must be 1 to 128 of A-Z a-z 0-9 _ . : -"));
    }
    let name = format!("saola:cache:{key}");
    let fresh = format!("{:016x}", fastrand::u64(..));
    let kept = match app.cache.get(&name).await {
        Found::Hit(value) => Some(value),
        Found::Miss => app.cache.keep(&name, &fresh, LIFE).await,
        Found::Nothing => None,
    };
    let value = match kept {
        Some(value) => value,
        None => in_database(&app.db, &key, &fresh).await?,
    };
    // Somebody else may have kept another one in the same moment.
    Ok(Json(Cached { key, hit: value != fresh, value }))
}

/// The same without Redis.
async fn in_database(db: &Db, key: &str, fresh: &str) -> Result<String> {
    if let Some(value) = db.query_opt(&LOOK, params![key, now()]).await? {
        return Ok(value);
    }
    let values = params![key, fresh, now() + LIFE_MICROSECONDS, now()];
    let kept: Option<String> = db.query_opt(&KEEP, values).await?;
    match kept {
        Some(value) => Ok(value),
        None => Ok(db.query_one(&LOOK, params![key, now()]).await?),
    }
}

/// Deletes what has expired.
pub(crate) async fn sweep(db: &Db) -> db::Result<()> {
    if db.query_opt::<i64>(&HAS_OLD, params![now()]).await?.is_some() {
        db.execute(&DELETE_OLD, params![now()]).await?;
    }
    Ok(())
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReadItem)]
struct Item {
    item_id: i64,
    db_status: &'static str,
}

/// Reads one row
#[utoipa::path(get, path = "/items/{item_id}", tag = "simulate", params(("item_id" = i64, Path)),
    responses((status = 200, body = Item)))]
async fn item(State(app): State<App>, Id(item_id): Id) -> Result<Json<Item>> {
    if app.settings.simulation && fastrand::u8(0..100) < 20 {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(100..=500))).await;
    }
    app.db.query_one::<i64>(&COUNT, params![item_id]).await?;
    Ok(Json(Item { item_id, db_status: "connected" }))
}

const LIFE: Duration = Duration::from_mins(1);
const LIFE_MICROSECONDS: i64 = 60_000_000;

static LOOK: Sql = Sql::select(
    "simulate_cache",
    "SELECT value FROM simulate_cache WHERE key = $1 AND expires_at > $2",
);
/// Unless another one has, a moment ago.
static KEEP: Sql = Sql::insert(
    "simulate_cache",
    "INSERT INTO simulate_cache (key, value, expires_at) VALUES ($1, $2, $3)
     ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
     WHERE simulate_cache.expires_at <= $4
     RETURNING value",
);
static HAS_OLD: Sql = Sql::select(
    "simulate_cache",
    "SELECT expires_at FROM simulate_cache WHERE expires_at <= $1 LIMIT 1",
);
static DELETE_OLD: Sql = Sql::delete(
    "simulate_cache",
    "DELETE FROM simulate_cache WHERE key IN
         (SELECT key FROM simulate_cache WHERE expires_at <= $1 LIMIT 500)",
);
static COUNT: Sql =
    Sql::select("items_items", "SELECT CAST(count(*) AS BIGINT) FROM items_items WHERE id = $1");

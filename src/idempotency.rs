//! `Idempotency-Key`: a request that is sent again gets the answer that the first one got, and does nothing.
//!
//! A key is taken in the transaction that begins the work and gets its answer in the one that ends it. Answers are kept for a
//! day; after a 5xx the key is free again.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::db::{self, Db, FromRow, Row, Sql, Statements, Tx, params};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::time;

/// The key of a request, and what the request was.
#[derive(Clone)]
pub(crate) struct Key {
    scope: &'static str,
    text: String,
    request_hash: String,
}

/// An answer that can be given again, to the byte.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    body: String,
    is_replayed: bool,
}

/// What a key has been taken for.
struct Kept {
    request_hash: String,
    status: Option<i64>,
    body: Option<String>,
}

impl FromRow for Kept {
    fn from_row(row: &mut Row<'_>) -> db::Result<Self> {
        Ok(Self { request_hash: row.take()?, status: row.take()?, body: row.take()? })
    }
}

impl Key {
    /// The key that a request came with, if it came with one.
    ///
    /// `scope` is the surface: the same key means another thing at another one.
    ///
    /// # Errors
    ///
    /// The header is no key, or comes twice.
    pub(crate) fn of(
        scope: &'static str,
        headers: &HeaderMap,
        request: &impl Serialize,
    ) -> Result<Option<Self>> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let is_key = (1..=255).contains(&value.len())
            && value.as_bytes().iter().all(u8::is_ascii_graphic)
            && values.next().is_none();
        let key = value.to_str().ok().filter(|_| is_key).ok_or_else(|| {
            Error::invalid("header", "Idempotency-Key", "must be 1 to 255 visible ASCII characters")
        })?;
        let request = serde_json::to_vec(request).map_err(|_| Error::Internal)?;
        let request_hash = sha256(request);
        Ok(Some(Self { scope, text: key.to_owned(), request_hash }))
    }

    /// The answer that is kept under it; `None` when the key is new.
    ///
    /// # Errors
    ///
    /// The key belongs to another request, or the first request with it is still running.
    pub(crate) async fn answer(&self, db: &impl Statements) -> Result<Option<Answer>> {
        let kept = db.query_opt(&FIND, params![self.scope, &self.text, oldest()]).await?;
        let Some(Kept { request_hash, status, body }) = kept else { return Ok(None) };
        if request_hash != self.request_hash {
            let text = "Idempotency-Key was used with a different request";
            return Err(Error::detail(StatusCode::UNPROCESSABLE_ENTITY, text));
        }
        let status = status.and_then(|status| StatusCode::from_u16(status.try_into().ok()?).ok());
        let Some(status) = status else { return Err(Error::StillRunning) };
        Ok(Some(Answer { status, body: body.unwrap_or_default(), is_replayed: true }))
    }

    /// Takes the key for work that begins; false when it is taken. `note` finds it again while it has no answer.
    pub(crate) async fn take(&self, tx: &Tx, note: &str) -> db::Result<bool> {
        let values =
            params![self.scope, &self.text, &self.request_hash, note, time::now(), oldest(),];
        Ok(tx.execute(&TAKE, values).await? == 1)
    }

    /// Keeps the answer under it.
    pub(crate) async fn keep(&self, tx: &Tx, answer: &Answer) -> db::Result<()> {
        let status = i64::from(answer.status.as_u16());
        tx.execute(&KEEP, params![status, &answer.body, self.scope, &self.text]).await?;
        Ok(())
    }
}

/// Frees the key under which work began with this note, if it has no answer yet.
pub(crate) async fn free(db: &impl Statements, scope: &'static str, note: &str) -> db::Result<()> {
    db.execute(&FREE, params![scope, note]).await?;
    Ok(())
}

/// Deletes answers that nobody may ask for any more.
pub(crate) async fn sweep(db: &Db) -> db::Result<()> {
    if db.query_opt::<i64>(&HAS_OLD, params![oldest()]).await?.is_some() {
        db.execute(&DELETE_OLD, params![oldest()]).await?;
    }
    Ok(())
}

impl Answer {
    pub(crate) fn new(status: StatusCode, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_string(body).map_err(|_| Error::Internal)?;
        Ok(Self { status, body, is_replayed: false })
    }

    /// A refusal that is an answer like any other.
    pub(crate) fn refusal(status: StatusCode, text: &str) -> Self {
        Self { status, body: json!({ "detail": text }).to_string(), is_replayed: false }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let replayed =
            self.is_replayed.then_some([(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"))]);
        (self.status, json, replayed, self.body).into_response()
    }
}

/// Answers from before are forgotten.
fn oldest() -> i64 {
    time::now() - KEPT_MICROSECONDS
}

const KEPT_MICROSECONDS: i64 = 24 * 60 * 60 * 1_000_000;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

static FIND: Sql = Sql::select(
    "app_idempotency",
    "SELECT request_hash, status, body FROM app_idempotency
     WHERE scope = $1 AND key = $2 AND created_at > $3",
);
/// One that is too old counts as free.
static TAKE: Sql = Sql::insert(
    "app_idempotency",
    "INSERT INTO app_idempotency (scope, key, request_hash, status, body, created_at)
     VALUES ($1, $2, $3, NULL, $4, $5)
     ON CONFLICT (scope, key) DO UPDATE SET request_hash = excluded.request_hash,
         status = NULL, body = excluded.body, created_at = excluded.created_at
     WHERE app_idempotency.created_at <= $6",
);
static KEEP: Sql = Sql::update(
    "app_idempotency",
    "UPDATE app_idempotency SET status = $1, body = $2 WHERE scope = $3 AND key = $4",
);
static FREE: Sql = Sql::delete(
    "app_idempotency",
    "DELETE FROM app_idempotency WHERE scope = $1 AND status IS NULL AND body = $2",
);
static HAS_OLD: Sql = Sql::select(
    "app_idempotency",
    "SELECT created_at FROM app_idempotency WHERE created_at <= $1 LIMIT 1",
);
static DELETE_OLD: Sql = Sql::delete(
    "app_idempotency",
    "DELETE FROM app_idempotency WHERE (scope, key) IN
         (SELECT scope, key FROM app_idempotency WHERE created_at <= $1 LIMIT 500)",
);

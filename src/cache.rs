//! Redis as a cache. What it holds can always be had from the database: slow or away, it costs a request 50 ms at most, and
//! none of them its answer.
//!
//! The keys of lists contain a generation, which is read before the database is asked. Whoever changes what lists show
//! raises it before the answer goes out, so a writer reads its own write.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, FromRedisValue, RedisError};
use saola::metrics::CounterVec;
use serde::Serialize;
use tracing::Instrument as _;

use crate::error::{Error, Result};
use crate::secret::Secret;

static REQUESTS: CounterVec<1> = CounterVec::new(
    "cache_requests_total",
    "Look-ups in the cache by what came of them.",
    ["result"],
);

/// The cache of one worker; without Redis it holds nothing.
#[derive(Clone)]
pub(crate) struct Cache(Option<Arc<Redis>>);

struct Redis {
    connection: ConnectionManager,
    health: Mutex<Health>,
}

/// Whether it is worth asking.
#[derive(Default)]
struct Health {
    failures: u32,
    rests_until: Option<Instant>,
}

/// What was found under a key.
pub(crate) enum Found {
    Hit(String),
    Miss,
    /// Nobody could be asked.
    Nothing,
}

/// JSON that is written already.
pub(crate) struct Document(String);

impl Document {
    pub(crate) fn of(value: &impl Serialize) -> Result<Self> {
        serde_json::to_string(value).map(Self).map_err(|_| Error::Internal)
    }
}

impl IntoResponse for Document {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.0.into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl Cache {
    /// Connects at its first use, and again whenever it must.
    ///
    /// # Errors
    ///
    /// The URL is none.
    pub(crate) fn new(url: Option<&Secret>) -> Result<Self, RedisError> {
        let Some(url) = url else { return Ok(Self(None)) };
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(LIMIT))
            .set_response_timeout(Some(LIMIT))
            .set_number_of_retries(0);
        let connection =
            ConnectionManager::new_lazy_with_config(Client::open(url.expose())?, config)?;
        Ok(Self(Some(Arc::new(Redis { connection, health: Mutex::default() }))))
    }

    /// A list: from the cache, or made and kept for so long. It is named only where there is a cache.
    pub(crate) async fn list<T: Serialize>(
        &self,
        name: impl FnOnce() -> String,
        lives: Duration,
        make: Pin<&mut impl Future<Output = Result<T>>>,
    ) -> Result<Document> {
        let key = self.list_key(name).await;
        if let Some(key) = &key
            && let Found::Hit(list) = self.get(key).await
        {
            return Ok(Document(list));
        }
        let list = Document::of(&make.await?)?;
        if let (Some(redis), Some(key)) = (&self.0, key) {
            // Not kept, it is made again.
            let _ = redis.ask::<()>("SET", Cmd::set_ex(key, &list.0, lives.as_secs())).await;
        }
        Ok(list)
    }

    /// The key of a list as it is now; none when nobody can be asked.
    async fn list_key(&self, name: impl FnOnce() -> String) -> Option<String> {
        let generation = self.0.as_ref()?.ask::<Option<i64>>("GET", Cmd::get(GENERATION)).await;
        if generation.is_none() {
            REQUESTS.with(["error"]).inc();
        }
        Some(format!("saola:list:{}:{}", generation?.unwrap_or(0), name()))
    }

    /// Makes every cached list old. To be awaited between the commit and the answer.
    pub(crate) async fn invalidate_lists(&self) {
        let Some(redis) = &self.0 else { return };
        // Also while it is left alone: a list would be stale for as long as it lives.
        if redis.ask_now::<i64>("INCR", Cmd::incr(GENERATION, 1)).await.is_none() {
            tracing::warn!("redis unavailable; lists may be old for some seconds");
        }
    }

    /// What is kept under a key.
    pub(crate) async fn get(&self, key: &str) -> Found {
        let Some(redis) = &self.0 else { return Found::Nothing };
        let (result, found) = match redis.ask::<Option<String>>("GET", Cmd::get(key)).await {
            Some(Some(value)) => ("hit", Found::Hit(value)),
            Some(None) => ("miss", Found::Miss),
            None => ("error", Found::Nothing),
        };
        REQUESTS.with([result]).inc();
        found
    }

    /// Keeps a value for so long, unless there is one; gives the one that is kept now.
    pub(crate) async fn keep(&self, key: &str, value: &str, lives: Duration) -> Option<String> {
        let redis = self.0.as_ref()?;
        let mut set = Cmd::set(key, value);
        set.arg("EX").arg(lives.as_secs()).arg("NX").arg("GET");
        let before = redis.ask::<Option<String>>("SET", set).await?;
        Some(before.unwrap_or_else(|| value.to_owned()))
    }

    /// `none`, `redis` or `redis unavailable`.
    pub(crate) async fn state(&self) -> &'static str {
        match &self.0 {
            None => "none",
            Some(redis) => match redis.ask_now::<String>("PING", redis::cmd("PING")).await {
                Some(_) => "redis",
                None => "redis unavailable",
            },
        }
    }
}

impl Redis {
    /// Asks, unless it has failed too often a moment ago.
    async fn ask<T: FromRedisValue>(&self, operation: &'static str, command: Cmd) -> Option<T> {
        if self.health().rests_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        self.ask_now(operation, command).await
    }

    async fn ask_now<T: FromRedisValue>(&self, operation: &'static str, command: Cmd) -> Option<T> {
        let span = tracing::info_span!(
            "redis_operation",
            otel.kind = "client",
            db.system.name = "redis",
            db.operation.name = operation,
        );
        let mut connection = self.connection.clone();
        let asking = tokio::time::timeout(LIMIT, command.query_async(&mut connection));
        let answer = asking.instrument(span).await;
        let why = match answer {
            Ok(Ok(value)) => {
                self.health().succeeded();
                return Some(value);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        self.health().failed(&why);
        None
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    fn succeeded(&mut self) {
        if self.failures >= MOST_FAILURES {
            tracing::info!("redis is back");
        }
        *self = Self::default();
    }

    fn failed(&mut self, why: &str) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= MOST_FAILURES {
            self.rests_until = Some(Instant::now() + REST);
        }
        if self.failures == MOST_FAILURES {
            tracing::warn!(why, "redis unavailable; the database answers instead");
        }
    }
}

/// How long an answer of Redis is waited for.
const LIMIT: Duration = Duration::from_millis(50);
/// After so many failures in a row it is left alone for a while.
const MOST_FAILURES: u32 = 5;
const REST: Duration = Duration::from_secs(1);
const GENERATION: &str = "saola:lists";

//! What the layer tells of itself: a span and a duration for each statement, and the state of the pool.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use deadpool::Status;
use saola::metrics::{Counter, Gauge, GaugeHandle, GaugeVec, HistogramVec};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::{Error, Place, Sql};

static DURATION: HistogramVec<3> = HistogramVec::new(
    "db_client_operation_duration_seconds",
    "Time of a database operation as its caller saw it.",
    ["db_system_name", "db_operation_name", "db_collection_name"],
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0],
);
static CONNECTIONS: GaugeVec<1> = GaugeVec::new(
    "db_client_connection_count",
    "Connections to the database by what they are doing.",
    ["state"],
);
static CONNECTIONS_MAX: Gauge =
    Gauge::new("db_client_connection_max", "Connections that the pools may open.");
static PENDING: Gauge = Gauge::new(
    "db_client_connection_pending_requests",
    "Requests that wait for a connection of a pool.",
);
static TIMEOUTS: Counter = Counter::new(
    "db_client_connection_timeouts_total",
    "Waits for a connection of a pool that took too long.",
);

/// Runs a statement as a span and an observation. It takes the work by reference: a future that is moved into another one
/// has its place in it twice.
pub(super) async fn statement<T>(
    sql: &'static Sql,
    place: &Place,
    work: Pin<&mut impl Future<Output = Result<T, Error>>>,
) -> Result<T, Error> {
    let start = Instant::now();
    let span = span(sql, place);
    let result = work.instrument(span.clone()).await;
    DURATION
        .with([place.system, sql.operation, sql.collection])
        .observe(start.elapsed().as_secs_f64());
    if let Err(error) = &result {
        span.record("error.type", error.kind());
        if !error.is_constraint() {
            span.record("otel.status_code", "error");
            span.in_scope(|| failure(sql, error));
        }
    }
    result
}

fn span(sql: &'static Sql, place: &Place) -> Span {
    tracing::info_span!(
        "database",
        otel.name = sql.name(),
        otel.kind = "client",
        otel.status_code = Empty,
        db.system.name = place.system,
        db.namespace = place.namespace.as_str(),
        db.collection.name = sql.collection,
        db.operation.name = sql.operation,
        db.query.text = sql.text,
        server.address = place.host.as_deref(),
        server.port = place.port,
        error.r#type = Empty,
    )
}

/// A mistake of ours is told each time; an outage, which each request meets, once a minute.
fn failure(sql: &Sql, error: &Error) {
    match error {
        Error::Failed(why) => {
            tracing::error!(statement = sql.name(), error = %why, "database statement failed");
        }
        Error::Conflict => {
            tracing::debug!(statement = sql.name(), "database transaction in conflict");
        }
        _ if is_new_minute() => {
            tracing::error!(statement = sql.name(), error = %error, "database unavailable");
        }
        _ => (),
    }
}

fn is_new_minute() -> bool {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let minute = since.as_secs() / Duration::from_mins(1).as_secs();
    LAST.swap(minute, Relaxed) != minute
}

/// The series of a pool, found once.
pub(super) struct Connections {
    used: GaugeHandle,
    idle: GaugeHandle,
}

impl Connections {
    pub(super) fn new() -> Self {
        let [used, idle] = ["used", "idle"].map(|state| CONNECTIONS.with([state]));
        Self { used, idle }
    }

    /// Says how the pool stands.
    pub(super) fn show(&self, status: &Status) {
        let used = status.size.saturating_sub(status.available);
        self.used.set(number(used));
        self.idle.set(number(status.size.saturating_sub(used)));
        CONNECTIONS_MAX.set(number(status.max_size));
    }
}

fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// A request that waits for a connection, while it lives.
pub(super) struct Waiting;

impl Waiting {
    pub(super) fn begin() -> Self {
        PENDING.inc();
        Self
    }

    /// It has waited too long.
    pub(super) fn gave_up() {
        TIMEOUTS.inc();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        PENDING.dec();
    }
}

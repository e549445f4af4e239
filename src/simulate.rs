//! Endpoints that are slow, busy, wrong or broken on purpose, so that every signal has something to show.
//!
//! Where chance decides, `?seed=` decides instead: the same seed has the same outcome, on every worker.

mod chaos;
mod read;

use std::ops::RangeInclusive;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use fastrand::Rng;
use serde::Serialize;
use tracing::Instrument as _;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Error, Result};
use crate::input::{Fields, Json, Query, Read};
pub(crate) use read::sweep;

/// What exists when `SIMULATION` is on.
pub(crate) fn router() -> OpenApiRouter<App> {
    chaos::router().routes(routes!(latency)).routes(routes!(error)).routes(routes!(heavy_task))
}

/// What exists always.
pub(crate) fn always() -> OpenApiRouter<App> {
    read::router()
}

/// How long to wait.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wait {
    /// Milliseconds; without it chance decides.
    #[param(minimum = 0, maximum = 30_000)]
    ms: Option<u64>,
    /// Decides instead of chance.
    seed: Option<u64>,
}

impl Read for Wait {
    fn read(fields: &mut Fields) -> Self {
        Self { ms: fields.unsigned("ms", 0..=30_000), seed: seed(fields) }
    }
}

impl Wait {
    /// What is asked for, else something in `range`.
    fn time(&self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.ms.unwrap_or_else(|| rng(self.seed).u64(range)))
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Slept {
    /// Seconds.
    slept_for: f64,
}

/// Answers late
#[utoipa::path(get, path = "/simulate/latency", tag = "simulate", params(Wait),
    responses((status = 200, body = Slept)))]
async fn latency(Query(wait): Query<Wait>) -> Json<Slept> {
    let time = wait.time(100..=2_000);
    tracing::warn!(seconds = time.as_secs_f64(), "simulated latency");
    tokio::time::sleep(time).await;
    Json(Slept { slept_for: time.as_secs_f64() })
}

/// How likely it is to fail.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Odds {
    /// The probability of a failure.
    #[param(minimum = 0, maximum = 1, default = 0.7)]
    p: f64,
    /// Decides instead of chance.
    seed: Option<u64>,
}

impl Read for Odds {
    fn read(fields: &mut Fields) -> Self {
        Self { p: fields.number("p", 0.0..=1.0).unwrap_or(0.7), seed: seed(fields) }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Luck {
    status: &'static str,
}

/// Fails more often than not
#[utoipa::path(get, path = "/simulate/error", tag = "simulate", params(Odds),
    responses((status = 200, body = Luck), (status = 500, description = "As asked for")))]
async fn error(Query(odds): Query<Odds>) -> Result<Json<Luck>> {
    if rng(odds.seed).f64() < odds.p {
        let text = "Simulated Backend Failure";
        return Err(Error::detail(StatusCode::INTERNAL_SERVER_ERROR, text));
    }
    Ok(Json(Luck { status: "lucky" }))
}

/// How long the task takes.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Task {
    /// Milliseconds.
    #[param(minimum = 0, maximum = 30_000, default = 2000)]
    ms: u64,
}

impl Read for Task {
    fn read(fields: &mut Fields) -> Self {
        Self { ms: fields.unsigned("ms", 0..=30_000).unwrap_or(2_000) }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Queued {
    message: &'static str,
}

/// Answers at once, and goes on working
#[utoipa::path(get, path = "/simulate/heavy-task", tag = "simulate", params(Task),
    responses((status = 200, body = Queued), (status = 503, description = "Too many at once")))]
async fn heavy_task(State(app): State<App>, Query(task): Query<Task>) -> Result<Json<Queued>> {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    let place = Place::take(&RUNNING, 64)?;
    let request_id = saola::trace().map(|trace| trace.request_id().to_owned());
    let span = tracing::info_span!("background_processing", request.id = request_id);
    let work = async move {
        tokio::time::sleep(Duration::from_millis(task.ms)).await;
        tracing::info!(ms = task.ms, "background task done");
        drop(place);
    };
    app.worker.background(work.instrument(span));
    Ok(Json(Queued { message: "Background task queued" }))
}

/// One of the places that a worker has for something.
struct Place(&'static AtomicUsize);

impl Place {
    fn take(taken: &'static AtomicUsize, places: usize) -> Result<Self> {
        let free = |taken| (taken < places).then_some(taken + 1);
        let result = taken.fetch_update(Relaxed, Relaxed, free);
        result.map(|_| Self(taken)).map_err(|_| Error::Unavailable { retry_after: 1 })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn seed(fields: &mut Fields) -> Option<u64> {
    fields.unsigned("seed", 0..=u64::MAX)
}

fn rng(seed: Option<u64>) -> Rng {
    seed.map_or_else(Rng::new, Rng::with_seed)
}

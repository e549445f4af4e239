//! The chaos endpoints: slow, busy, wrong and broken ones.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use axum::http::StatusCode;
use num_bigint::BigUint;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Place, Wait, rng, seed};
use crate::app::App;
use crate::error::{Error, Result};
use crate::input::{Fields, Json, Query, Read};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(slow))
        .routes(routes!(very_slow))
        .routes(routes!(cpu))
        .routes(routes!(bad_request))
        .routes(routes!(server_error))
        .routes(routes!(exception))
        .routes(routes!(random))
}

#[derive(Debug, Serialize, ToSchema)]
struct Delayed {
    /// Seconds.
    delay: f64,
}

/// Answers after half a second to three
#[utoipa::path(get, path = "/api/slow", tag = "chaos", params(Wait), responses((status = 200, body = Delayed)))]
async fn slow(Query(wait): Query<Wait>) -> Json<Delayed> {
    delay(wait.time(500..=3_000)).await
}

/// Answers after three seconds to eight
#[utoipa::path(get, path = "/api/very-slow", tag = "chaos", params(Wait), responses((status = 200, body = Delayed)))]
async fn very_slow(Query(wait): Query<Wait>) -> Json<Delayed> {
    delay(wait.time(3_000..=8_000)).await
}

async fn delay(time: Duration) -> Json<Delayed> {
    tokio::time::sleep(time).await;
    Json(Delayed { delay: time.as_secs_f64() })
}

/// Which Fibonacci number.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Without it chance takes one of 300,000 to 500,000.
    #[param(minimum = 1, maximum = 500_000)]
    n: Option<u32>,
    /// Decides instead of chance.
    seed: Option<u64>,
}

impl Read for Which {
    fn read(fields: &mut Fields) -> Self {
        let n = fields.unsigned("n", 1..=500_000).and_then(|n| u32::try_from(n).ok());
        Self { n, seed: seed(fields) }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Computed {
    n: u32,
    last_digits: String,
}

/// Computes a Fibonacci number, on a thread beside the event loop
#[utoipa::path(get, path = "/api/cpu", tag = "chaos", params(Which),
    responses((status = 200, body = Computed), (status = 503, description = "Two are computed already")))]
async fn cpu(Query(which): Query<Which>) -> Result<Json<Computed>> {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    let n = which.n.unwrap_or_else(|| rng(which.seed).u32(300_000..=500_000));
    let place = Place::take(&RUNNING, 2)?;
    let computing = saola::blocking(move || {
        // Given back when the work is done, also if nobody waits for it any more.
        let _place = place;
        last_digits(&fibonacci(n))
    });
    Ok(Json(Computed { n, last_digits: computing.await }))
}

/// Refuses
#[utoipa::path(get, path = "/api/bad-request", tag = "chaos", responses((status = 400)))]
async fn bad_request() -> Error {
    Error::detail(StatusCode::BAD_REQUEST, "Invalid parameters")
}

/// Fails
#[utoipa::path(get, path = "/api/server-error", tag = "chaos", responses((status = 500)))]
async fn server_error() -> Error {
    Error::detail(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
}

/// Panics
#[utoipa::path(get, path = "/api/exception", tag = "chaos", responses((status = 500)))]
async fn exception() {
    tracing::error!(simulated = true, "about to panic");
    #[expect(clippy::panic, reason = "the endpoint that shows what a panic does")]
    {
        panic!("simulated exception");
    }
}

/// What decides instead of chance.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Seed {
    /// The same seed has the same outcome.
    seed: Option<u64>,
}

impl Read for Seed {
    fn read(fields: &mut Fields) -> Self {
        Self { seed: seed(fields) }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Choice {
    result: &'static str,
    /// `ok` or `slow`.
    choice: &'static str,
}

/// Is slow, refuses, fails or answers
#[utoipa::path(get, path = "/api/random", tag = "chaos", params(Seed),
    responses((status = 200, body = Choice), (status = 400), (status = 500)))]
async fn random(Query(Seed { seed }): Query<Seed>) -> Result<Json<Choice>> {
    let mut rng = rng(seed);
    tokio::time::sleep(Duration::from_millis(rng.u64(10..=500))).await;
    let choice = match rng.u8(0..100) {
        0..60 => "ok",
        60..75 => return Err(Error::detail(StatusCode::BAD_REQUEST, "Random bad request")),
        75..90 => {
            return Err(Error::detail(StatusCode::INTERNAL_SERVER_ERROR, "Random server error"));
        }
        _ => {
            tokio::time::sleep(Duration::from_millis(rng.u64(1_000..=4_000))).await;
            "slow"
        }
    };
    Ok(Json(Choice { result: "ok", choice }))
}

#[inline(never)]
fn fibonacci(n: u32) -> BigUint {
    let (mut last, mut next) = (BigUint::ZERO, BigUint::from(1_u8));
    for _ in 0..n {
        last += &next;
        std::mem::swap(&mut last, &mut next);
    }
    last
}

fn last_digits(number: &BigUint) -> String {
    format!("{:010}", number % BigUint::from(10_000_000_000_u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fibonacci_numbers_are_right() {
        assert_eq!(fibonacci(10), BigUint::from(55_u8));
        assert_eq!(last_digits(&fibonacci(100)), "9261915075"); // of 354224848179261915075
    }
}

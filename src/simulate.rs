//! Endpoints that are slow, busy, wrong or broken on purpose, so that every signal has something to show.
//!
//! All take `?seed=`: the same seed has the same outcome, on every worker.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use num_bigint::BigUint;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{Error, Result};
use crate::input::{Fields, Json, Query, Read};

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/api/slow", get(|parameters| delay(parameters, 500..=3_000)))
        .route("/api/very-slow", get(|parameters| delay(parameters, 3_000..=8_000)))
        .route("/api/cpu", get(cpu))
        .route("/api/bad-request", get(|| async { refused(400, "Invalid parameters") }))
        .route("/api/server-error", get(|| async { refused(500, "Internal server error") }))
        .route("/api/exception", get(exception))
        .route("/api/random", get(random))
}

#[derive(Debug)]
struct Chosen {
    seed: Option<u64>,
    ms: Option<u64>,
    n: Option<u32>,
}

impl Read for Chosen {
    fn read(fields: &mut Fields) -> Self {
        let mut number = |field, range| fields.integer(field, range);
        let seed = number("seed", i64::MIN..=i64::MAX).map(i64::cast_unsigned);
        let ms = number("ms", 0..=30_000).map(i64::cast_unsigned);
        let n = number("n", 1..=500_000).and_then(|n| u32::try_from(n).ok());
        Self { seed, ms, n }
    }
}

async fn delay(
    Query(chosen): Query<Chosen>,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Json<Value>> {
    let milliseconds = chosen.ms.unwrap_or_else(|| rng(chosen.seed).u64(range));
    let delay = Duration::from_millis(milliseconds);
    tokio::time::sleep(delay).await;
    Ok(Json(json!({ "delay": delay.as_secs_f64() })))
}

/// Computes on a blocking thread, so that the event loop stays free and the time belongs to this request.
async fn cpu(Query(chosen): Query<Chosen>) -> Result<Json<Value>> {
    let n = chosen.n.unwrap_or_else(|| rng(chosen.seed).u32(300_000..=500_000));
    let _place = Place::take().ok_or(Error::Unavailable { retry_after: 1 })?;
    let digits = saola::blocking(move || last_digits(&fibonacci(n))).await;
    Ok(Json(json!({ "n": n, "last_digits": digits })))
}

async fn exception() -> Json<Value> {
    tracing::error!(simulated = true, "about to panic");
    #[expect(clippy::panic, reason = "the endpoint that shows what a panic does")]
    {
        panic!("simulated exception");
    }
}

async fn random(Query(chosen): Query<Chosen>) -> Result<Json<Value>> {
    let mut rng = rng(chosen.seed);
    tokio::time::sleep(Duration::from_millis(rng.u64(10..=500))).await;
    match rng.u8(0..100) {
        0..60 => Ok(Json(json!({ "result": "ok", "choice": "ok" }))),
        60..75 => Err(refused(400, "Random bad request")),
        75..90 => Err(refused(500, "Random server error")),
        _ => {
            tokio::time::sleep(Duration::from_millis(rng.u64(1_000..=4_000))).await;
            Ok(Json(json!({ "result": "ok", "choice": "slow" })))
        }
    }
}

/// One of the two places a worker has for computing.
struct Place;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
const PLACES: usize = 2;

impl Place {
    fn take() -> Option<Self> {
        TAKEN
            .fetch_update(Relaxed, Relaxed, |taken| (taken < PLACES).then_some(taken + 1))
            .ok()
            .map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Relaxed);
    }
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

fn rng(seed: Option<u64>) -> fastrand::Rng {
    seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed)
}

fn refused(status: u16, text: &'static str) -> Error {
    Error::detail(StatusCode::from_u16(status).unwrap_or_default(), text)
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

//! An application whose requests leave traces, events and profiles behind: for the black-box tests only.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::extract::Query;
use axum::http::HeaderMap;
use axum::{Router, routing::get};
use tracing::{Instrument as _, error, info_span, instrument};

fn main() -> ExitCode {
    saola::serve(|_worker| async {
        Ok(Router::new()
            .route("/order", get(order))
            .route("/many", get(many))
            .route("/detached", get(detached))
            .route("/panic", get(panics))
            .route("/heavy", get(heavy))
            .route("/pooled", get(pooled))
            .route("/steady", get(steady))
            .route("/print", get(print))
            .route("/light", get(light)))
    })
}

/// A span with one inside it, one on another thread, an error, and the context of a call to another service.
#[instrument(name = "price the order", fields(item = 7, db_password = "hunter2", parts))]
async fn order() -> String {
    tracing::Span::current().record("parts", 3);
    let lookup = info_span!(
        "lookup",
        otel.name = "SELECT items",
        otel.kind = "client",
        otel.status_code = "error",
        otel.status_description = "no such item",
        db.system.name = "sqlite",
        db.query.text = "SELECT price FROM items WHERE buyer = 'canary-value'"
    );
    let called = async {
        let mut headers = HeaderMap::new();
        saola::trace::inject(&mut headers);
        headers.get("traceparent").and_then(|text| text.to_str().ok()).map(str::to_owned)
    };
    let called = called.instrument(lookup).await.unwrap_or_default();
    let above = tracing::Span::current();
    saola::blocking(move || info_span!(parent: &above, "hash").in_scope(|| {})).await;
    error!(stock = 0, "out of stock");
    called
}

/// More children than are kept of one request.
async fn many() {
    for _ in 0..140 {
        drop(info_span!("step"));
    }
}

/// Work that goes on after the answer.
async fn detached() {
    let after = async { tokio::time::sleep(Duration::from_millis(300)).await };
    tokio::spawn(after.instrument(info_span!("afterwards")));
}

#[instrument]
async fn panics() {
    fail();
}

#[expect(clippy::panic, reason = "what the test wants")]
fn fail() {
    panic!("out of paper");
}

/// Writes to the standard output by itself, beside whoever writes the lines.
#[expect(clippy::print_stdout, reason = "what the test wants")]
async fn print() {
    println!("msg=printed text=\"{}\"", "x".repeat(200));
}

#[derive(serde::Deserialize)]
struct Work {
    ms: u64,
}

/// Burns CPU in slices, so that others run in between.
async fn heavy(Query(work): Query<Work>) -> String {
    let mut sum = 0;
    let end = Instant::now() + Duration::from_millis(work.ms);
    while Instant::now() < end {
        sum ^= burn_heavily();
        tokio::task::yield_now().await;
    }
    sum.to_string()
}

/// As [`heavy`], by another function.
async fn steady(Query(work): Query<Work>) -> String {
    let mut sum = 0;
    let end = Instant::now() + Duration::from_millis(work.ms);
    while Instant::now() < end {
        sum ^= burn_steadily();
        tokio::task::yield_now().await;
    }
    sum.to_string()
}

/// Burns it on the blocking pool.
async fn pooled(Query(work): Query<Work>) -> String {
    let burn = move || {
        let end = Instant::now() + Duration::from_millis(work.ms);
        std::iter::from_fn(|| (Instant::now() < end).then(burn_in_pool)).fold(0, |a, b| a ^ b)
    };
    saola::blocking(burn).await.to_string()
}

async fn light() -> String {
    burn_lightly().to_string()
}

#[inline(never)]
fn burn_heavily() -> u64 {
    std::hint::black_box(burn(200_000)) + 1
}

#[inline(never)]
fn burn_steadily() -> u64 {
    std::hint::black_box(burn(200_000)) + 3
}

#[inline(never)]
fn burn_in_pool() -> u64 {
    std::hint::black_box(burn(200_000)) + 4
}

#[inline(never)]
fn burn_lightly() -> u64 {
    std::hint::black_box(burn(2_000)) + 2
}

#[inline(never)]
fn burn(rounds: u64) -> u64 {
    (0..rounds).fold(1, |sum, round| std::hint::black_box(sum.wrapping_mul(31) ^ round))
}

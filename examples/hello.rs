//! The smallest application: `cargo run --example hello`, then `curl 127.0.0.1:8000`.

use std::process::ExitCode;

use axum::{Router, routing::get};

fn main() -> ExitCode {
    saola::serve(|_worker| async { Ok(Router::new().route("/", get(|| async { "hello\n" }))) })
}

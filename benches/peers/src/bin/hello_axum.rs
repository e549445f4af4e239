//! The same response by an axum handler on Saola.

use std::process::ExitCode;

use axum::{Router, http::header::CONTENT_TYPE, routing::get};

fn main() -> ExitCode {
    saola::serve(|_worker| async { Ok(Router::new().route("/", get(hello))) })
}

async fn hello() -> impl axum::response::IntoResponse {
    ([(CONTENT_TYPE, "text/plain")], "Hello, world!")
}

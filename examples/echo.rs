//! Says back what it was sent: `GET /` is `hello`, `POST /echo` answers `len=<n> body=<body>`.

use std::process::ExitCode;

use axum::body::Bytes;
use axum::routing::{get, post};
use axum::{Router, http::header};

fn main() -> ExitCode {
    saola::serve(|_worker| async {
        Ok(Router::new().route("/", get(|| async { "hello" })).route("/echo", post(echo)))
    })
}

async fn echo(body: Bytes) -> impl axum::response::IntoResponse {
    let mut answer = format!("len={} body=", body.len()).into_bytes();
    answer.extend_from_slice(&body);
    ([(header::CONTENT_TYPE, "text/plain")], answer)
}

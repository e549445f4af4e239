//! Saola: a preforking HTTP server for Rust services, with complete observability built in.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//!
//! fn main() -> std::process::ExitCode {
//!     saola::serve(|_worker| async { Ok(Router::new().route("/", get(|| async { "hello" }))) })
//! }
//! ```
//!
//! That program has the whole command line (`--help`), workers that are replaced when they die, one log line and one trace
//! for each request, and metrics that are right across processes.
//!
//! Whatever a worker needs (pools, clients, threads) is made inside the closure: it runs in the worker, after the fork.
#![forbid(unsafe_code)]

mod application;
#[cfg(feature = "axum")]
mod axum;
mod command;
mod join;
mod look;
mod operate;
mod scrape;
mod server;
mod settings;
mod telemetry;
pub mod trace;

pub use application::{Application, Service, service};
pub use clap;
pub use saola_observability::metrics;
pub use saola_supervisor::{Ended, Hooks, WorkerExit};
pub use saola_worker::{
    BodyError, BoxError, Panicked, Peer, RequestBody, Trace, WorkerInfo, blocking, body_limit,
    caught, draining, peer, set_route, trace,
};
pub use server::{Server, serve};

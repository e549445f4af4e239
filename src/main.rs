//! The reference application of Saola: items and orders, and ways to fail. It uses only the public API of crate `saola`.
#![forbid(unsafe_code)]

mod app;
mod error;
mod items;
mod json;
mod load;
mod orders;
mod simulate;

use std::process::ExitCode;

use saola::Server;

fn main() -> ExitCode {
    Server::new()
        .version(env!("CARGO_PKG_VERSION"))
        .about("The reference application of Saola, a preforking HTTP server with observability built in.")
        .command(load::command(), load::run)
        .serve(|_worker| async { Ok(app::router()) })
}

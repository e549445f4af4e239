//! The reference application of Saola: five surfaces on one database. It uses only the public API of crate `saola`.
#![forbid(unsafe_code)]

mod app;
mod auth;
mod blog;
mod boot;
mod cache;
mod conduit;
mod cors;
mod db;
mod digest;
mod error;
mod front;
mod idempotency;
mod input;
mod items;
mod load;
mod migrate;
mod money;
mod openapi;
mod orders;
mod secret;
mod settings;
mod shop;
mod simulate;
mod surfaces;
mod sweeper;
mod system;
mod time;

use std::process::ExitCode;

use saola::Server;

fn main() -> ExitCode {
    Server::new()
        .version(env!("CARGO_PKG_VERSION"))
        .about("The reference application of Saola, a preforking HTTP server with observability built in.")
        .check(settings::mistakes)
        .command(migrate::command(), migrate::run)
        .command(load::command(), load::run)
        .serve(surfaces::serve)
}

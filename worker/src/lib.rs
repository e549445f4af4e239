//! The worker of Saola: a hardened HTTP server on hyper under any tower service.
//!
//! A worker takes connections, checks and limits their requests, calls the service, and leaves one record of each
//! request in its slot. It exports nothing, and knows neither supervisor nor observer.

mod accept;
mod birth;
mod branch;
mod chain;
mod charset;
mod clock;
mod config;
mod connection;
mod control;
mod drain;
mod handlers;
mod heap;
mod heartbeat;
mod metrics;
mod readiness;
mod request;
mod run;
mod serve;
mod tls;
mod trust;
mod worker;

pub use accept::injected::Injected;
pub use accept::{
    Accept, AcceptError, Accepted, Balance, Listener, Permit, Permits, Queue, Speech, Stream,
};
pub use birth::{Birth, ExitReason, Failed, Hooks, MakeService, Parse, Stage, WorkerInfo};
pub use chain::chain;
pub use config::{AcceptMode, Config, HeaderMapping, MetricsAnswer, ProxyProtocol, Sampler};
pub use drain::{Drained, Order, Orders, Shutdown};
pub use heap::{NoHeapProfiles, heap_profiles};
pub use request::body::{BodyError, RequestBody};
pub use request::current::{Trace, blocking, body_limit, caught, draining, peer, set_route, trace};
pub use request::forwarded::Peer;
pub use request::ids::new_span_id;
pub use request::scope::Panicked;
pub use run::run;
pub use serve::serve;
pub use tls::{ClientAuth, Pair, TlsError, TlsSettings, TlsVersion};
pub use trust::{NoNetwork, Trusted};

/// Any error, as services and bodies give it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a worker cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The source of connections broke.
    #[error("cannot accept connections")]
    Accept(#[source] AcceptError),
    /// Runtime, signals or limits could not be set up.
    #[error("cannot set the worker up: {0}")]
    Boot(#[source] std::io::Error),
    /// There are too few descriptors to serve with.
    #[error(
        "worker_connections: RLIMIT_NOFILE {limit} leaves room for {room} connections, need {needed}"
    )]
    Descriptors {
        /// The soft limit.
        limit: usize,
        /// What it leaves.
        room: usize,
        /// What is needed at least.
        needed: usize,
    },
    /// Signals or orders cannot be read any more.
    #[error("cannot read orders")]
    Control(#[source] std::io::Error),
    /// The kernel gives no random numbers.
    #[error("cannot seed the ids")]
    Random(#[from] getrandom::Error),
    /// Certificates or keys are of no use.
    #[error("cannot speak TLS")]
    Tls(#[from] TlsError),
}

#[cfg(not(panic = "unwind"))]
compile_error!(
    "a panicking handler must be one failed request, not a dead worker: build with panic = \"unwind\""
);

#[cfg(test)]
mod tests;

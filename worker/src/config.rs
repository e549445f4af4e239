//! Every limit and deadline of a worker, with the defaults of the specification's tables.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use saola_observability::Detail;

use crate::tls::TlsSettings;
use crate::trust::Trusted;

/// Answers `/metrics` on the main listener; called on a blocking thread with the request's headers.
pub type MetricsAnswer =
    Arc<dyn Fn(&HeaderMap, &http::Method) -> http::Response<Bytes> + Send + Sync>;

/// Settings of a worker. `Default` is the documented default of each.
#[derive(Clone)]
pub struct Config {
    /// How connections are accepted. Default [`AcceptMode::Exclusive`].
    pub accept: AcceptMode,
    /// Whether events are written that help only who looks for a fault. Default no.
    pub debug: bool,
    /// Connections open at once. Default 4096; lowered at start to what the descriptor limit allows.
    pub worker_connections: usize,
    /// Requests open at once; one more is answered 503. Default 1024.
    pub limit_concurrency: usize,
    /// Bytes of a request line. Default 8192.
    pub limit_request_line: usize,
    /// Bytes of one field line. Default 8192.
    pub limit_request_field_size: usize,
    /// Field lines of a head. Default 100.
    pub limit_request_fields: usize,
    /// Bytes of a head. Default 65,536.
    pub limit_request_head: usize,
    /// What becomes of fields whose name has an underscore. Default [`HeaderMapping::Drop`].
    pub header_map: HeaderMapping,
    /// Bytes of a request body; 0 = no limit. Default 1,048,576.
    pub limit_request_body: u64,
    /// Whose PROXY headers are read, on listeners that ask for one. Default this machine.
    pub proxy_allow_ips: Trusted,
    /// Whose `Forwarded` and `X-Forwarded-*` are believed; those of others are taken away. Default this machine.
    pub forwarded_allow_ips: Trusted,
    /// What TLS is spoken with, on listeners that ask for it. Default none.
    pub tls: Option<TlsSettings>,
    /// From accept (later: from a head's first byte) to the end of the head. Default 10 s.
    pub header_timeout: Duration,
    /// How long a kept-alive connection may be idle. Default 75 s.
    pub keepalive: Duration,
    /// Requests served on one HTTP/1 connection, give or take a tenth. Default 1000.
    pub keepalive_requests: NonZeroU32,
    /// How long a request body may give no byte while the service waits for one; then 408. Default 30 s.
    pub body_timeout: Duration,
    /// Bytes a second that a request body must give, on the mean, once the service has waited `body_timeout` for it in
    /// all; 0 = no bound. Default 500.
    pub body_min_rate: u64,
    /// How long a client may take fewer than 500 bytes a second of what waits for it; then its connection is reset.
    /// Default 30 s.
    pub write_timeout: Duration,
    /// From the head, or the last request body frame, to the response head; `None` = no limit. Default 30 s.
    pub request_timeout: Option<Duration>,
    /// How long a drain may last when the order does not say. Default 30 s.
    pub graceful_timeout: Duration,
    /// How much longer than that a worker may live whose loop does not turn and whose supervisor is gone. Default 2 s.
    pub abort_grace: Duration,
    /// Threads of the blocking pool. Default 8.
    pub blocking_threads: usize,
    /// Whether HTTP/2 is spoken to clients that begin with its preface. Default yes.
    pub http2: bool,
    /// Streams of one HTTP/2 connection. Default 100.
    pub http2_max_streams: u32,
    /// Requests after which the worker asks to be replaced; 0 = never. Default 0.
    pub max_requests: u64,
    /// Spread of `max_requests`, so that workers do not ask together. Default 0.
    pub max_requests_jitter: u64,
    /// The `Server` field of responses that have none; `None` = no field. Default `saola`.
    pub server_header: Option<HeaderValue>,
    /// The head decision of trace sampling. Default: the caller's, else always.
    pub sampler: Sampler,
    /// Traces a second that the head decision may keep; 0 = no limit. Default 100.
    pub trace_rate_limit: u32,
    /// What requests leave behind. Default everything.
    pub detail: Detail,
    /// Profile samples a second of CPU time, at most 250; 0 takes none. Default 100.
    pub profile_hz: u32,
    /// Traces a second that are kept for an error or slowness alone, so that an outage is no flood; 0 = no limit.
    /// Default 100; of a whole server's rate a worker gets its share.
    pub late_trace_rate_limit: u32,
    /// Requests at least this long are always kept as traces. Default 1 s.
    pub slow_request: Duration,
    /// Seed of ids and jitter; `None` = from the kernel. For tests.
    pub seed: Option<u64>,
    /// Where profiles of the heap go that the observer asks for; `None` writes none.
    pub heap_file: Option<PathBuf>,
    /// What answers `GET /metrics` on the main listener; `None` leaves the path to the service.
    pub metrics: Option<MetricsAnswer>,
}

/// What becomes of a field such as `X_Forwarded_For`, which many readers take for its twin with hyphens.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub enum HeaderMapping {
    /// It is taken away before the application sees the request.
    #[default]
    Drop,
    /// The request is answered 400.
    Refuse,
    /// It is passed on.
    Pass,
}

/// Whether a connection begins with a PROXY header, and of which version.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub enum ProxyProtocol {
    /// It does not.
    #[default]
    Off,
    /// A line of text.
    V1,
    /// Binary.
    V2,
    /// Either.
    Auto,
}

/// How a worker accepts.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub enum AcceptMode {
    /// A thread with its own epoll and `EPOLLEXCLUSIVE`: one wake-up, one worker, one accept.
    #[default]
    Exclusive,
    /// The runtime's own readiness. Good up to about four workers.
    Tokio,
}

/// The head decision, as `OTEL_TRACES_SAMPLER` names it.
#[derive(Clone, Debug, PartialEq)]
pub enum Sampler {
    /// Keeps every trace.
    AlwaysOn,
    /// Keeps none.
    AlwaysOff,
    /// Keeps this share of the traces, from 0 to 1; the trace id decides, so that all services agree.
    TraceIdRatio(f64),
    /// Follows the caller's flag; without a caller, what is inside decides.
    ParentBased(Box<Sampler>),
}

impl Default for Sampler {
    fn default() -> Self {
        Self::ParentBased(Box::new(Self::AlwaysOn))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            accept: AcceptMode::Exclusive,
            debug: false,
            worker_connections: 4096,
            limit_concurrency: 1024,
            limit_request_line: 8192,
            limit_request_field_size: 8192,
            limit_request_fields: 100,
            limit_request_head: 65_536,
            header_map: HeaderMapping::Drop,
            limit_request_body: 1_048_576,
            proxy_allow_ips: Trusted::default(),
            forwarded_allow_ips: Trusted::default(),
            tls: None,
            header_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(75),
            keepalive_requests: NonZeroU32::MIN.saturating_add(999),
            body_timeout: Duration::from_secs(30),
            body_min_rate: 500,
            write_timeout: Duration::from_secs(30),
            request_timeout: Some(Duration::from_secs(30)),
            graceful_timeout: Duration::from_secs(30),
            abort_grace: Duration::from_secs(2),
            blocking_threads: 8,
            http2: true,
            http2_max_streams: 100,
            max_requests: 0,
            max_requests_jitter: 0,
            server_header: Some(HeaderValue::from_static("saola")),
            sampler: Sampler::default(),
            trace_rate_limit: 100,
            detail: Detail::Full,
            profile_hz: 100,
            late_trace_rate_limit: 100,
            slow_request: Duration::from_secs(1),
            seed: None,
            heap_file: None,
            metrics: None,
        }
    }
}

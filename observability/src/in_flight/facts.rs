//! What a server says of a request when it begins and when it has ended.

use std::net::IpAddr;

use crate::closed::{Method, Outcome, Protocol, Sampling};
use crate::ids::{SpanId, TraceId};

/// What is known when a request head was parsed.
#[derive(Copy, Clone, Debug)]
pub struct Begin<'a> {
    /// Its method.
    pub method: Method,
    /// Its protocol.
    pub protocol: Protocol,
    /// Now, by [`crate::clock::monotonic_ns`].
    pub start_ns: u64,
    /// Now, by [`crate::clock::wall_ns`].
    pub start_wall_ns: u64,
    /// Its trace.
    pub trace: TraceId,
    /// Its server span.
    pub span: SpanId,
    /// The caller's span, or none.
    pub parent: SpanId,
    /// Whether the caller's context was taken.
    pub remote_parent: bool,
    /// Whether its trace is kept whatever happens.
    pub sampled: bool,
    /// The client; none on a unix socket.
    pub client: Option<IpAddr>,
    /// The client's port.
    pub client_port: u16,
    /// Its id, as sent; the table keeps 40 bytes.
    pub request_id: &'a [u8],
    /// Its path without the query; the table keeps 128 bytes.
    pub path: &'a str,
}

/// What is known when a request has ended. By default it was aborted, and nothing more is known.
#[derive(Copy, Clone, Debug)]
pub struct End<'a> {
    /// Now, by [`crate::clock::monotonic_ns`].
    pub end_ns: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The status that was sent, if any.
    pub status: Option<u16>,
    /// Bytes of its body that were read.
    pub request_bytes: u64,
    /// Bytes of the response body that were handed over.
    pub response_bytes: u64,
    /// Whether its trace is kept, and why.
    pub sampling: Sampling,
    /// The label `exception_type`, when something was thrown: from a closed set.
    pub exception: Option<&'a str>,
    /// Its path without the query.
    pub path: &'a str,
    /// The method as sent, for [`Method::Other`]; else empty.
    pub method_text: &'a str,
    /// Its `User-Agent`, as sent.
    pub user_agent: &'a [u8],
    /// The host it was sent to, as the client wrote it.
    pub server_address: &'a [u8],
    /// The listener's port.
    pub server_port: u16,
    /// Whether the client asked for `https`.
    pub is_https: bool,
    /// Its `tracestate`.
    pub tracestate: &'a str,
    /// Its id, as sent.
    pub request_id: &'a [u8],
}

impl Default for End<'_> {
    fn default() -> Self {
        Self {
            end_ns: 0,
            outcome: Outcome::Aborted,
            status: None,
            request_bytes: 0,
            response_bytes: 0,
            sampling: Sampling::Dropped,
            exception: None,
            path: "",
            method_text: "",
            user_agent: b"",
            server_address: b"",
            server_port: 0,
            is_https: false,
            tracestate: "",
            request_id: b"",
        }
    }
}

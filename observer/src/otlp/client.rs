//! How a batch reaches a collector: gRPC or HTTP, in the clear or over TLS. Batches come encoded and are sent as they are,
//! again and again if need be, so no library's idea of a span stands between a record and the wire.

mod grpc;
mod http;

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;

use self::grpc::Grpc;
use self::http::Http;
use super::retry::{self, Failure};
use super::settings::OtlpSettings;
use super::transport::Protocol;

/// A way to one collector.
pub(super) enum Client {
    Grpc(Grpc),
    Http(Http),
}

/// A collector's answer to a batch that it took (`ExportTraceServiceResponse`).
#[derive(Clone, Eq, PartialEq, prost::Message)]
pub(super) struct Taken {
    #[prost(message, optional, tag = "1")]
    partly: Option<Partly>,
}

/// What it did not take of it, and what else it has to say (`ExportTracePartialSuccess`).
#[derive(Clone, Eq, PartialEq, prost::Message)]
struct Partly {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

impl Taken {
    /// Spans that the collector refused while it took the others.
    pub(super) fn rejected(&self) -> u64 {
        let rejected = self.partly.as_ref().map_or(0, |partly| partly.rejected_spans);
        u64::try_from(rejected).unwrap_or(0)
    }

    /// Why a part was refused, or a warning about what was taken.
    pub(super) fn words(&self) -> Option<&str> {
        let partly = self.partly.as_ref().filter(|partly| **partly != Partly::default())?;
        Some(&partly.error_message)
    }
}

/// The client could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("cannot build the gRPC client: {}", causes(.0))]
    Grpc(#[from] tonic::transport::Error),
    #[error("cannot build the HTTP client: {}", causes(.0))]
    Http(#[from] reqwest::Error),
}

impl Client {
    /// Builds the client. It must be built, used and dropped in one runtime.
    pub(super) fn new(settings: &OtlpSettings) -> Result<Self, ClientError> {
        Ok(match settings.protocol {
            Protocol::Grpc => Self::Grpc(Grpc::new(settings)?),
            Protocol::Http => Self::Http(Http::new(settings)?),
        })
    }

    /// Sends a batch, again after each refusal that may pass; no new attempt begins after `within`.
    pub(super) async fn send(&self, batch: Bytes, within: Duration) -> Result<Taken, Failure> {
        match self {
            Self::Grpc(grpc) => retry::send(within, || grpc.call(batch.clone())).await,
            Self::Http(http) => {
                let body = http.packed(batch);
                retry::send(within, || http.post(body.clone())).await
            }
        }
    }
}

/// Installs the one TLS provider of the process. An application that has chosen another one keeps it.
pub(crate) fn install_tls() {
    #[cfg(feature = "tls")]
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// An error with all that caused it. Only for errors of this side: what a collector says may hold secrets.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// Who sends (OTLP, "User Agent").
const AGENT: &str = concat!("Saola-OTLP-Exporter/", env!("CARGO_PKG_VERSION"));

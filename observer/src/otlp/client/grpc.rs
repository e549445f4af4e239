//! OTLP over gRPC.

use std::error::Error as _;
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use http::HeaderMap;
use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::{AGENT, ClientError, Taken, causes};
use crate::otlp::retry::{Advice, Refusal};
use crate::otlp::settings::{Compression, OtlpSettings};

/// A channel to a collector; it connects when it is first used, and again when it must.
pub(in crate::otlp) struct Grpc {
    channel: tonic::client::Grpc<Channel>,
    metadata: MetadataMap,
}

impl Grpc {
    pub(super) fn new(settings: &OtlpSettings) -> Result<Self, ClientError> {
        let endpoint = Endpoint::from_shared(settings.endpoint.clone())?
            .user_agent(AGENT)?
            .timeout(settings.timeout);
        #[cfg(feature = "tls")]
        let endpoint = if settings.endpoint.starts_with("https:") {
            endpoint.tls_config(tls(&settings.certificates))?
        } else {
            endpoint
        };
        let channel = tonic::client::Grpc::new(endpoint.connect_lazy());
        let channel = match settings.compression {
            Compression::None => channel,
            Compression::Gzip => channel
                .send_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Gzip),
        };
        let headers: HeaderMap = settings.headers.iter().cloned().collect();
        Ok(Self { channel, metadata: MetadataMap::from_headers(headers) })
    }

    pub(super) async fn call(&self, batch: Bytes) -> Result<Taken, Refusal> {
        let mut channel = self.channel.clone();
        channel
            .ready()
            .await
            .map_err(|error| Refusal { advice: Advice::Soon, error: causes(&error) })?;
        let mut request = Request::new(batch);
        *request.metadata_mut() = self.metadata.clone();
        let path = PathAndQuery::from_static(METHOD);
        let answer = channel.unary(request, path, Messages).await;
        answer.map(tonic::Response::into_inner).map_err(|status| refusal(&status))
    }
}

#[cfg(feature = "tls")]
fn tls(certificates: &crate::otlp::Certificates) -> tonic::transport::ClientTlsConfig {
    use tonic::transport::{Certificate, ClientTlsConfig, Identity};
    let tls = ClientTlsConfig::new();
    let tls = match &certificates.authorities {
        Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
        None => tls.with_native_roots(),
    };
    match &certificates.client {
        Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key)),
        None => tls,
    }
}

/// What a status means (OTLP, "Failures"). Its text is the collector's, who may repeat our headers in it: left out. One that
/// was made on this side has a cause, and that is told.
fn refusal(status: &Status) -> Refusal {
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let cause = status.source().map(|cause| format!(": {}", causes(cause)));
    Refusal {
        advice: advice(status.code(), asked),
        error: format!("gRPC status {:?}{}", status.code(), cause.unwrap_or_default()),
    }
}

fn advice(code: Code, asked: Option<Duration>) -> Advice {
    if let (Code::ResourceExhausted | Code::Unavailable, Some(asked)) = (code, asked) {
        return Advice::After(asked);
    }
    match code {
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::DataLoss => Advice::Soon,
        // Without a word about when, there will be no room later either.
        Code::ResourceExhausted
        | Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Internal
        | Code::Unauthenticated => Advice::Never,
    }
}

/// Encoded batches out, answers in.
#[derive(Copy, Clone, Debug)]
struct Messages;

impl Codec for Messages {
    type Encode = Bytes;
    type Decode = Taken;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Messages {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, batch: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(batch.len());
        out.put(batch);
        Ok(())
    }
}

impl Decoder for Messages {
    type Item = Taken;
    type Error = Status;

    fn decode(&mut self, answer: &mut DecodeBuf<'_>) -> Result<Option<Taken>, Status> {
        let taken = Taken::decode(answer);
        taken.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_collector_says_when_to_ask_again_and_its_other_words_are_kept_to_ourselves() {
        let asking = |code, delay| {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(delay)));
            refusal(&Status::with_error_details(code, "Bearer secret", details))
        };
        let busy = asking(Code::ResourceExhausted, 7);
        assert_eq!(busy.advice, Advice::After(Duration::from_secs(7)));
        assert_eq!(busy.error, "gRPC status ResourceExhausted");
        assert_eq!(asking(Code::Unavailable, 8).advice, Advice::After(Duration::from_secs(8)));
        // For all others the word means nothing (OTLP, "OTLP/gRPC Throttling").
        assert_eq!(asking(Code::InvalidArgument, 9).advice, Advice::Never);
    }

    #[test]
    fn only_what_may_pass_is_sent_again() {
        let advised = |code: &i32| advice(Code::from_i32(*code), None) == Advice::Soon;
        let again: Vec<_> = (0..=16).filter(advised).map(Code::from_i32).collect();
        let table = [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unavailable,
            Code::DataLoss,
        ];
        assert_eq!(again, table);
    }
}

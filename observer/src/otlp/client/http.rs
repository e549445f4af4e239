//! OTLP over HTTP, with bodies of protobuf.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use prost::Message as _;
use reqwest::redirect;

use super::{AGENT, ClientError, Taken, causes};
use crate::otlp::retry::{Advice, Refusal};
use crate::otlp::settings::{Compression, OtlpSettings};

/// A pool of connections to a collector.
pub(in crate::otlp) struct Http {
    client: reqwest::Client,
    url: String,
    headers: HeaderMap,
    compression: Compression,
}

impl Http {
    pub(super) fn new(settings: &OtlpSettings) -> Result<Self, ClientError> {
        // Followed, a redirect would take the headers, which are secrets, to where nobody has sent them.
        let client = reqwest::Client::builder()
            .user_agent(AGENT)
            .timeout(settings.timeout)
            .redirect(redirect::Policy::none());
        #[cfg(feature = "tls")]
        let client = tls(client, settings)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if settings.compression == Compression::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        for (name, value) in &settings.headers {
            headers.insert(name, value.clone());
        }
        Ok(Self {
            client: client.build()?,
            url: settings.endpoint.clone(),
            headers,
            compression: settings.compression,
        })
    }

    /// The body, compressed if it is to be.
    pub(super) fn packed(&self, batch: Bytes) -> Bytes {
        match self.compression {
            Compression::None => batch,
            Compression::Gzip => {
                let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::default());
                let written = packed.write_all(&batch).and_then(|()| packed.finish());
                debug_assert!(written.is_ok(), "a vector takes all bytes");
                written.unwrap_or_default().into()
            }
        }
    }

    pub(super) async fn post(&self, body: Bytes) -> Result<Taken, Refusal> {
        let request = self.client.post(&self.url).headers(self.headers.clone()).body(body);
        let answer = request.send().await.map_err(unanswered)?;
        let status = answer.status();
        if !status.is_success() {
            // Its body is the collector's, who may repeat our headers in it.
            let later = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let asked = later.and_then(|later| asked(later, SystemTime::now()));
            return Err(Refusal {
                advice: advice(status, asked),
                error: format!("HTTP status {}", status.as_u16()),
            });
        }
        // Taken it is, whatever else it says.
        Ok(Taken::decode(body_of(answer).await?).unwrap_or_default())
    }
}

#[cfg(feature = "tls")]
fn tls(
    mut client: reqwest::ClientBuilder,
    settings: &OtlpSettings,
) -> Result<reqwest::ClientBuilder, ClientError> {
    if let Some(pem) = &settings.certificates.authorities {
        client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
    } else if !settings.endpoint.starts_with("https:") {
        // Else a system without any authority, such as a small container, could not even speak in the clear.
        client = client.tls_certs_only([]);
    }
    if let Some((certificate, key)) = &settings.certificates.client {
        let both = [certificate.as_slice(), b"\n", key].concat();
        client = client.identity(reqwest::Identity::from_pem(&both)?);
    }
    Ok(client)
}

/// The whole answer, unless it is longer than any answer.
async fn body_of(mut answer: reqwest::Response) -> Result<Bytes, Refusal> {
    let mut body = BytesMut::new();
    while let Some(part) = answer.chunk().await.map_err(unanswered)? {
        if body.len() + part.len() > MOST_BYTES {
            let error = format!("the answer is longer than {MOST_BYTES} bytes");
            return Err(Refusal { advice: Advice::Never, error });
        }
        body.extend_from_slice(&part);
    }
    Ok(body.freeze())
}

/// No connection, no answer in time, or half of one. The URL is told beside it, without its password.
fn unanswered(error: reqwest::Error) -> Refusal {
    Refusal { advice: Advice::Soon, error: causes(&error.without_url()) }
}

/// What a status means (OTLP/HTTP, "Retryable Response Codes").
fn advice(status: StatusCode, asked: Option<Duration>) -> Advice {
    match (status.as_u16(), asked) {
        (429 | 503, Some(asked)) => Advice::After(asked),
        (429 | 502 | 503 | 504, _) => Advice::Soon,
        _ => Advice::Never,
    }
}

/// How long from `now` a `Retry-After` asks to wait: seconds, or a date (RFC 9110, section 10.2.3).
fn asked(later: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = later.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(later).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

const MOST_BYTES: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_says_when_to_ask_again_in_seconds_or_by_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (later, wait) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 09 Sep 2001 01:47:40 GMT", Some(60)),
            ("Sun, 09 Sep 2001 01:46:39 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(asked(later, now), wait.map(Duration::from_secs), "{later}");
        }
    }
}

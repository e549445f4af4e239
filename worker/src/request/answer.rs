//! The answers that a worker makes itself: constant texts, nothing of the request is echoed.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

/// Why the worker answers instead of the service. All of them are constants, so they are handed on as references, which are
/// small: nearly every request passes many places that could refuse it, and is not refused.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: &'static str,
    /// The label `reason` of `http_server_requests_rejected_total`; `None` when it is no rejection.
    pub(crate) reason: Option<&'static str>,
}

impl Refusal {
    pub(crate) const URI_TOO_LONG: &Self =
        &Self::new(StatusCode::URI_TOO_LONG, "the request line is too long", "uri_too_long");
    pub(crate) const FIELDS_TOO_LARGE: &Self = &Self::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "the request head is too large",
        "headers_too_large",
    );
    pub(crate) const VERSION: &Self = &Self::new(
        StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        "this version of HTTP is not supported",
        "version",
    );
    pub(crate) const METHOD: &Self =
        &Self::new(StatusCode::NOT_IMPLEMENTED, "this method is not supported", "not_implemented");
    pub(crate) const CODING: &Self = &Self::new(
        StatusCode::NOT_IMPLEMENTED,
        "this transfer coding is not supported",
        "not_implemented",
    );
    pub(crate) const EXPECTATION: &Self = &Self::new(
        StatusCode::EXPECTATION_FAILED,
        "only 100-continue can be expected",
        "expectation",
    );
    pub(crate) const BODY_TOO_LARGE: &Self =
        &Self::new(StatusCode::PAYLOAD_TOO_LARGE, "the request body is too large", "too_large");
    pub(crate) const OVERLOAD: &Self =
        &Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is overloaded", "overload");
    pub(crate) const HEAD_TIMEOUT: &Self =
        &Self::plain(StatusCode::REQUEST_TIMEOUT, "the request head did not arrive in time");
    pub(crate) const BODY_TIMEOUT: &Self =
        &Self::plain(StatusCode::REQUEST_TIMEOUT, "the request body did not arrive in time");
    pub(crate) const TIMEOUT: &Self =
        &Self::plain(StatusCode::GATEWAY_TIMEOUT, "the request took too long");
    pub(crate) const FAILED: &Self =
        &Self::plain(StatusCode::INTERNAL_SERVER_ERROR, "internal server error");

    /// See [`bad!`].
    pub(crate) const fn bad(text: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text, "bad_request")
    }

    const fn new(status: StatusCode, text: &'static str, reason: &'static str) -> Self {
        Self { status, text, reason: Some(reason) }
    }

    const fn plain(status: StatusCode, text: &'static str) -> Self {
        Self { status, text, reason: None }
    }

    /// Says whether the connection cannot be used after this answer, whatever was read of the request.
    pub(crate) fn closes(&self) -> bool {
        matches!(self.status.as_u16(), 400 | 408 | 413 | 414 | 431 | 501 | 505)
    }

    /// The answer for hyper to frame; the common fields are added with every response's.
    pub(crate) fn response(&self, request_id: &HeaderValue) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(self.body(request_id)));
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Stated here, because hyper cannot know it for an answer to HEAD, whose body is taken away.
        let length = response.body().len();
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    /// The whole answer as bytes, for a head that hyper never sees.
    pub(crate) fn bytes(
        &self,
        request_id: &HeaderValue,
        server: Option<&HeaderValue>,
        date: &str,
    ) -> Bytes {
        let body = self.body(request_id);
        let status = self.status.as_u16();
        let reason = self.status.canonical_reason().unwrap_or("");
        let id = text(request_id);
        let length = body.len();
        let server = server.map_or(String::new(), |name| format!("server: {}\r\n", text(name)));
        Bytes::from(format!(
            "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
             x-request-id: {id}\r\n{server}date: {date}\r\nconnection: close\r\n\r\n{body}"
        ))
    }

    pub(crate) fn body(&self, request_id: &HeaderValue) -> String {
        // Nothing needs escaping: the texts are constants and a request id has no quote, backslash or control.
        let (text, status) = (self.text, self.status.as_u16());
        format!(
            r#"{{"error":"{text}","status":{status},"request_id":"{}"}}"#,
            self::text(request_id)
        )
    }
}

/// A constant [`Refusal`] of a malformed request, and why it is one.
macro_rules! bad {
    ($text:literal) => {
        const { &$crate::request::answer::Refusal::bad($text) }
    };
}
pub(crate) use bad;

/// The text of a field value; empty when it is not ASCII.
pub(crate) fn text(value: &HeaderValue) -> &str {
    // Looks at many bytes at once, which `to_str` does not.
    let text = std::str::from_utf8(value.as_bytes()).unwrap_or("");
    if text.is_ascii() { text } else { "" }
}

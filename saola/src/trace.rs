//! The trace of the current request, for calls to other services.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::telemetry;

/// Writes the current trace into the headers of an outgoing request, so that the other side's spans become children of
/// the innermost span here (W3C Trace Context level 2, `traceparent` and `tracestate`).
///
/// Outside a request it changes nothing. Call it inside the span that stands for the call, if there is one:
///
/// ```
/// use tracing::Instrument as _;
///
/// async fn deduct(client: &impl Fn(http::Request<()>)) {
///     let span = tracing::info_span!("deduct", otel.kind = "client", http.request.method = "POST");
///     async {
///         let mut request = http::Request::post("http://inventory/deduct").body(()).unwrap();
///         saola::trace::inject(request.headers_mut());
///         client(request);
///     }
///     .instrument(span)
///     .await;
/// }
/// ```
pub fn inject(headers: &mut HeaderMap) {
    let Some(place) = telemetry::current() else { return };
    let flags = u8::from(place.trace.is_sampled);
    let parent = format!("00-{}-{}-{flags:02x}", place.trace.trace_id, place.span);
    let values = [(TRACEPARENT, Some(parent.as_str())), (TRACESTATE, place.trace.tracestate())];
    for (name, value) in values {
        if let Some(value) = value.and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(name, value);
        }
    }
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

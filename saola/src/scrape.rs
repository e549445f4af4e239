//! `/metrics` on the main listener: any worker answers for all of them, off its event loop.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use saola_observability::scraper::Scraper;
use saola_worker::MetricsAnswer;

/// Makes the answer for one worker.
pub(crate) fn answer(run_dir: PathBuf) -> MetricsAnswer {
    let scraper = Scraper::new(run_dir);
    Arc::new(move |headers: &HeaderMap, method: &Method| {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let accept = (text(header::ACCEPT), text(header::ACCEPT_ENCODING));
        let answer = scraper.answer(method.as_str(), accept.0, accept.1);
        let mut response = Response::new(Bytes::from_owner(answer.body));
        *response.status_mut() =
            StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in answer.headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(answer.length));
        response
    })
}

//! `/metrics` on the main listener: any worker answers for all of them, off its event loop.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use saola_observability::exposition::{self, Encoding, Negotiated};
use saola_observability::reader::{ReadError, Reader};
use saola_worker::MetricsAnswer;

/// Makes the answer for one worker.
pub(crate) fn answer(run_dir: PathBuf) -> MetricsAnswer {
    let reader: Mutex<Option<Reader>> = Mutex::new(None);
    Arc::new(move |headers, method| {
        if method != Method::GET && method != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
        match read(&mut reader, &run_dir, headers) {
            Ok(response) => response,
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    })
}

fn read(
    reader: &mut Option<Reader>,
    run_dir: &std::path::Path,
    headers: &HeaderMap,
) -> Result<Response<Bytes>, ReadError> {
    let reader = match reader {
        Some(reader) => reader,
        none => none.insert(Reader::open(run_dir)?),
    };
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let agreed = Negotiated::from_headers(text(header::ACCEPT), text(header::ACCEPT_ENCODING));
    let mut body = exposition::text(reader.read()?, agreed.format);
    let mut is_gzip = false;
    if agreed.encoding == Encoding::Gzip
        && body.len() >= Negotiated::GZIP_FROM_BYTES
        && let Ok(smaller) = exposition::gzip(&body)
    {
        (body, is_gzip) = (smaller, true);
    }
    let mut response = Response::new(Bytes::from(body));
    let content_type = HeaderValue::from_static(agreed.format.content_type());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    if is_gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

fn plain(status: StatusCode, text: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text.to_owned()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

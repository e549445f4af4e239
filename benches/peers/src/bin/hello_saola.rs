//! The same response served by Saola, without a framework.

use std::convert::Infallible;
use std::process::ExitCode;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::Full;
use saola::RequestBody;

fn main() -> ExitCode {
    saola::serve(|_worker| async { Ok(saola::service(tower::service_fn(hello))) })
}

async fn hello(_: Request<RequestBody>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::from("Hello, world!"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

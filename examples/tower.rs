//! A plain tower service, without a framework: it counts the bytes it is sent, and names its own routes.

use std::process::ExitCode;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode};
use saola::{BoxError, RequestBody};

fn main() -> ExitCode {
    saola::serve(|_worker| async { Ok(saola::service(tower::service_fn(answer))) })
}

async fn answer(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, BoxError> {
    let mut response = Response::new(Full::default());
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/count") => {
            saola::set_route("/count");
            // A client that breaks off or is too slow is answered by the worker; the error ends here.
            let body = request.into_body().collect().await?.to_bytes();
            *response.body_mut() = Full::from(format!("{} bytes\n", body.len()));
        }
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(response)
}

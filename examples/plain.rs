//! A function as an application, without router or framework: `cargo run --example plain`.

use std::convert::Infallible;
use std::process::ExitCode;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use saola::RequestBody;

fn main() -> ExitCode {
    saola::serve(|_worker| async { Ok(saola::service(tower::service_fn(hello))) })
}

async fn hello(_: Request<RequestBody>) -> Result<Response<Full<Bytes>>, Infallible> {
    saola::set_route("/");
    Ok(Response::new(Full::from("hello\n")))
}

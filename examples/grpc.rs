//! gRPC with tonic: what `tonic-build` makes of a `.proto` file is a tower service, and so is this one, written by hand.
//!
//! `cargo run --example grpc`, then `grpcurl -plaintext -proto hello.proto -d '{"name":"you"}' 127.0.0.1:8000 hello.Greeter/SayHello`.

use std::convert::Infallible;
use std::process::ExitCode;

use hyper::{Request, Response};
use saola::RequestBody;
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

fn main() -> ExitCode {
    saola::serve(|_worker| async { Ok(saola::service(tower::service_fn(greeter))) })
}

#[derive(Clone, Eq, PartialEq, prost::Message)]
struct HelloRequest {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, Eq, PartialEq, prost::Message)]
struct HelloReply {
    #[prost(string, tag = "1")]
    message: String,
}

/// The service `hello.Greeter`: one arm for each of its methods.
async fn greeter(request: Request<RequestBody>) -> Result<Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        "/hello.Greeter/SayHello" => {
            saola::set_route("/hello.Greeter/SayHello");
            Grpc::new(ProstCodec::default()).unary(tower::service_fn(say_hello), request).await
        }
        _ => Status::unimplemented("there is no such method").into_http(),
    })
}

async fn say_hello(
    request: tonic::Request<HelloRequest>,
) -> Result<tonic::Response<HelloReply>, Status> {
    let HelloRequest { name } = request.into_inner();
    if name.is_empty() {
        return Err(Status::invalid_argument("a name is needed"));
    }
    Ok(tonic::Response::new(HelloReply { message: format!("hello {name}") }))
}

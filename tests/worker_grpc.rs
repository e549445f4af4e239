//! tonic under Saola: `examples/grpc.rs`, asked by tonic's own client.

use hyper::http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::client::in_time;
use crate::setup::Setup;

/// The request and the reply alike: one text.
#[derive(Clone, Eq, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

fn call(address: &str, path: &'static str, text: &str) -> Result<String, Status> {
    let call = async {
        let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
        let mut client = Grpc::new(channel);
        client.ready().await?;
        let request = Request::new(Text { text: text.to_owned() });
        let path = PathAndQuery::from_static(path);
        Ok(client.unary(request, path, ProstCodec::<Text, Text>::default()).await)
    };
    in_time(call).unwrap().map(|response| response.into_inner().text)
}

#[test]
fn a_tonic_service_answers_with_replies_statuses_and_routes() {
    let server = Setup::of_example("grpc").args(["--workers", "1"]).start();
    let path = "/hello.Greeter/SayHello";
    assert_eq!(call(&server.address(), path, "you").unwrap(), "hello you");
    assert_eq!(call(&server.address(), path, "").unwrap_err().code(), Code::InvalidArgument);
    let other = call(&server.address(), "/hello.Greeter/SayGoodbye", "you").unwrap_err();
    assert_eq!(other.code(), Code::Unimplemented);
    let line =
        server.until_line("its line", |line| line.is("request") && line.get("route") == path);
    assert_eq!((line.get("status"), line.get("outcome")), ("200", "ok"));
    assert_eq!(server.stop(), 0);
}

//! What is measured against: the same answers by hyper alone, on a runtime of two threads.

use std::convert::Infallible;

use axum::{Router, routing::get};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

/// What answers.
#[derive(Copy, Clone)]
pub(crate) enum Kind {
    Plain,
    Axum,
}

/// Serves until killed; says where in its first line.
pub(crate) fn serve(kind: Kind) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("address={}", listener.local_addr().unwrap());
        let router = Router::new().route("/", get(|| async { "hello\n" }));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (io, router) = (TokioIo::new(stream), router.clone());
            tokio::spawn(async move {
                let builder = http1::Builder::new();
                // A client that leaves ends its connection; there is nobody to tell.
                let _ = match kind {
                    Kind::Plain => builder.serve_connection(io, service_fn(answer)).await,
                    Kind::Axum => {
                        builder.serve_connection(io, TowerToHyperService::new(router)).await
                    }
                };
            });
        }
    });
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello\n")))
}

//! The service under test: one path for each thing that can happen.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{BoxError, RequestBody};

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

fn text(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed_unsync())
}

fn frames(frames: Vec<Result<&'static str, &'static str>>) -> Response<Body> {
    let frames = frames.into_iter().map(|frame| match frame {
        Ok(text) => Ok(Frame::data(Bytes::from_static(text.as_bytes()))),
        Err(error) => Err(BoxError::from(error)),
    });
    Response::new(BodyExt::boxed_unsync(Frames(frames.collect())))
}

fn large_frames() -> Response<Body> {
    let frames = [40_000, 10, 20_000].map(|size| Ok(Frame::data(Bytes::from(vec![b'y'; size]))));
    Response::new(BodyExt::boxed_unsync(Frames(frames.into())))
}

/// A body of ready frames.
struct Frames(std::collections::VecDeque<Result<Frame<Bytes>, BoxError>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = self.0.pop_front();
        assert!(
            !matches!(&next, Some(Err(error)) if error.to_string() == "panic"),
            "the body panics"
        );
        std::task::Poll::Ready(next)
    }
}

/// A body of frames without end.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1000])))))
    }
}

/// Says by its route whether it is dropped as its request.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        crate::set_route(if crate::trace().is_some() { "/inside" } else { "/outside" });
    }
}

/// Answers by the path.
pub(crate) async fn app(request: Request<RequestBody>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if request.method() == http::Method::POST {
        return Ok(uploaded(&path, request.into_body()).await);
    }
    Ok(match path.as_str() {
        "/" => {
            crate::set_route("/");
            text("hello")
        }
        "/panic" => panic!("on purpose"),
        "/sleep" => {
            tokio::time::sleep(Duration::from_secs(31)).await;
            text("late")
        }
        "/upgrade" => upgrade(request),
        "/peer" => text(peer(&request)),
        "/second" => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            text("a second later")
        }
        "/endless" => Response::new(BodyExt::boxed_unsync(Endless)),
        "/guarded" => {
            let _guard = Guard;
            tokio::time::sleep(Duration::from_secs(5)).await;
            text("")
        }
        path if path.starts_with("/route/") => {
            crate::set_route(path.trim_start_matches("/route"));
            text("")
        }
        "/large" => text("x".repeat(100_000)),
        "/large/stream" => large_frames(),
        "/empty" => text(""),
        "/204" => status(
            StatusCode::NO_CONTENT,
            Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync()),
        ),
        "/304" => status(StatusCode::NOT_MODIFIED, text("")),
        "/stream" => frames(vec![Ok("one"), Ok("two")]),
        "/trailers" => with_trailers(text("data")),
        "/broken" => frames(vec![Ok("one"), Err("broken")]),
        "/panicking" => frames(vec![Ok("one"), Err("panic")]),
        "/trace" => {
            let trace = crate::trace().expect("inside a request");
            let same = crate::blocking(|| crate::trace().expect("carried").span_id).await;
            assert_eq!(same, trace.span_id);
            text(format!(
                "{} {} {}",
                trace.traceparent(),
                trace.tracestate().unwrap_or("-"),
                trace.request_id()
            ))
        }
        _ => status(StatusCode::NOT_FOUND, text("nothing here")),
    })
}

fn with_trailers(response: Response<Body>) -> Response<Body> {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    response.map(|body| body.with_trailers(async { Some(Ok(trailers)) }).boxed_unsync())
}

/// Echoes behind a 101, and says goodbye when the worker drains.
fn upgrade(mut request: Request<RequestBody>) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::task::spawn_local(async move {
        let mut stream = TokioIo::new(upgraded.await.expect("an upgrade"));
        let (mut byte, mut is_told) = ([0], false);
        loop {
            tokio::select! {
                biased;
                read = stream.read_exact(&mut byte) => match read {
                    Ok(_) => stream.write_all(&byte).await.expect("the client reads"),
                    Err(_) => return,
                },
                () = crate::draining(), if !is_told => {
                    stream.write_all(b"bye").await.expect("the client reads");
                    is_told = true;
                }
            }
        }
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS, text(""));
    for (name, value) in [("connection", "upgrade"), ("upgrade", "echo")] {
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    response
}

/// Client, socket, scheme, and the field as the application sees it.
fn peer(request: &Request<RequestBody>) -> String {
    let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let peer = crate::peer().expect("inside a request");
    let client = shown(peer.client.map(|client| client.to_string()));
    let socket = shown(peer.socket.map(|socket| socket.to_string()));
    let mut fields = request.headers().iter().filter(|(name, _)| name.as_str().starts_with('x'));
    let mut field = fields.find(|(name, _)| name.as_str().ends_with("for"));
    let field = shown(field.take().map(|(_, value)| value.to_str().unwrap().to_owned()));
    format!("{client} {socket} {} {field}", peer.scheme)
}

/// What takes a body.
async fn uploaded(path: &str, mut body: RequestBody) -> Response<Body> {
    match path {
        "/echo" => match body.collect().await {
            Ok(body) => text(body.to_bytes()),
            Err(error) => status(StatusCode::UNPROCESSABLE_ENTITY, text(error.to_string())),
        },
        "/dawdle" => {
            for _ in 0..2 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                let _ = body.frame().await;
            }
            text("read at last")
        }
        "/echo-sleep" => {
            let _ = body.collect().await;
            tokio::time::sleep(Duration::from_mins(5)).await;
            text("late")
        }
        "/small" | "/big" => {
            crate::body_limit(if path == "/big" { 2 << 20 } else { 10 });
            match body.collect().await {
                Ok(body) => text(body.to_bytes().len().to_string()),
                Err(error) => status(StatusCode::UNPROCESSABLE_ENTITY, text(error.to_string())),
            }
        }
        "/back" => Response::new(body.map_err(BoxError::from).boxed_unsync()),
        _ => status(StatusCode::NOT_FOUND, text("nothing here")),
    }
}

fn status(status: StatusCode, mut response: Response<Body>) -> Response<Body> {
    *response.status_mut() = status;
    response
}

//! Simple calls: one request on a connection of its own, to a TCP address or `unix:/path`.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A whole response.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: Version,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// Fails with the body when the status is another one.
    pub(crate) fn expect_status(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// The value of a header; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn request_id(&self) -> &str {
        let id = self.header("x-request-id");
        assert!(!id.is_empty(), "no X-Request-Id in {self:?}");
        id
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// Asks once, over HTTP/1.1.
pub(crate) fn get(address: &str, path: &str) -> Answer {
    try_get(address, path).unwrap_or_else(|error| panic!("no answer from {address}{path}: {error}"))
}

pub(crate) fn try_get(address: &str, path: &str) -> Result<Answer, Error> {
    send(address, Request::get(path).body("")?)
}

pub(crate) fn send<B>(address: &str, request: Request<B>) -> Result<Answer, Error>
where
    Full<Bytes>: From<B>,
{
    let mut request = request.map(Full::<Bytes>::from);
    let host = if address.starts_with("unix:") { "localhost" } else { address };
    request.headers_mut().entry("host").or_insert(host.parse()?);
    in_time(async {
        match address.strip_prefix("unix:") {
            Some(path) => exchange(UnixStream::connect(path).await?, request).await,
            None => exchange(TcpStream::connect(address).await?, request).await,
        }
    })
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let driver = tokio::spawn(connection);
    let answer = answer(sender.send_request(request).await?).await;
    driver.abort();
    answer
}

/// Asks for several paths at once on one HTTP/2 connection, by prior knowledge.
pub(crate) fn get_http2(address: &str, paths: &[&str]) -> Vec<Answer> {
    let work = async {
        let io = TokioIo::new(TcpStream::connect(address).await?);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        let mut sent = Vec::new();
        for path in paths {
            let request =
                Request::get(format!("http://{address}{path}")).body(Full::<Bytes>::default())?;
            sent.push(sender.send_request(request));
        }
        let mut answers = Vec::new();
        for response in sent {
            answers.push(answer(response.await?).await?);
        }
        Ok(answers)
    };
    in_time(work).unwrap_or_else(|error| panic!("no answers over HTTP/2: {error}"))
}

/// Asks over HTTP/2, and leaves without the answer when `then` has returned.
pub(crate) fn leave_http2(address: &str, path: &str, then: impl FnOnce()) {
    let request = Request::get(format!("http://{address}{path}")).body("").unwrap();
    send_and_leave_http2(address, request, then);
}

/// The same with any request.
pub(crate) fn send_and_leave_http2<B>(address: &str, request: Request<B>, then: impl FnOnce())
where
    Full<Bytes>: From<B>,
{
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let request = request.map(Full::<Bytes>::from);
    let connect = async {
        let io = TokioIo::new(TcpStream::connect(address).await?);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok::<_, Error>(tokio::spawn(sender.send_request(request)))
    };
    let _answer = runtime.block_on(connect).unwrap();
    then();
    // Dropping the runtime drops the connection.
}

async fn answer(response: hyper::Response<hyper::body::Incoming>) -> Result<Answer, Error> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { status: head.status.as_u16(), version: head.version, headers: head.headers, body })
}

pub(crate) fn in_time<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(crate::wait::DEADLINE, work).await? })
}

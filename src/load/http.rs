//! One request and its answer, over at most 64 kept connections.

use std::cell::Cell;
use std::error::Error as StdError;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Connections at once.
const CONNECTIONS: usize = 64;

/// A request before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    token: Option<String>,
    body: Option<(&'static str, String)>,
}

impl Call {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), token: None, body: None }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: impl Into<String>, body: &serde_json::Value) -> Self {
        Self::new(Method::POST, path).json(body)
    }

    pub(crate) fn json(self, body: &serde_json::Value) -> Self {
        Self { body: Some(("application/json", body.to_string())), ..self }
    }

    pub(crate) fn form(self, body: String) -> Self {
        Self { body: Some(("application/x-www-form-urlencoded", body)), ..self }
    }

    /// As the user of this token.
    pub(crate) fn with(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    /// How the summary and messages call it.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// The client of a run.
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    places: Semaphore,
    base: Uri,
    sent: Cell<u64>,
}

impl Http {
    pub(crate) fn new(base: Uri) -> Self {
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(CONNECTIONS).build_http();
        Self { client, places: Semaphore::new(CONNECTIONS), base, sent: Cell::new(0) }
    }

    /// A connection before the first request: a server that is not there is said at once. It counts nowhere.
    pub(crate) async fn greet(&self) -> Result<(), String> {
        let host = self.base.host().unwrap_or_default();
        // An IPv6 address stands in brackets in a URL.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let connected = TcpStream::connect((host, self.base.port_u16().unwrap_or(80))).await;
        connected.map(drop).map_err(|error| innermost(&error))
    }

    /// Status and body; or why there are none. Without a free connection the request waits for one.
    pub(crate) async fn send(&self, call: Call) -> Result<(u16, Bytes), String> {
        let request = self.request(call).map_err(|error| innermost(&error))?;
        // The semaphore is never closed.
        let _place = self.places.acquire().await;
        self.sent.set(self.sent.get() + 1);
        let response = self.client.request(request).await.map_err(|error| innermost(&error))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| innermost(&error))?;
        Ok((status, body.to_bytes()))
    }

    /// How many requests it has sent.
    pub(crate) fn count_sent(&self) -> u64 {
        self.sent.get()
    }

    fn request(&self, call: Call) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let path = format!("{}{}", self.base.path().trim_end_matches('/'), call.path);
        let mut uri = self.base.clone().into_parts();
        uri.path_and_query = Some(path.try_into()?);
        let mut request = Request::builder()
            .method(call.method)
            .uri(Uri::from_parts(uri)?)
            .header(USER_AGENT, AGENT);
        if let Some(token) = &call.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let (kind, body) = call.body.unzip();
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        request.body(Full::new(Bytes::from(body.unwrap_or_default())))
    }
}

/// The cause at the bottom says what happened: "connection refused".
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(error) => error.kind().to_string(),
        None => cause.to_string(),
    }
}

const AGENT: &str = concat!("saola-load/", env!("CARGO_PKG_VERSION"));

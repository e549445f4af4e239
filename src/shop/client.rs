//! The client of the inventory service, which may be this very server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde_json::{Value, json};
use tracing::Instrument as _;
use tracing::field::Empty;

/// One pooled client of a worker.
#[derive(Clone)]
pub(crate) struct Inventory {
    http: Client<HttpConnector, Full<Bytes>>,
    /// None where the server has unix sockets only and nobody has said another.
    base: Option<Uri>,
}

/// What became of a deduction.
pub(super) enum Deducted {
    Yes,
    /// Surely not.
    Refused {
        status: StatusCode,
        detail: String,
    },
    /// Perhaps: no answer, or none that can be read.
    Unknown(String),
}

impl Inventory {
    /// `chosen`, or the first TCP address that this server listens on.
    pub(crate) fn new(chosen: Option<&Uri>, addresses: &[String]) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        connector.set_nodelay(true);
        // Its other end may be a worker of ours, which would drain for as long as nobody uses or closes the connection.
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .build(connector);
        let own = || addresses.iter().find_map(|address| own(address.parse().ok()?));
        let base = chosen.cloned().or_else(own);
        if base.is_none() {
            tracing::warn!("no inventory: there is no TCP address, and INVENTORY_URL is not set");
        }
        Self { http, base }
    }

    /// Whether there is one.
    pub(super) fn is_known(&self) -> bool {
        self.base.is_some()
    }

    /// Takes the quantity of an order.
    pub(super) async fn deduct(&self, order: i64, item: &str, quantity: i64) -> Deducted {
        let body = json!({ "order_id": order, "item": item, "quantity": quantity });
        match self.post("/inventory/deduct", &body).await {
            Ok((StatusCode::OK, _)) => Deducted::Yes,
            Ok((
                status @ (StatusCode::BAD_REQUEST
                | StatusCode::CONFLICT
                | StatusCode::INTERNAL_SERVER_ERROR),
                body,
            )) => Deducted::Refused { status, detail: detail(&body) },
            Ok((status, _)) => Deducted::Unknown(format!("status {status}")),
            Err(why) => Deducted::Unknown(why),
        }
    }

    /// Gives back what an order has taken, and keeps it from taking later; says whether that is certain.
    pub(super) async fn release(&self, order: i64) -> bool {
        let answer = self.post("/inventory/release", &json!({ "order_id": order })).await;
        answer.is_ok_and(|(status, _)| status == StatusCode::OK)
    }

    /// Sent again only if nobody was there to take it.
    async fn post(&self, path: &str, body: &impl Serialize) -> Result<(StatusCode, Bytes), String> {
        let body = serde_json::to_vec(body).map_err(|error| error.to_string())?;
        let body = Bytes::from(body);
        let sending = async {
            match self.exchange(path, body.clone()).await {
                Err(Failure { is_connect: true, .. }) => self.exchange(path, body).await,
                answer => answer,
            }
        };
        let answer = tokio::time::timeout(TOTAL_LIMIT, sending).await;
        answer.map_err(|_| "no answer in time".to_owned())?.map_err(|failure| failure.why)
    }

    async fn exchange(&self, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), Failure> {
        let uri = self.at(path)?;
        let span = tracing::info_span!(
            "http_call_inventory_service",
            otel.kind = "client",
            http.request.method = "POST",
            url.full = %uri,
            server.address = uri.host(),
            server.port = uri.port_u16().unwrap_or(80),
            http.response.status_code = Empty,
            otel.status_code = Empty,
        );
        let exchange = async {
            let mut request = Request::new(Full::new(body));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = uri;
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
            saola::trace::inject(request.headers_mut());
            let response = self.http.request(request).await;
            let response = response.map_err(|error| Failure::of(&error))?;
            let status = response.status();
            tracing::Span::current().record("http.response.status_code", status.as_u16());
            let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
            let body =
                body.map_err(|error| Failure { is_connect: false, why: error.to_string() })?;
            Ok((status, body.to_bytes()))
        };
        let answer = exchange.instrument(span.clone()).await;
        if !answer.as_ref().is_ok_and(|(status, _)| status.is_success()) {
            span.record("otel.status_code", "error");
        }
        answer
    }

    fn at(&self, path: &str) -> Result<Uri, Failure> {
        let url = self.base.as_ref().map(|base| {
            let base = base.to_string();
            format!("{}{path}", base.trim_end_matches('/'))
        });
        let uri = url.and_then(|url| url.parse().ok());
        uri.ok_or(Failure { is_connect: false, why: "there is no inventory".to_owned() })
    }
}

/// Why there is no answer.
struct Failure {
    /// Nothing was sent.
    is_connect: bool,
    why: String,
}

impl Failure {
    fn of(error: &hyper_util::client::legacy::Error) -> Self {
        Self { is_connect: error.is_connect(), why: error.to_string() }
    }
}

/// A wildcard is everywhere, so also here.
fn own(address: SocketAddr) -> Option<Uri> {
    let ip = address.ip();
    let ip = if ip.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { ip };
    format!("http://{}", SocketAddr::new(ip, address.port())).parse().ok()
}

fn detail(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = body["detail"].as_str().unwrap_or("no reason given");
    text.chars().take(MOST_OF_A_DETAIL).collect()
}

const IDLE_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const TOTAL_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: usize = 64 * 1024;
const MOST_OF_A_DETAIL: usize = 200;

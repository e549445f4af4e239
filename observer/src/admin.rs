//! The admin listener: metrics, health, status, and the requests being served now.
//!
//! It answers from the same files as everything else, on the observer's own thread.

mod answers;
mod heap;
mod pprof;
mod query;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use saola_observability::scraper::Scraper;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::Settings;
use crate::profile::{Symbols, Witness};
use crate::reader::{Files, Reader};

/// An answer, whole in memory.
pub(crate) type Answer = Response<Full<Bytes>>;

/// What the answers are made of.
pub(crate) struct Admin {
    service: String,
    version: String,
    reader: Rc<RefCell<Reader<Files>>>,
    scraper: Scraper,
    run_dir: PathBuf,
    /// The slots by themselves, for `/status`; opened when that is asked for first.
    slots: RefCell<Option<saola_observability::reader::Reader>>,
    pushes: Option<Arc<Witness>>,
    profile_hz: u32,
    no_heap_profiles: Option<String>,
    is_heap_asked: Cell<bool>,
    symbols: Arc<Mutex<Symbols>>,
    connections: Cell<usize>,
    /// What is open, to be ended with the answers that are waited for.
    open: RefCell<GracefulShutdown>,
    is_closing: watch::Sender<bool>,
    /// Names by which a listener on the loopback may be called, besides addresses and `localhost`.
    hosts: Hosts,
}

/// Which `Host` a request may name (DNS rebinding).
#[derive(Clone, Eq, PartialEq, Debug)]
enum Hosts {
    Any,
    Loopback { bound_name: String },
}

impl Admin {
    pub(crate) fn new(
        settings: &Settings,
        reader: Rc<RefCell<Reader<Files>>>,
        pushes: Option<Arc<Witness>>,
    ) -> Self {
        Self {
            service: settings.service.name.clone(),
            version: settings.service.version.clone(),
            reader,
            scraper: Scraper::new(settings.run_dir.clone()),
            run_dir: settings.run_dir.clone(),
            slots: RefCell::default(),
            pushes,
            profile_hz: settings.profile_hz,
            no_heap_profiles: settings.no_heap_profiles.clone(),
            is_heap_asked: Cell::new(false),
            symbols: Arc::default(),
            connections: Cell::new(0),
            open: RefCell::default(),
            is_closing: watch::Sender::new(false),
            hosts: Hosts::Loopback { bound_name: settings.admin_name.clone().unwrap_or_default() },
        }
    }
}

/// Answers until the listener is closed. Returns early only if it cannot be used.
pub(crate) async fn serve(listener: OwnedFd, admin: Rc<Admin>) -> io::Result<()> {
    let mut closing = admin.is_closing.subscribe();
    tokio::select! {
        biased;
        _ = closing.wait_for(|is_closing| *is_closing) => Ok(()),
        accepted = accept(listener, &admin) => accepted,
    }
}

async fn accept(listener: OwnedFd, admin: &Rc<Admin>) -> io::Result<()> {
    let listener = TcpListener::from(listener);
    // A unix socket has no address of this kind.
    let Ok(address) = listener.local_addr() else {
        let listener = UnixListener::from(OwnedFd::from(listener));
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => answer_connection(stream, admin, Hosts::Any),
                Err(_) => sleep(ACCEPT_AGAIN_AFTER).await,
            }
        }
    };
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let hosts = if address.ip().is_loopback() { admin.hosts.clone() } else { Hosts::Any };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => answer_connection(stream, admin, hosts.clone()),
            // Out of descriptors, for instance: others may free some.
            Err(_) => sleep(ACCEPT_AGAIN_AFTER).await,
        }
    }
}

fn answer_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    admin: &Rc<Admin>,
    hosts: Hosts,
) {
    if admin.connections.get() >= MOST_CONNECTIONS {
        return;
    }
    let counted = Counted::new(Rc::clone(admin));
    let watcher = admin.open.borrow().watcher();
    spawn_local(async move {
        let service = service_fn(|request: Request<Incoming>| {
            let (admin, hosts) = (Rc::clone(&counted.0), hosts.clone());
            async move { Ok::<_, Infallible>(admin.answer(&request, &hosts).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAY_TAKE)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        // A client that leaves or sends rubbish has had its answer.
        let _ = watcher.watch(connection).await;
    });
}

/// Counts a connection as long as it lives.
struct Counted(Rc<Admin>);

impl Counted {
    fn new(admin: Rc<Admin>) -> Self {
        admin.connections.set(admin.connections.get() + 1);
        Self(admin)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

impl Admin {
    /// Takes no more connections, which are for the next observer, and ends those that are open with the answers that are waited
    /// for: no scrape is lost because an observer is replaced.
    pub(crate) async fn close(&self) {
        self.is_closing.send_replace(true);
        let open = self.open.take();
        // Who has not asked by then was not going to.
        let _late = tokio::time::timeout(ANSWERS_MAY_TAKE, open.shutdown()).await;
    }

    async fn answer<B: Body>(self: Rc<Self>, request: &Request<B>, hosts: &Hosts) -> Answer {
        let mut answer = self.routed(request, hosts).await;
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    async fn routed<B: Body>(self: Rc<Self>, request: &Request<B>, hosts: &Hosts) -> Answer {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        if !hosts.allow(host) {
            return text(StatusCode::FORBIDDEN, "host not allowed\n");
        }
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or("");
        if !PATHS.contains(&path) {
            return text(StatusCode::NOT_FOUND, "not found\n");
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        if !request.body().is_end_stream() {
            return text(StatusCode::BAD_REQUEST, "a request here has no body\n");
        }
        match path {
            "/" => text(StatusCode::OK, INDEX),
            "/metrics" => self.metrics(request.method(), request.headers()),
            "/health" => self.health(),
            "/ready" => self.ready(),
            "/status" => self.status(),
            "/debug/requests" => self.requests(query),
            "/debug/pprof/" => Self::pprof_index(),
            "/debug/pprof/heap" => self.heap(query.to_owned()).await,
            path => {
                let is_graph = path == "/debug/pprof/flamegraph";
                self.profile(query.to_owned(), is_graph).await
            }
        }
    }
}

impl Hosts {
    fn allow(&self, host: Option<&str>) -> bool {
        let Self::Loopback { bound_name } = self else { return true };
        // Only HTTP/1.0 has none, and no browser speaks it.
        let Some(host) = host else { return true };
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || (!bound_name.is_empty() && name.eq_ignore_ascii_case(bound_name))
    }
}

/// An answer of one line or so.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    body_of(status, HeaderValue::from_static("text/plain; charset=utf-8"), body)
}

pub(crate) fn body_of(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<Bytes>,
) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

const PATHS: [&str; 10] = [
    "/",
    "/metrics",
    "/health",
    "/ready",
    "/status",
    "/debug/requests",
    "/debug/pprof/",
    "/debug/pprof/profile",
    "/debug/pprof/flamegraph",
    "/debug/pprof/heap",
];
const INDEX: &str = "\
GET /metrics                 Prometheus text, or OpenMetrics by Accept
GET /health                  200 while the supervisor lives
GET /ready                   200 while a worker is ready
GET /status                  JSON: workers and observer
GET /debug/requests          JSON: requests being served now, longest first; ?route=, ?min_ms=
GET /debug/pprof/            what profiles there are
GET /debug/pprof/profile     where the CPU goes, for go tool pprof; ?seconds=30, ?worker=, ?format=pprof|collapsed|svg
GET /debug/pprof/flamegraph  the same as a picture; ?seconds=10
GET /debug/pprof/heap        what the heap of a worker holds, in builds that can say; ?worker=0
";
const MOST_CONNECTIONS: usize = 16;
const HEAD_MAY_TAKE: Duration = Duration::from_secs(5);
const ANSWERS_MAY_TAKE: Duration = Duration::from_millis(250);
const HEAD_BYTES: usize = 8 * 1024;
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_on_another_name_cannot_read_a_listener_on_the_loopback() {
        let hosts = Hosts::Loopback { bound_name: "saola.test".into() };
        for good in [
            "127.0.0.1:9090",
            "localhost",
            "LOCALHOST:1",
            "[::1]:9090",
            "10.0.0.1",
            "saola.test:9090",
        ] {
            assert!(hosts.allow(Some(good)), "{good}");
        }
        for bad in ["evil.example:9090", "localhost.evil.example", "127.0.0.1.nip.io", ""] {
            assert!(!hosts.allow(Some(bad)), "{bad}");
        }
        assert!(Hosts::Any.allow(Some("evil.example")));
    }
}

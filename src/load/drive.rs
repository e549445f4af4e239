//! Sends the requests when they are due, over at most 64 connections, and collects what comes back.

use std::io::IsTerminal;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::LocalSet;
use tokio::time::{Instant, interval, sleep_until, timeout_at};

use crate::load::Plan;
use crate::load::report::{Ended, Report};

/// Connections at once.
const CONNECTIONS: usize = 64;
/// Requests under way at once; one more is skipped, and counted.
const MOST_IN_FLIGHT: u64 = 4_096;
/// How long the last answers are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

type Http = Client<HttpConnector, Full<Bytes>>;

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot connect to {url} ({why})")]
    Connect { url: Uri, why: String },
    #[error("cannot watch for signals")]
    Signals(#[from] std::io::Error),
    #[error("cannot keep latencies")]
    Latencies,
}

/// Runs a plan to its end.
pub(crate) async fn drive(plan: &Plan) -> Result<Report, Error> {
    let http: Http =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(CONNECTIONS).build_http();
    greet(&plan.url).await?;
    LocalSet::new().run_until(send(plan, Rc::new(http))).await
}

/// A connection before the first request: a server that is not there is said at once. It counts nowhere.
async fn greet(url: &Uri) -> Result<(), Error> {
    let port = url.port_u16().unwrap_or(80);
    let connected = TcpStream::connect((url.host().unwrap_or_default(), port)).await;
    let refused =
        |error: &dyn std::error::Error| Error::Connect { url: url.clone(), why: innermost(error) };
    connected.map(drop).map_err(|error| refused(&error))
}

async fn send(plan: &Plan, http: Rc<Http>) -> Result<Report, Error> {
    let names = plan.mix.kinds.iter().map(|kind| kind.name).collect();
    let mut report = Report::new(names).ok_or(Error::Latencies)?;
    let (ended_in, mut ended_out) = mpsc::unbounded_channel();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut rng = Rng::with_seed(plan.seed);
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut progress = Progress::new();
    let start = Instant::now();
    let mut number = 0_u32;
    loop {
        let due = start + Duration::from_secs_f64(f64::from(number) / plan.rate);
        if plan.count.is_some_and(|count| u64::from(number) >= count)
            || plan.seconds.is_some_and(|seconds| due >= start + seconds)
        {
            break;
        }
        tokio::select! {
            biased;
            _ = int.recv() => break,
            _ = term.recv() => break,
            Some(ended) = ended_out.recv() => report.add(&ended),
            _ = progress.tick.tick() => progress.show(&report, start.elapsed()),
            () = sleep_until(due) => {
                number += 1;
                if report.in_flight() >= MOST_IN_FLIGHT {
                    report.skipped();
                    continue;
                }
                report.sent();
                let request = Ready { kind: plan.mix.draw(&mut rng), due, http: Rc::clone(&http), places: Arc::clone(&places) };
                tokio::task::spawn_local(request.run(plan, &mut rng, ended_in.clone()));
            }
        }
    }
    report.set_elapsed(start.elapsed());
    let deadline = Instant::now() + PATIENCE;
    while report.in_flight() > 0 {
        match timeout_at(deadline, ended_out.recv()).await {
            Ok(Some(ended)) => report.add(&ended),
            Ok(None) | Err(_) => break,
        }
    }
    progress.end(&report, start.elapsed());
    Ok(report)
}

/// A request whose time has come.
struct Ready {
    kind: usize,
    due: Instant,
    http: Rc<Http>,
    places: Arc<Semaphore>,
}

impl Ready {
    /// Builds the request now, in the order of the draw, and gives back what sends it.
    fn run(
        self,
        plan: &Plan,
        rng: &mut Rng,
        ended: mpsc::UnboundedSender<Ended>,
    ) -> impl Future<Output = ()> + use<> {
        let kind = plan.mix.kinds[self.kind].clone();
        let uri = at(&plan.url, &kind.path(rng));
        async move {
            let body = Full::new(Bytes::from_static(kind.body.unwrap_or_default().as_bytes()));
            let mut request = Request::new(body);
            *request.method_mut() = kind.method;
            *request.uri_mut() = uri;
            let json = hyper::header::HeaderValue::from_static("application/json");
            request.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
            // The semaphore is never closed: without a place the request waits, and its latency counts.
            let _place = self.places.acquire().await;
            let status = exchange(&self.http, request).await;
            let is_expected = status.as_ref().is_ok_and(|status| kind.expected.contains(status));
            let latency = self.due.elapsed();
            // The receiver goes only after the last answer was waited for.
            let _ = ended.send(Ended { kind: self.kind, status, latency, is_expected });
        }
    }
}

async fn exchange(http: &Http, request: Request<Full<Bytes>>) -> Result<u16, String> {
    let response = http.request(request).await.map_err(|error| innermost(&error))?;
    let status = response.status().as_u16();
    response.into_body().collect().await.map_err(|error| innermost(&error))?;
    Ok(status)
}

fn at(url: &Uri, path: &str) -> Uri {
    let base = url.path().trim_end_matches('/');
    let mut parts = url.clone().into_parts();
    parts.path_and_query = format!("{base}{path}").parse().ok();
    Uri::from_parts(parts).unwrap_or_else(|_| url.clone())
}

/// The cause at the bottom says what happened: "connection refused".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// A line rewritten each second on a terminal, else one each ten seconds.
struct Progress {
    tick: tokio::time::Interval,
    is_terminal: bool,
}

impl Progress {
    fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let mut tick = interval(Duration::from_secs(if is_terminal { 1 } else { 10 }));
        tick.reset();
        Self { tick, is_terminal }
    }

    fn show(&self, report: &Report, elapsed: Duration) {
        let line = report.progress(elapsed);
        if self.is_terminal { eprint!("\r\x1b[2K{line}") } else { eprintln!("{line}") }
    }

    fn end(&self, report: &Report, elapsed: Duration) {
        if self.is_terminal {
            self.show(report, elapsed);
            eprintln!();
        } else if report.count_sent() > 0 {
            self.show(report, elapsed);
        }
    }
}

//! An application that misbehaves as its environment says: for the black-box tests only.
//!
//! `MISFIT=error` cannot be loaded, `MISFIT=panic` panics while it is made,
//! `MISFIT=slow` takes 2 s; the file that `MISFIT_FILE` names says the same anew to each worker. Else it serves ways to end or block a worker.

use std::process::ExitCode;
use std::time::Duration;

use axum::{
    Router,
    routing::{any, get, post},
};

fn main() -> ExitCode {
    let fault = std::env::vars().find(|(name, _)| name == "MISFIT").map(|(_, value)| value);
    let file = std::env::vars().find(|(name, _)| name == "MISFIT_FILE").map(|(_, value)| value);
    saola::Server::new().hooks(Misfit { fault: fault.clone() }).serve(move |_worker| {
        // A file says it anew for each generation.
        let told = file.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        let fault = told.or_else(|| fault.clone());
        async move {
            match fault.as_deref() {
                Some("error") => return Err("the misfit does not want to".into()),
                Some("panic") => fail(),
                // More than a heartbeat may take, on the thread that beats.
                Some("busy") => spin(Duration::from_secs(2)),
                Some("never") => std::future::pending().await,
                Some("slow") => tokio::time::sleep(Duration::from_secs(2)).await,
                _ => {}
            }
            Ok(Router::new()
                .route("/", get(|| async { "here" }))
                .route("/wait", get(wait))
                .route("/block", get(block))
                .route("/hold", get(hold))
                .route("/echo", get(echo))
                .route("/hoard/{files}", get(hoard))
                .route("/large", get(|| async { axum::body::Bytes::from_static(&LARGE) }))
                .route(
                    "/upload",
                    post(|body: axum::body::Bytes| async move { body.len().to_string() }),
                )
                .route("/grow/{mebibytes}", get(grow))
                .nest("/nested", Router::new().route("/{id}", get(|| async { "nested" })))
                .merge(Router::new().route("/merged/{id}", get(|| async { "merged" })))
                .route("/any", any(|_: axum::body::Bytes| async { "read to its end" }))
                .route("/abort", get(abort))
                .route("/exit/{code}", get(exit)))
        }
    })
}

/// Hooks that misbehave: `MISFIT=hooks` panics and is slow in the supervisor, `MISFIT=post_fork` panics in the worker.
struct Misfit {
    fault: Option<String>,
}

impl saola::Hooks for Misfit {
    fn worker_ready(&mut self, _slot: u32) {
        if self.fault.as_deref() == Some("hooks") {
            fail();
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the fault that the test wants")]
    fn on_reload(&mut self) {
        if self.fault.as_deref() == Some("hooks") {
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    fn post_fork(&mut self, _slot: u32) {
        if self.fault.as_deref() == Some("post_fork") {
            fail();
        }
    }
}

/// More than the buffers between two processes.
static LARGE: [u8; 16 << 20] = [b'x'; 16 << 20];

#[expect(clippy::panic, reason = "what the test wants")]
fn fail() {
    panic!("the misfit panics");
}

/// Longer than any test.
async fn wait() {
    tokio::time::sleep(Duration::from_mins(5)).await;
}

/// Holds the event loop, and with it every other request of this worker.
#[expect(clippy::disallowed_methods, reason = "the fault that the test wants")]
async fn block() {
    std::thread::sleep(Duration::from_mins(5));
}

/// Memory that stays until the worker ends.
async fn grow(axum::extract::Path(mebibytes): axum::extract::Path<usize>) -> String {
    let grown: &[u8] = vec![1_u8; mebibytes << 20].leak();
    grown.len().to_string()
}

fn spin(time: Duration) {
    let end = std::time::Instant::now() + time;
    while std::time::Instant::now() < end {}
}

/// Says `bye` behind a 101 when its worker drains, and ends.
async fn echo(mut request: axum::extract::Request) -> axum::response::Response {
    use axum::http::{StatusCode, header};
    use axum::response::IntoResponse;
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(stream) = upgraded.await else { return };
        saola::draining().await;
        // A client that is gone needs no goodbye.
        let _ = TokioIo::new(stream).write_all(b"bye").await;
    });
    let fields = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")];
    (StatusCode::SWITCHING_PROTOCOLS, fields).into_response()
}

/// Holds it long enough to be named.
#[expect(clippy::disallowed_methods, reason = "the fault that the test wants")]
async fn hold() {
    std::thread::sleep(Duration::from_millis(60));
}

/// Keeps so many files open, and no others.
async fn hoard(axum::extract::Path(files): axum::extract::Path<usize>) {
    static HOARD: std::sync::Mutex<Vec<std::fs::File>> = std::sync::Mutex::new(Vec::new());
    let open = |_| std::fs::File::open("/dev/null").ok();
    if let Ok(mut hoard) = HOARD.lock() {
        *hoard = (0..files).map_while(open).collect();
    }
}

async fn abort() {
    std::process::abort();
}

#[expect(clippy::disallowed_methods, reason = "the fault that the test wants")]
async fn exit(axum::extract::Path(code): axum::extract::Path<i32>) {
    std::process::exit(code);
}

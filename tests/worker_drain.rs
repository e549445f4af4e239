//! A reload under HTTP/2: goodbyes end connections, and no stream that was opened is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use crate::output::thread;
use crate::server::Server;
use crate::wait;
use crate::wire::Wire;

const CLIENTS: usize = 4;
const STREAMS: usize = 8;

/// What all clients have done so far.
#[derive(Default)]
struct Books {
    is_over: AtomicBool,
    answered: AtomicU64,
    connections: AtomicU64,
}

#[test]
fn a_reload_under_http2_loses_no_stream() {
    let server = Server::start(["--access-log", "off"]);
    let books = Arc::new(Books::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (address, books) = (server.address(), Arc::clone(&books));
            thread(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(client(&address, &books));
            })
        })
        .collect();
    let more = |count| {
        let goal = books.answered.load(Relaxed) + count;
        wait::until("the load goes on", || books.answered.load(Relaxed) >= goal);
    };
    more(500);
    for generation in [2, 3] {
        let before = books.connections.load(Relaxed);
        server.signal(Signal::SIGHUP);
        server.until("the new workers serve", |metrics| {
            metrics.sum("saola_generation") == generation
        });
        wait::until("every connection was ended", || {
            books.connections.load(Relaxed) >= before + u64::try_from(CLIENTS).unwrap()
        });
        more(500);
    }
    books.is_over.store(true, Relaxed);
    for client in clients {
        client.join().expect("no request was lost");
    }
    assert_eq!(server.stop(), 0);
}

/// Keeps several streams open until the end; connects anew only when it was told goodbye.
async fn client(address: &str, books: &Arc<Books>) {
    while !books.is_over.load(Relaxed) {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(connection);
        books.connections.fetch_add(1, Relaxed);
        let mut streams = tokio::task::JoinSet::new();
        for _ in 0..STREAMS {
            streams.spawn(asks(sender.clone(), address.to_owned(), Arc::clone(books)));
        }
        drop(sender);
        streams.join_all().await;
        driver.await.unwrap().expect("an orderly end");
    }
}

async fn asks(mut sender: SendRequest<Empty<Bytes>>, address: String, books: Arc<Books>) {
    while !books.is_over.load(Relaxed) {
        if sender.ready().await.is_err() {
            return;
        }
        let request = Request::get(format!("http://{address}/health")).body(Empty::new()).unwrap();
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            // It never left this client.
            Err(error) if error.is_canceled() => return,
            Err(error) => panic!("lost: {error:?}"),
        };
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
        books.answered.fetch_add(1, Relaxed);
    }
}

#[test]
fn each_kept_connection_is_answered_once_more_with_one_goodbye() {
    let server = Server::start(["--workers", "3"]);
    let mut wires: Vec<_> = (0..24).map(|_| Wire::connect(&server.address()).unwrap()).collect();
    let closing = |wires: &mut Vec<Wire>| {
        let replies = wires.iter_mut().map(|wire| wire.get("/", "kept").unwrap());
        let closes: Vec<_> = replies.map(|reply| (reply.status, reply.closes())).collect();
        assert!(closes.iter().all(|(status, _)| *status == 200), "{closes:?}");
        closes.iter().filter(|(_, closes)| *closes).count()
    };
    assert_eq!(closing(&mut wires), 0);
    server.signal(Signal::SIGHUP);
    server.until("the new workers serve", |metrics| metrics.sum("saola_generation") == 2);
    server.until_true("the old ones have been told", || server.lines_of("reloaded").len() == 1);
    assert_eq!(closing(&mut wires), 24, "each is told with its next answer");
    assert!(wires.iter_mut().all(Wire::ends_cleanly), "and then it ends, without a reset");
    assert_eq!(server.stop(), 0);
}

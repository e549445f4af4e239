//! Real sockets, real time: both ways to accept, and a whole worker from birth to exit.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use http::Response;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tower::service_fn;

use super::{Body, app, slot};
use crate::{
    AcceptMode, Birth, BoxError, Config, ExitReason, Hooks, Listener, MakeService, Order,
    RequestBody,
};
use crate::{Speech, Stage, WorkerInfo, run};

pub(super) type Service = tower::util::ServiceFn<
    fn(
        http::Request<RequestBody>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>>>>,
>;

struct App;

impl MakeService for App {
    type Service = Service;
    type Body = Body;

    async fn make(self, worker: &WorkerInfo) -> Result<Service, BoxError> {
        assert_eq!(worker.slot, 7);
        Ok(service_fn(|request| Box::pin(async { Ok(app(request).await?) })))
    }
}

struct Failing(bool);

impl MakeService for Failing {
    type Service = Service;
    type Body = Body;

    async fn make(self, _: &WorkerInfo) -> Result<Service, BoxError> {
        assert!(!self.0, "a factory that panics");
        Err("no database".into())
    }
}

pub(super) fn birth(listeners: Vec<Listener>) -> (Birth, OwnedFd) {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
    )
    .unwrap();
    let parse = |datagram: &[u8]| match datagram {
        b"stop" => Some(Order::Stop { deadline: Duration::from_secs(5) }),
        b"drain" => Some(Order::Handover {
            deadline: Duration::from_secs(5),
            idle: Duration::from_millis(100),
        }),
        _ => None,
    };
    let info = WorkerInfo::new(7, 1, 1, Vec::new());
    (Birth { info, listeners, balance: None, control: theirs, parse }, ours)
}

pub(super) fn tcp() -> (Listener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (
        Listener {
            fd: listener.into(),
            address: address.to_string(),
            speech: Speech::default(),
            backlog: None,
        },
        address,
    )
}

pub(super) fn get(stream: &mut (impl Read + Write), path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(super) fn accepting(accept: AcceptMode) -> Config {
    Config { accept, ..Config::default() }
}

/// Runs a worker on this thread, as in a forked child, while `client` runs beside it once it is ready.
pub(super) fn with_worker(
    config: Config,
    listeners: Vec<Listener>,
    client: impl FnOnce(OwnedFd) + Send,
) -> (ExitReason, u64) {
    let (birth, ours) = birth(listeners);
    let (ready, is_ready) = mpsc::channel();
    let (drained, forced) = mpsc::channel();
    let hooks = Hooks {
        ready: Box::new(move || ready.send(()).unwrap()),
        drained: Box::new(move |forced| drained.send(forced).unwrap()),
        ..Hooks::default()
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            is_ready.recv_timeout(Duration::from_secs(10)).expect("the worker becomes ready");
            client(ours);
        });
        let exit = run(App, birth, slot(), config, hooks);
        (exit, forced.try_recv().unwrap())
    })
}

pub(super) fn order(control: &OwnedFd, text: &str) {
    nix::unistd::write(control, text.as_bytes()).unwrap();
}

fn serves_and_stops(accept: AcceptMode) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let unix = UnixListener::bind(&path).unwrap();
    unix.set_nonblocking(true).unwrap();
    let (listener, address) = tcp();
    let listeners = vec![
        listener,
        Listener {
            fd: unix.into(),
            address: path.display().to_string(),
            speech: Speech::default(),
            backlog: None,
        },
    ];
    let (exit, forced) = with_worker(accepting(accept), listeners, |control| {
        for _ in 0..40 {
            let answer = get(&mut TcpStream::connect(address).unwrap(), "/");
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"),
                "{answer}"
            );
        }
        assert!(get(&mut UnixStream::connect(&path).unwrap(), "/").ends_with("hello"));
        // Accepted, or still in the queue: all of them are answered.
        let mut waiting: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
        for stream in &mut waiting {
            write!(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        }
        order(&control, "stop");
        for mut stream in waiting {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("no reset");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
        // The worker looks for late handshakes for a while, then its listener is closed.
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_ok() {
            assert!(Instant::now() < deadline, "the listener is closed");
        }
    });
    assert_eq!((exit, forced), (ExitReason::Drained, 0));
}

#[test]
fn the_exclusive_acceptor_serves_both_kinds_of_listener_and_empties_its_queue() {
    serves_and_stops(AcceptMode::Exclusive);
}

#[test]
fn the_tokio_acceptor_serves_both_kinds_of_listener_and_empties_its_queue() {
    serves_and_stops(AcceptMode::Tokio);
}

#[test]
fn a_worker_whose_supervisor_has_died_ends() {
    let (listener, address) = tcp();
    let (exit, forced) = with_worker(Config::default(), vec![listener], |control| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /second HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut first = [0];
        drop(control);
        stream.read_exact(&mut first).expect("what was accepted is answered");
    });
    assert_eq!((exit, forced), (ExitReason::Drained, 0));
}

#[test]
fn a_factory_that_fails_is_told_apart_from_one_that_panics() {
    for (panics, exit, stage) in
        [(false, ExitReason::Load, Stage::Load), (true, ExitReason::Boot, Stage::Boot)]
    {
        let (birth, _ours) = birth(Vec::new());
        let (failed, told) = mpsc::channel();
        let hooks = Hooks {
            failed: Box::new(move |stage, text| failed.send((stage, text.to_owned())).unwrap()),
            ..Hooks::default()
        };
        assert_eq!(run(Failing(panics), birth, slot(), Config::default(), hooks), exit);
        let (at, text) = told.recv().unwrap();
        assert_eq!(at, stage);
        assert!(panics || text == "no database", "{text}");
    }
}

#[test]
fn metrics_are_answered_beside_the_service() {
    let (listener, address) = tcp();
    let (birth, control) = birth(vec![listener]);
    let (ready, is_ready) = mpsc::channel();
    let hooks = Hooks { ready: Box::new(move || ready.send(()).unwrap()), ..Hooks::default() };
    let answer = |fields: &http::HeaderMap, _: &http::Method| {
        assert_eq!(fields["host"], "a");
        Response::new(bytes::Bytes::from_static(b"metric 1\n"))
    };
    let config = Config { metrics: Some(std::sync::Arc::new(answer)), ..Config::default() };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            is_ready.recv_timeout(Duration::from_secs(10)).unwrap();
            let answer = get(&mut TcpStream::connect(address).unwrap(), "/metrics");
            assert!(answer.ends_with("metric 1\n") && answer.contains("x-request-id"), "{answer}");
            order(&control, "stop");
        });
        assert_eq!(run(App, birth, slot(), config, hooks), ExitReason::Drained);
    });
}

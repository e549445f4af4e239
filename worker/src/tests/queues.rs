//! Accept queues, of real sockets: shared, handed over, a worker's own, and those of workers that are full or about to end.

use std::io::{IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tower::service_fn;

use super::sockets::{Service, accepting, birth, get, order, tcp, with_worker};
use super::{Body, app, slot};
use crate::{AcceptMode, BoxError, Config, ExitReason, Hooks, Listener, MakeService, Speech};
use crate::{WorkerInfo, run};

/// Answers nobody before all of [`CROWD`] are being answered.
struct Meeting;

impl MakeService for Meeting {
    type Service = Service;
    type Body = Body;

    async fn make(self, _: &WorkerInfo) -> Result<Service, BoxError> {
        static CAME: AtomicUsize = AtomicUsize::new(0);
        Ok(service_fn(|request| {
            Box::pin(async {
                let whole = (CAME.fetch_add(1, Relaxed) / CROWD + 1) * CROWD;
                while CAME.load(Relaxed) < whole {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ok(app(request).await?)
            })
        }))
    }
}

/// More than one worker of [`two_full_workers`] takes.
const CROWD: usize = 14;

#[test]
fn a_handover_leaves_the_queue_to_others() {
    for accept in [AcceptMode::Exclusive, AcceptMode::Tokio] {
        let (listener, address) = tcp();
        let sibling = Listener {
            fd: listener.fd.try_clone().unwrap(),
            address: String::new(),
            speech: Speech::default(),
            backlog: None,
        };
        let (exit, _) = with_worker(accepting(accept), vec![sibling], |control| {
            let mut open = TcpStream::connect(address).unwrap();
            assert!(get(&mut open, "/").ends_with("hello"));
            order(&control, "drain");
        });
        assert_eq!(exit, ExitReason::Drained);
        let waiting = TcpStream::connect(address).expect("the queue still stands");
        drop((waiting, listener));
    }
}

#[test]
fn a_queue_that_is_handed_over_is_served_and_closed_whatever_the_worker_does_next() {
    for next in ["", "drain", "stop"] {
        let (own, own_address) = tcp();
        let (left, address) = tcp();
        let (exit, _) = with_worker(Config::default(), vec![own], move |control| {
            let mut waiting = [(); 3].map(|()| TcpStream::connect(address).unwrap());
            let text = [IoSlice::new(b"empty")];
            let numbers = [left.fd.as_raw_fd()];
            let with = [ControlMessage::ScmRights(&numbers)];
            let flags = MsgFlags::empty();
            sendmsg::<()>(control.as_raw_fd(), &text, &with, flags, None).unwrap();
            drop(left);
            if !next.is_empty() {
                order(&control, next);
            }
            for client in &mut waiting {
                assert!(get(client, "/").ends_with("hello"), "then {next}");
            }
            let deadline = Instant::now() + Duration::from_secs(10);
            while TcpStream::connect(address).is_ok() {
                assert!(Instant::now() < deadline, "it is closed");
            }
            if next.is_empty() {
                let own = get(&mut TcpStream::connect(own_address).unwrap(), "/");
                assert!(own.ends_with("hello"), "its own queue is as it was");
                order(&control, "drain");
            }
        });
        assert_eq!(exit, ExitReason::Drained);
    }
}

#[test]
fn clients_that_say_nothing_hold_up_none_that_come_after_them() {
    let (listener, address) = tcp();
    with_worker(accepting(AcceptMode::Exclusive), vec![listener], |control| {
        let silent = [(); 50].map(|()| TcpStream::connect(address).unwrap());
        let mut next = TcpStream::connect(address).unwrap();
        next.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(get(&mut next, "/").ends_with("hello"));
        drop(silent);
        order(&control, "stop");
    });
}

#[test]
fn a_queue_of_its_own_begins_with_the_service() {
    for accept in [AcceptMode::Exclusive, AcceptMode::Tokio] {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        assert!(TcpStream::connect(address).is_err(), "it does not listen");
        let (fd, text, speech) = (socket.into(), address.to_string(), Speech::default());
        let listener = Listener { fd, address: text, speech, backlog: Some(16) };
        with_worker(accepting(accept), vec![listener], |control| {
            assert!(get(&mut TcpStream::connect(address).unwrap(), "/").ends_with("hello"));
            order(&control, "stop");
        });
    }
}

#[test]
fn a_full_worker_leaves_the_rest_of_the_queue_to_its_sibling() {
    for accept in [AcceptMode::Exclusive, AcceptMode::Tokio] {
        two_full_workers(accept);
    }
}

fn two_full_workers(accept: AcceptMode) {
    let (listener, address) = tcp();
    let (ready, is_ready) = mpsc::channel();
    std::thread::scope(|scope| {
        let mut controls = Vec::new();
        for _ in 0..2 {
            let shared = Listener {
                fd: listener.fd.try_clone().unwrap(),
                address: String::new(),
                speech: Speech::default(),
                backlog: None,
            };
            let (birth, control) = birth(vec![shared]);
            let ready = ready.clone();
            controls.push(control);
            scope.spawn(move || {
                let hooks =
                    Hooks { ready: Box::new(move || ready.send(()).unwrap()), ..Hooks::default() };
                let config = Config { worker_connections: 8, ..accepting(accept) };
                assert_eq!(run(Meeting, birth, slot(), config, hooks), ExitReason::Drained);
            });
        }
        for _ in 0..2 {
            is_ready.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        let mut clients = [(); CROWD].map(|()| TcpStream::connect(address).unwrap());
        for client in &mut clients {
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            write!(client, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        }
        for client in &mut clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("nobody waits behind a worker that is full");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
        for control in &controls {
            order(control, "stop");
        }
    });
}

#[test]
fn clients_that_a_stopping_worker_has_no_place_for_are_told_so() {
    for accept in [AcceptMode::Exclusive, AcceptMode::Tokio] {
        let (listener, address) = tcp();
        let full = Config { worker_connections: 2, ..accepting(accept) };
        let (exit, forced) = with_worker(full, vec![listener], |control| {
            let ask = |_| {
                let mut stream = TcpStream::connect(address).unwrap();
                write!(stream, "GET /second HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                stream
            };
            let waiting: Vec<_> = (0..10).map(ask).collect();
            order(&control, "stop");
            let statuses = waiting.into_iter().map(|mut stream| {
                let mut answer = String::new();
                stream.read_to_string(&mut answer).expect("no reset");
                answer.split(' ').nth(1).expect("a status").to_owned()
            });
            let served = statuses.filter(|status| status == "200" || status == "503");
            assert_eq!(served.filter(|status| status == "200").count(), 2);
        });
        assert_eq!((exit, forced), (ExitReason::Drained, 0));
    }
}

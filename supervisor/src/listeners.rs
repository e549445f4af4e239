//! The sockets that the server listens on (section 10): parsed, bound once, shared by all workers.

mod bind;
mod closing;
mod inherited;
mod owner;
pub(crate) mod queue;
mod sockets;
mod unix;

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, SockaddrStorage, bind as bind_socket,
    getsockname, listen, setsockopt, socket, sockopt,
};

pub use bind::{Bind, BindError};
use sockets::Sockets;
use unix::UnixFile;

use crate::identity::Owner;
use crate::lifecycle::event::QueueNumber;
use crate::upgrade::Inherited;
use crate::upgrade::state;

/// A socket to accept from, and the address it listens on.
#[derive(Debug)]
pub struct Listener {
    /// The socket: non-blocking, which is a flag that all its holders share and nobody may change.
    pub fd: OwnedFd,
    /// Where it listens, with the real port: `127.0.0.1:8000`, `[::1]:8000`, `unix:/run/x.sock`, `unix:@name`.
    pub address: String,
    /// Set where the queue is this worker's own: it is to begin to listen, with so many places, when it can serve.
    pub backlog: Option<u32>,
}

/// A listener as the supervisor keeps it: a unix socket has a file to remove.
#[derive(Debug)]
pub(crate) struct Kept {
    sockets: Sockets,
    pub(crate) address: String,
    /// What it was bound for: a name may have several addresses.
    pub(crate) bind: Bind,
    file: Option<UnixFile>,
}

impl Kept {
    /// Lets no new handshake begin: what is in the queue can be served to its end, and then the socket closes.
    pub(crate) fn turn_away(&self) {
        // One that was inherited lives on with its owner, and who comes later is the next server's.
        if matches!(self.bind, Bind::Inherited(_)) {
            return;
        }
        for socket in self.sockets.all() {
            // A unix socket has no handshake; without socket filters a client may meet the close.
            let _race_stays = closing::turn_away(socket);
        }
    }

    /// How many connections wait to be accepted; none where the system does not say.
    pub(crate) fn queue_length(&self) -> Option<u32> {
        self.sockets.queue().map(|queue| queue.waiting)
    }

    /// How many wait for the worker that has this queue.
    pub(crate) fn queue_length_of(&self, number: QueueNumber) -> Option<u32> {
        queue::of(self.sockets.of(number)?).map(|queue| queue.waiting)
    }

    /// As `status` shows it.
    pub(crate) fn describe(&self) -> serde_json::Value {
        let queue = self.sockets.queue();
        serde_json::json!({
            "address": self.address,
            "queue": queue.map(|queue| queue.waiting),
            "limit": queue.map(|queue| queue.limit),
        })
    }

    /// For the next image.
    pub(crate) fn hand_over<'a>(&'a self, open: &mut Inherited<'a>) -> state::Socket {
        state::Socket {
            sockets: self.sockets.hand_over(open),
            address: self.address.clone(),
            bind: self.bind.to_string(),
            file: self.file.as_ref().map(|file| file.hand_over(open)),
        }
    }

    /// A socket that another image has bound.
    pub(crate) fn adopt(socket: &state::Socket) -> std::io::Result<Self> {
        let bind = socket.bind.parse().map_err(std::io::Error::other)?;
        let sockets = Sockets::adopt(&socket.sockets)?;
        let file = socket.file.as_ref().map(UnixFile::adopt).transpose()?;
        Ok(Self { sockets, address: socket.address.clone(), bind, file })
    }

    /// From here on its file goes with it; until then it stays, because this image may not be the one that takes over.
    pub(crate) fn take_charge(&mut self) {
        if let Some(file) = &mut self.file {
            file.take_charge();
        }
    }

    /// A descriptor for a child: of the one socket, or of the one with this queue, which is made if there is none.
    pub(crate) fn share(&mut self, queue: QueueNumber) -> std::io::Result<Listener> {
        let fd = self.sockets.ensure(queue)?.try_clone()?;
        Ok(Listener { fd, address: self.address.clone(), backlog: self.sockets.backlog() })
    }

    /// Sockets with queues that nobody holds, for somebody to serve what waits in them.
    pub(crate) fn give_up(&mut self, held: &BTreeSet<QueueNumber>) -> Vec<OwnedFd> {
        self.sockets.give_up(held)
    }
}

/// How connections wait on a socket, and who may come to it.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) backlog: u32,
    /// Each worker has a queue of its own, on every TCP address.
    pub(crate) reuse_port: bool,
    /// Of the file of a unix socket.
    pub(crate) socket_mode: u32,
    pub(crate) socket_owner: Owner,
}

/// A socket could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error(
        "cannot listen on {address}: address in use by {owner}; stop it or choose another with --bind"
    )]
    InUse { address: String, owner: String },
    #[error(
        "cannot listen on {address}: permission denied; choose a port above 1023 or run as root"
    )]
    Permission { address: String },
    #[error(
        "cannot listen on {address}: {path} is not a socket; remove it or choose another with --bind"
    )]
    NotASocket { address: String, path: String },
    #[error("cannot listen on {address}: the name does not resolve: {why}")]
    Name { address: String, why: String },
    #[error("cannot listen on fd://{number}: fd {number} is not a listening socket")]
    Inherited { number: i32 },
    #[error(
        "cannot listen on {address}: no such socket was handed over (LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES)"
    )]
    NoneInherited { address: String },
    #[error("cannot listen on {address}: {}", errno.desc())]
    System { address: String, errno: Errno },
    /// A signal came while an address was waited for.
    #[error("stopped while waiting for an address")]
    Interrupted,
}

/// Binds all of `binds`, trying five times where an address is in use. `pause` waits between two tries and may break off.
pub(crate) fn bind_all(
    binds: &[Bind],
    queue: Waiting,
    pause: &mut dyn FnMut(&ListenError, Duration) -> ControlFlow<()>,
) -> Result<Vec<Kept>, ListenError> {
    let mut kept = Vec::new();
    for bind in binds {
        kept.extend(bind_patiently(bind, binds, queue, pause)?);
    }
    Ok(kept)
}

/// How many connections wait in the queue of a socket that listens with `backlog`: the system has a limit of its own.
pub(crate) fn system_backlog() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

fn bind_patiently(
    bind: &Bind,
    all: &[Bind],
    queue: Waiting,
    pause: &mut dyn FnMut(&ListenError, Duration) -> ControlFlow<()>,
) -> Result<Vec<Kept>, ListenError> {
    for _ in 1..TRIES {
        match bind_once(bind, all, queue) {
            Err(error @ ListenError::InUse { .. }) => {
                if pause(&error, BETWEEN_TRIES).is_break() {
                    return Err(ListenError::Interrupted);
                }
            }
            decided => return decided,
        }
    }
    bind_once(bind, all, queue)
}

/// Binds without a second try.
pub(crate) fn bind_now(
    bind: &Bind,
    all: &[Bind],
    queue: Waiting,
) -> Result<Vec<Kept>, ListenError> {
    bind_once(bind, all, queue)
}

fn bind_once(bind: &Bind, all: &[Bind], queue: Waiting) -> Result<Vec<Kept>, ListenError> {
    match bind {
        Bind::Tcp { host, port } => {
            let resolved = (host.as_str(), *port).to_socket_addrs().map_err(|why| {
                ListenError::Name { address: bind.to_string(), why: why.to_string() }
            })?;
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for address in resolved {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            addresses
                .into_iter()
                .map(|address| {
                    let (fd, address) = bind_tcp(address, all, queue.backlog)?;
                    let sockets = if queue.reuse_port {
                        let fail = |errno| ListenError::System { address: address.clone(), errno };
                        Sockets::own(fd, queue.backlog).map_err(fail)?
                    } else {
                        Sockets::Shared(fd)
                    };
                    Ok(Kept { sockets, address, bind: bind.clone(), file: None })
                })
                .collect()
        }
        Bind::Inherited(number) => {
            let (fd, address) = inherited::adopt(*number)?;
            let sockets = Sockets::Shared(fd);
            Ok(vec![Kept { sockets, address, bind: bind.clone(), file: None }])
        }
        // Settings have put a number of descriptors in its place.
        Bind::Systemd | Bind::SystemdNamed(_) => {
            Err(ListenError::NoneInherited { address: bind.to_string() })
        }
        Bind::UnixPath(path) => {
            let (fd, file) = unix::bind_path(path, queue, &bind.to_string())?;
            let (sockets, address) = (Sockets::Shared(fd), bind.to_string());
            Ok(vec![Kept { sockets, address, bind: bind.clone(), file: Some(file) }])
        }
        Bind::UnixAbstract(name) => {
            let fd = unix::bind_abstract(name, queue.backlog, &bind.to_string())?;
            let (sockets, address) = (Sockets::Shared(fd), bind.to_string());
            Ok(vec![Kept { sockets, address, bind: bind.clone(), file: None }])
        }
    }
}

fn bind_tcp(
    address: SocketAddr,
    all: &[Bind],
    backlog: u32,
) -> Result<(OwnedFd, String), ListenError> {
    let fail = |errno| match errno {
        Errno::EADDRINUSE => {
            ListenError::InUse { address: address.to_string(), owner: owner::of_tcp(address) }
        }
        Errno::EACCES | Errno::EPERM => ListenError::Permission { address: address.to_string() },
        errno => ListenError::System { address: address.to_string(), errno },
    };
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = open(family).map_err(fail)?;
    // No SO_REUSEPORT, or not yet: a second server must be told (S44).
    setsockopt(&fd, sockopt::ReuseAddr, &true).map_err(fail)?;
    if address.is_ipv6() {
        // Never left to the system's setting. Both families on one socket only where no other bind wants the port.
        let only_v6 = !address.ip().is_unspecified()
            || all.iter().any(|bind| bind.is_ipv4_on(address.port()));
        setsockopt(&fd, sockopt::Ipv6V6Only, &only_v6).map_err(fail)?;
    }
    bind_socket(fd.as_raw_fd(), &SockaddrStorage::from(address)).map_err(fail)?;
    start_listening(fd.as_fd(), backlog).map_err(fail)?;
    let port = port_of(fd.as_fd()).map_err(fail)?;
    Ok((fd, SocketAddr::new(address.ip(), port).to_string()))
}

fn open(family: AddressFamily) -> nix::Result<OwnedFd> {
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

fn start_listening(fd: BorrowedFd<'_>, backlog: u32) -> nix::Result<()> {
    let backlog =
        Backlog::new(i32::try_from(backlog).unwrap_or(i32::MAX)).unwrap_or(Backlog::MAXCONN);
    listen(&fd, backlog)
}

fn port_of(fd: BorrowedFd<'_>) -> nix::Result<u16> {
    let name: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    debug_assert!(name.len() > 0, "a bound socket has a name");
    let port = name.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::port);
    port.or_else(|| name.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::port))
        .ok_or(Errno::EAFNOSUPPORT)
}

const TRIES: u32 = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    const WAITING: Waiting = Waiting {
        backlog: 16,
        reuse_port: false,
        socket_mode: 0o660,
        socket_owner: Owner { uid: None, gid: None },
    };

    fn bind_all_now(binds: &[&str]) -> Result<Vec<Kept>, ListenError> {
        let binds: Vec<Bind> = binds.iter().map(|text| text.parse().expect("a bind")).collect();
        bind_all(&binds, WAITING, &mut |_, _| ControlFlow::Continue(()))
    }

    #[test]
    fn port_zero_becomes_a_real_port_that_answers() {
        let mut kept = bind_all_now(&["127.0.0.1:0"]).expect("a listener");
        let listener = TcpListener::from(kept[0].share(QueueNumber(0)).expect("a copy").fd);
        let mut client = TcpStream::connect(&kept[0].address).expect("it listens");
        client.write_all(b"x").expect("sent");
        let mut fds = [nix::poll::PollFd::new(listener.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, 5_000u16).expect("a client comes");
        let (mut served, _) = listener.accept().expect("accepted without blocking");
        let mut byte = [0];
        served.read_exact(&mut byte).expect("received");
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn a_taken_port_is_tried_five_times_and_its_owner_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address").to_string();
        let mut tries = 1;
        let binds = [address.parse().expect("a bind")];
        let error = bind_all(&binds, WAITING, &mut |_, pause| {
            assert_eq!(pause, Duration::from_millis(200));
            tries += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(tries, 5);
        let text = error.expect_err("it is taken").to_string();
        assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
    }

    #[test]
    fn an_address_that_is_freed_meanwhile_is_taken() {
        let mut taken = Some(TcpListener::bind("127.0.0.1:0").expect("a port"));
        let address = taken.as_ref().and_then(|taken| taken.local_addr().ok()).expect("an address");
        let binds = [address.to_string().parse().expect("a bind")];
        let kept = bind_all(&binds, WAITING, &mut |_, _| {
            taken = None;
            ControlFlow::Continue(())
        });
        assert_eq!(kept.expect("it is free").len(), 1);
    }

    #[test]
    fn ipv6_for_all_leaves_the_ipv4_port_to_another_bind() {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a free port")
            .port();
        match bind_all_now(&[&format!("[::]:{port}"), &format!("0.0.0.0:{port}")]) {
            Ok(kept) => assert_eq!(kept.len(), 2),
            Err(ListenError::System {
                errno: Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL, ..
            }) => {
                println!("skipped: no IPv6 here");
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_unix_socket_replaces_a_dead_one_and_respects_a_living_one_and_a_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("s.sock");
        let bind = format!("unix:{}", path.display());
        drop(UnixListener::bind(&path).expect("a socket that dies"));
        let kept = bind_all_now(&[&bind]).expect("the dead one is replaced");
        UnixStream::connect(&path).expect("it listens");
        assert!(matches!(bind_all_now(&[&bind]), Err(ListenError::InUse { .. })));
        drop(kept);
        assert!(!path.exists(), "its file leaves with it");
        std::fs::write(&path, "precious").expect("a file");
        assert!(matches!(bind_all_now(&[&bind]), Err(ListenError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("untouched"), "precious");
    }

    #[test]
    fn an_abstract_socket_has_no_file() {
        let name = format!("saola-test-{}", std::process::id());
        let bind = format!("unix:@{name}");
        let _kept = bind_all_now(&[&bind]).expect("a listener");
        assert!(matches!(bind_all_now(&[&bind]), Err(ListenError::InUse { .. })));
    }
}

//! Where connections come from: permits, the trait of a source, and what `accept4` can say.

pub(crate) mod balance;
pub(crate) mod exclusive;
pub(crate) mod injected;
mod linger;
mod reserve;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod tokio;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ::tokio::time::Instant;
use nix::errno::Errno;
use nix::sys::socket::{Backlog, SockFlag, accept4, listen};

use crate::config::ProxyProtocol;
pub use balance::Balance;
use balance::Counted;
pub use stream::Stream;

/// A listening socket that the worker inherited. Its flags are shared with all workers and are never changed.
#[derive(Debug)]
pub struct Listener {
    /// The socket; must be non-blocking.
    pub fd: OwnedFd,
    /// Where it listens.
    pub address: String,
    /// What its clients begin with.
    pub speech: Speech,
    /// Set where the queue is this worker's own: it begins to listen, with so many places, when its service is made.
    pub backlog: Option<u32>,
}

impl Listener {
    /// Begins to listen, if that is this worker's to do. Until then the kernel deals it no connection that would have to wait.
    pub(crate) fn begin(&self) -> std::io::Result<()> {
        let Some(places) = self.backlog else { return Ok(()) };
        let places = i32::try_from(places).ok().and_then(|places| Backlog::new(places).ok());
        Ok(listen(&self.fd, places.unwrap_or(Backlog::MAXALLOWABLE))?)
    }
}

/// What comes before HTTP on the connections of a listener.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct Speech {
    /// A PROXY header.
    pub proxy: ProxyProtocol,
    /// TLS, with what [`Config::tls`](crate::Config::tls) says; without that nothing.
    pub tls: bool,
}

/// A source of connections.
pub trait Accept {
    /// What a connection is read from and written to.
    type Io: Stream + 'static;

    /// Gives the next connection, once there is a permit for it; `None` when there will be no more.
    ///
    /// A call that was given up loses nothing: what was on its way comes with the next call.
    ///
    /// # Errors
    ///
    /// [`AcceptError`] when the source is broken for good.
    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        permits: &Rc<Permits>,
    ) -> Poll<Result<Option<Accepted<Self::Io>>, AcceptError>>;

    /// Stops accepting for now.
    fn pause(&mut self);

    /// Accepts again.
    fn resume(&mut self);

    /// Accepts no more, but for what [`Queue`] says. The listeners are closed when [`Accept::poll_accept`] gives `None`.
    fn finish(&mut self, queue: Queue);
}

/// What becomes of the connections that wait in the accept queue when a worker ends.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Queue {
    /// Others take them.
    Leave,
    /// This worker takes them first: nobody else will.
    Empty,
}

/// A connection and what is known of it.
#[derive(Debug)]
pub struct Accepted<I> {
    /// Its stream.
    pub io: I,
    /// Its other end; `None` on a unix socket.
    pub peer: Option<SocketAddr>,
    /// What comes before HTTP on it.
    pub speech: Speech,
    /// When it was accepted.
    pub at: Instant,
    /// Its place among the connections of this worker.
    pub permit: Permit,
}

/// Why a source of connections cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// A listener is no listening socket any more.
    #[error("cannot accept on a listener")]
    Listener(#[source] std::io::Error),
    /// The acceptor cannot be set up, or has ended.
    #[error("the acceptor cannot run")]
    Acceptor(#[source] std::io::Error),
}

/// How many connections a worker may still take. One thread.
#[derive(Debug)]
pub struct Permits {
    limit: usize,
    taken: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

/// One connection's place. Free again when dropped.
#[derive(Debug)]
pub struct Permit {
    permits: Rc<Permits>,
    /// The connection that has it, as other workers see it.
    counted: Option<Counted>,
}

impl Permits {
    /// Makes so many places.
    pub fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self { limit, taken: Cell::new(0), waker: RefCell::new(None) })
    }

    /// How many there are in all.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes one, or waits for one.
    pub fn poll_take(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let taken = self.take();
        if taken.is_none() {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
        taken.map_or(Poll::Pending, Poll::Ready)
    }

    /// Takes one if there is one.
    pub(crate) fn take(self: &Rc<Self>) -> Option<Permit> {
        let is_free = self.taken.get() < self.limit;
        is_free.then(|| {
            self.taken.set(self.taken.get() + 1);
            Permit { permits: Rc::clone(self), counted: None }
        })
    }

    /// Takes one ahead of its connection, while most are free.
    pub(crate) fn take_spare(self: &Rc<Self>) -> Option<Permit> {
        if self.taken.get() * 2 < self.limit { self.take() } else { None }
    }

    /// Says whether somebody waits for one and there is none.
    pub(crate) fn is_used_up(&self) -> bool {
        self.taken.get() >= self.limit && self.waker.borrow().is_some()
    }

    /// Says whether fewer than 5 % are free, so that responses close their connections.
    pub(crate) fn is_nearly_used_up(&self) -> bool {
        (self.limit - self.taken.get()) * 20 < self.limit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.taken.set(self.permits.taken.get().saturating_sub(1));
        if let Some(waker) = self.permits.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// What one `accept4` gave.
#[derive(Debug)]
pub(crate) enum Taken {
    Socket(OwnedFd),
    /// The queue is empty.
    Nothing,
    /// This client is gone; try the next.
    Next,
    /// No descriptor or memory for it.
    Exhausted,
    /// The listener is broken.
    Broken(Errno),
}

/// Takes one connection from a queue.
pub(crate) fn take(listener: &OwnedFd) -> Taken {
    use Errno as E;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    match accept4(listener.as_fd().as_raw_fd(), flags) {
        Ok(fd) => Taken::Socket(adopt(fd)),
        Err(E::EAGAIN) => Taken::Nothing,
        Err(E::EMFILE | E::ENFILE | E::ENOBUFS | E::ENOMEM) => Taken::Exhausted,
        Err(errno @ (E::EBADF | E::EINVAL | E::ENOTSOCK | E::EFAULT)) => Taken::Broken(errno),
        // EINTR, and errors that accept(2) passes on from the client's side of the network.
        Err(_) => Taken::Next,
    }
}

#[expect(unsafe_code, reason = "nix gives the accepted socket as a number")]
#[expect(clippy::disallowed_methods, reason = "where a socket from accept4 gets its owner")]
fn adopt(fd: std::os::fd::RawFd) -> OwnedFd {
    // SAFETY: the descriptor must be open and owned by nobody else. accept4 has just made it, and only this call has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

//! Accepting on a thread of its own, with `EPOLLEXCLUSIVE`: one wake-up, one worker, one accept, one hand-over.
//!
//! A client's request comes a moment after its connection. So the thread lays the connection down where the loop finds it,
//! and does not wake the loop for it: its request does, or a timer when it is silent for longer than that moment.
//!
//! The loop grants the thread a few connections, and has permits when it does. The thread takes more than one of them only
//! while the loop is idle. So a loop that is busy or hung holds at most one connection that came to it since.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use saola_observability::Slot;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::Instant;

mod thread;

use super::balance::{Counted, Part};
use super::linger::Linger;
use super::reserve::refuse;
use super::socket::Socket;
use super::{Accept, AcceptError, Accepted, Listener, Permit, Permits, Queue, Speech, Taken, take};
use crate::heartbeat::Beat;
use crate::metrics;
use crate::readiness::watch;
use thread::{Acceptor, Handed, Shared, Wish};

/// How many connections a thread may take, at most, while an idle loop sleeps on.
const AHEAD: usize = 8;

/// The default source on Linux.
pub(crate) struct Exclusive {
    /// Also owns the listeners; given up with them.
    shared: Option<Arc<Shared>>,
    /// Ready when there is something to do for what was laid down.
    table: AsyncFd<OwnedFd>,
    /// Why the thread has ended; closed when it was to.
    ended: mpsc::Receiver<io::Error>,
    /// For those that lie there, and for those that the thread may take.
    permits: Vec<Permit>,
    is_granted: bool,
    queue: Option<Queue>,
    next: usize,
    /// While the queues are being emptied.
    linger: Option<Linger>,
}

impl Exclusive {
    /// Starts the thread. An error of kind `InvalidInput` means that the kernel does not know `EPOLLEXCLUSIVE`.
    pub(crate) fn new(
        listeners: &Arc<Vec<Listener>>,
        beat: Beat,
        slot: &'static Slot,
        part: Option<Part>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(Arc::clone(listeners), part)?);
        let table = watch(shared.table.0.try_clone()?)?;
        let (sender, ended) = mpsc::channel(1);
        Acceptor::new(Arc::clone(&shared), sender, beat, slot).start()?;
        Ok(Self {
            shared: Some(shared),
            table,
            ended,
            permits: Vec::new(),
            is_granted: false,
            queue: None,
            next: 0,
            linger: None,
        })
    }

    fn wish(&self, wish: Wish) {
        if let Some(shared) = &self.shared {
            shared.wish(wish);
        }
    }

    fn accepted(
        &mut self,
        fd: OwnedFd,
        speech: Speech,
        at: Instant,
        counted: Option<Counted>,
    ) -> Option<Accepted<Socket>> {
        // A client that is gone already is none, and leaves its permit for the next.
        let (io, peer) = Socket::new(fd).ok()?;
        let mut permit = self.permits.pop()?;
        permit.counted = counted;
        Some(Accepted { io, peer, speech, at, permit })
    }

    /// Takes what the thread has laid down.
    fn handed(&mut self) -> Option<Accepted<Socket>> {
        while let Some(Handed { fd, speech, at, counted, .. }) = self.shared.as_ref()?.pick_up() {
            self.is_granted = false;
            let accepted = self.accepted(fd, speech, Instant::from_std(at), counted);
            if accepted.is_some() {
                return accepted;
            }
        }
        None
    }

    /// Lets the thread take connections; waits for a permit if there is none.
    fn poll_grant(
        &mut self,
        cx: &mut Context<'_>,
        permits: &Rc<Permits>,
    ) -> Poll<Result<(), AcceptError>> {
        if self.permits.is_empty() {
            self.permits.push(ready!(permits.poll_take(cx)));
        }
        while self.permits.len() < AHEAD
            && let Some(permit) = permits.take_spare()
        {
            self.permits.push(permit);
        }
        self.is_granted = true;
        let granted =
            self.shared.as_ref().map_or(Ok(()), |shared| shared.grant(self.permits.len()));
        Poll::Ready(granted.map_err(AcceptError::Acceptor))
    }

    /// Takes what waits in the queues, on the loop itself: the thread has ended.
    fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        permits: &Rc<Permits>,
    ) -> Poll<Result<Option<Accepted<Socket>>, AcceptError>> {
        while let Some(linger) = &mut self.linger {
            ready!(linger.poll_look(cx));
            if let Some(accepted) = self.look(permits)? {
                return Poll::Ready(Ok(Some(accepted)));
            }
            self.next = 0;
            self.linger.take_if(|linger| !linger.wants_another());
        }
        self.permits.clear();
        self.shared = None;
        Poll::Ready(Ok(None))
    }

    /// One look into each queue; `None` when all are empty.
    fn look(&mut self, permits: &Rc<Permits>) -> Result<Option<Accepted<Socket>>, AcceptError> {
        let Some(shared) = self.shared.clone() else { return Ok(None) };
        while let Some(listener) = shared.listeners.get(self.next) {
            if self.permits.is_empty() {
                self.permits.extend(permits.take());
            }
            match take(&listener.fd) {
                // Nobody else will come for these clients: one that has no place here is told so.
                Taken::Socket(fd) if self.permits.is_empty() => {
                    metrics::REJECTED.with(["overload"]).inc();
                    refuse(fd, listener.speech);
                }
                Taken::Socket(fd) => {
                    if let Some(accepted) = self.accepted(fd, listener.speech, Instant::now(), None)
                    {
                        return Ok(Some(accepted));
                    }
                }
                Taken::Next => {}
                // Without descriptors nothing more can be taken; those clients are refused with the listener's end.
                Taken::Nothing | Taken::Exhausted => self.next += 1,
                Taken::Broken(errno) => {
                    return Err(AcceptError::Listener(errno.into()));
                }
            }
        }
        Ok(None)
    }
}

impl Accept for Exclusive {
    type Io = Socket;

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        permits: &Rc<Permits>,
    ) -> Poll<Result<Option<Accepted<Socket>>, AcceptError>> {
        loop {
            let ended = self.ended.poll_recv(cx);
            if let Some(accepted) = self.handed() {
                return Poll::Ready(Ok(Some(accepted)));
            }
            match ended {
                Poll::Ready(Some(error)) => return Poll::Ready(Err(AcceptError::Listener(error))),
                Poll::Ready(None) if self.queue.is_some() => return self.poll_rest(cx, permits),
                Poll::Ready(None) => {
                    return Poll::Ready(Err(AcceptError::Acceptor(io::Error::other(
                        "the thread has ended",
                    ))));
                }
                Poll::Pending if !self.is_granted && self.queue.is_none() => {
                    ready!(self.poll_grant(cx, permits))?;
                }
                Poll::Pending => {
                    let ready = ready!(self.table.poll_read_ready(cx));
                    ready.map_err(AcceptError::Acceptor)?.clear_ready();
                }
            }
        }
    }

    fn pause(&mut self) {
        self.wish(Wish::Pause);
    }

    fn resume(&mut self) {
        self.wish(Wish::Accept);
    }

    fn finish(&mut self, queue: Queue) {
        self.queue = Some(queue);
        self.linger = (queue == Queue::Empty).then(Linger::begin);
        self.wish(Wish::End);
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        self.wish(Wish::End);
    }
}

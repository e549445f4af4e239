//! Accepting on a thread of its own, with `EPOLLEXCLUSIVE`: one wake-up, one worker, one accept, one hand-over.
//!
//! The loop grants the thread one connection at a time, and has a permit when it does. So a loop that is busy or hung
//! holds at most one connection it has not looked at.
//!
//! A client's request comes a moment after its connection. So the thread lays the connection down where the loop finds it,
//! and does not wake the loop for it: its request does, or a timer when it is silent for longer than that moment.

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

use super::linger::Linger;
use super::reserve::refuse;
use super::socket::Socket;
use super::{Accept, AcceptError, Accepted, Listener, Permit, Permits, Queue, Speech, Taken, take};
use crate::heartbeat::Beat;
use crate::metrics;
use crate::readiness::watch;
use thread::{Acceptor, Shared, Wish};

/// The default source on Linux.
pub(crate) struct Exclusive {
    /// Also owns the listeners; given up with them.
    shared: Option<Arc<Shared>>,
    /// Ready when there is something to do for what was laid down.
    table: AsyncFd<OwnedFd>,
    /// Why the thread has ended; closed when it was to.
    ended: mpsc::Receiver<io::Error>,
    permit: Option<Permit>,
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
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(Arc::clone(listeners))?);
        let table = watch(shared.table.0.try_clone()?)?;
        let (sender, ended) = mpsc::channel(1);
        Acceptor::new(Arc::clone(&shared), sender, beat, slot).start()?;
        Ok(Self {
            shared: Some(shared),
            table,
            ended,
            permit: None,
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

    fn accepted(&mut self, fd: OwnedFd, speech: Speech) -> Option<Accepted<Socket>> {
        // A client that is gone already is none, and leaves its permit for the next.
        let (io, peer) = Socket::new(fd).ok()?;
        Some(Accepted { io, peer, speech, at: Instant::now(), permit: self.permit.take()? })
    }

    /// Takes what the thread has laid down.
    fn handed(&mut self) -> Option<Accepted<Socket>> {
        let (fd, speech) = self.shared.as_ref()?.pick_up()?;
        self.is_granted = false;
        self.accepted(fd, speech)
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
        self.permit = None;
        self.shared = None;
        Poll::Ready(Ok(None))
    }

    /// One look into each queue; `None` when all are empty.
    fn look(&mut self, permits: &Rc<Permits>) -> Result<Option<Accepted<Socket>>, AcceptError> {
        let Some(shared) = self.shared.clone() else { return Ok(None) };
        while let Some(listener) = shared.listeners.get(self.next) {
            if self.permit.is_none() {
                self.permit = permits.take();
            }
            match take(&listener.fd) {
                // Nobody else will come for these clients: one that has no place here is told so.
                Taken::Socket(fd) if self.permit.is_none() => {
                    metrics::REJECTED.with(["overload"]).inc();
                    refuse(fd, listener.speech);
                }
                Taken::Socket(fd) => {
                    if let Some(accepted) = self.accepted(fd, listener.speech) {
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
            if !self.is_granted && self.queue.is_none() {
                if self.permit.is_none() {
                    self.permit = Some(ready!(permits.poll_take(cx)));
                }
                if let Some(shared) = &self.shared {
                    shared.grant().map_err(AcceptError::Acceptor)?;
                }
                self.is_granted = true;
            }
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
                // What lay there was a client that is gone.
                Poll::Pending if !self.is_granted && self.queue.is_none() => {}
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

//! Accepting by the runtime's own readiness: one accept a poll, permit first.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use saola_observability::Slot;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, Sleep};

use super::linger::Linger;
use super::reserve::{Reserve, refuse};
use super::socket::Socket;
use super::{Accept, AcceptError, Accepted, Listener, Permit, Permits, Queue, Speech, Taken, take};
use crate::metrics;
use crate::readiness::watch;

/// The fallback source, also where `EPOLLEXCLUSIVE` is refused.
pub(crate) struct Tokio {
    listeners: Vec<(AsyncFd<OwnedFd>, Speech)>,
    next: usize,
    permit: Option<Permit>,
    is_paused: bool,
    is_over: bool,
    /// While the queues are being emptied.
    linger: Option<Linger>,
    pause: Option<std::pin::Pin<Box<Sleep>>>,
    reserve: Reserve,
}

impl Tokio {
    pub(crate) fn new(listeners: Vec<Listener>, slot: &'static Slot) -> io::Result<Self> {
        let listeners = listeners
            .into_iter()
            .map(|listener| Ok((watch(listener.fd)?, listener.speech)))
            .collect::<io::Result<_>>()?;
        let (permit, pause) = (None, None);
        Ok(Self {
            listeners,
            next: 0,
            permit,
            is_paused: false,
            is_over: false,
            linger: None,
            pause,
            reserve: Reserve::new(slot),
        })
    }

    /// Goes round the listeners once, so that a busy one does not starve the others.
    fn poll_listeners(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<(OwnedFd, Speech)>, AcceptError>> {
        for _ in 0..self.listeners.len() {
            self.next = (self.next + 1).checked_rem(self.listeners.len()).unwrap_or(0);
            let Some((listener, speech)) = self.listeners.get(self.next) else { break };
            loop {
                let mut readiness = match listener.poll_read_ready(cx) {
                    Poll::Ready(readiness) => Some(readiness.map_err(AcceptError::Acceptor)?),
                    // Readiness is learnt late; when the queue is being emptied the queue itself is asked.
                    Poll::Pending if self.linger.is_some() => None,
                    Poll::Pending => break,
                };
                match take(listener.get_ref()) {
                    // Nobody else will come for these clients: one that has no place here is told so.
                    Taken::Socket(socket) if self.permit.is_none() => {
                        metrics::REJECTED.with(["overload"]).inc();
                        refuse(socket, *speech);
                    }
                    Taken::Socket(socket) => {
                        self.reserve.eases();
                        return Poll::Ready(Ok(Some((socket, *speech))));
                    }
                    Taken::Next => {}
                    Taken::Nothing => match &mut readiness {
                        Some(readiness) => readiness.clear_ready(),
                        None => break,
                    },
                    Taken::Exhausted => {
                        let pause = self.reserve.exhausted(listener.get_ref(), *speech);
                        self.pause = Some(Box::pin(tokio::time::sleep(pause)));
                        return Poll::Ready(Ok(None));
                    }
                    Taken::Broken(errno) => {
                        return Poll::Ready(Err(AcceptError::Listener(errno.into())));
                    }
                }
            }
        }
        let Some(linger) = &mut self.linger else { return Poll::Pending };
        self.is_over = !linger.wants_another();
        Poll::Ready(Ok(None))
    }
}

impl Accept for Tokio {
    type Io = Socket;

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        permits: &Rc<Permits>,
    ) -> Poll<Result<Option<Accepted<Socket>>, AcceptError>> {
        loop {
            if self.is_over {
                self.listeners.clear();
                return Poll::Ready(Ok(None));
            }
            if self.is_paused {
                return Poll::Pending;
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            if let Some(linger) = &mut self.linger {
                ready!(linger.poll_look(cx));
            }
            if self.permit.is_none() {
                self.permit = match &self.linger {
                    Some(_) => permits.take(),
                    None => Some(ready!(permits.poll_take(cx))),
                };
            }
            let Some((fd, speech)) = ready!(self.poll_listeners(cx))? else { continue };
            // A client that is gone already is none.
            let Ok((io, peer)) = Socket::new(fd) else { continue };
            if let Some(permit) = self.permit.take() {
                let at = Instant::now();
                return Poll::Ready(Ok(Some(Accepted { io, peer, speech, at, permit })));
            }
        }
    }

    fn pause(&mut self) {
        self.is_paused = true;
    }

    fn resume(&mut self) {
        self.is_paused = false;
    }

    fn finish(&mut self, queue: Queue) {
        self.is_paused = false;
        match queue {
            Queue::Leave => self.is_over = true,
            Queue::Empty => self.linger = Some(Linger::begin()),
        }
    }
}

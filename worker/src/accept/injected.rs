//! Connections handed in by a test.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Accept, AcceptError, Accepted, Permit, Permits, Queue, Speech, Stream};

/// A source of streams from a channel, such as the ends of `tokio::io::duplex`.
#[derive(Debug)]
pub struct Injected<I> {
    streams: mpsc::UnboundedReceiver<I>,
    speech: Speech,
    permit: Option<Permit>,
    is_paused: bool,
    is_over: bool,
}

impl<I> Injected<I> {
    /// Makes the source and the end that feeds it.
    pub fn channel(speech: Speech) -> (mpsc::UnboundedSender<I>, Self) {
        let (sender, streams) = mpsc::unbounded_channel();
        (sender, Self { streams, speech, permit: None, is_paused: false, is_over: false })
    }
}

impl<I: Stream + 'static> Accept for Injected<I> {
    type Io = I;

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        permits: &Rc<Permits>,
    ) -> Poll<Result<Option<Accepted<I>>, AcceptError>> {
        if self.is_over {
            return Poll::Ready(Ok(None));
        }
        if self.is_paused {
            return Poll::Pending;
        }
        if self.permit.is_none() {
            self.permit = Some(ready!(permits.poll_take(cx)));
        }
        let Some(io) = ready!(self.streams.poll_recv(cx)) else { return Poll::Ready(Ok(None)) };
        let (at, speech) = (Instant::now(), self.speech);
        let permit = self.permit.take();
        Poll::Ready(Ok(permit.map(|permit| Accepted { io, peer: None, speech, at, permit })))
    }

    fn pause(&mut self) {
        self.is_paused = true;
    }

    fn resume(&mut self) {
        self.is_paused = false;
    }

    fn finish(&mut self, queue: Queue) {
        self.is_paused = false;
        self.is_over = queue == Queue::Leave || self.streams.is_empty();
        self.streams.close();
    }
}

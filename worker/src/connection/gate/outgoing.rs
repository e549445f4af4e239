//! What hyper writes: it passes, and is noted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::super::scratch::gathered;
use super::Gate;
use crate::accept::Stream;

impl<I: Stream> AsyncWrite for Gate<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.upgraded(cx)?;
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.noted(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        if polled.is_pending() {
            // TLS keeps what the kernel does not take.
            self.connection.blocked(&self.io);
        }
        ready!(polled)?;
        // hyper flushes when it has handed over everything.
        self.connection.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_finish(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = &mut self.io;
        let polled = match gathered(parts, |bytes| Pin::new(&mut *io).poll_write(cx, bytes)) {
            Some(polled) => polled,
            None => Pin::new(io).poll_write_vectored(cx, parts),
        };
        self.noted(polled)
    }
}

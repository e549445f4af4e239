//! The stream of a connection as hyper wants it for upgrades: `Send`, though it never leaves its thread.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use fragile::Fragile;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that panics when it is used on another thread than the one it was made on.
pub(super) struct Anchored<I>(Fragile<I>);

impl<I: Unpin> Anchored<I> {
    pub(super) fn new(io: I) -> Self {
        Self(Fragile::new(io))
    }

    fn io(self: Pin<&mut Self>) -> Pin<&mut I> {
        Pin::new(self.get_mut().0.get_mut())
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Anchored<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Anchored<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.get().is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io().poll_write_vectored(cx, parts)
    }
}

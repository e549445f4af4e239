//! The stream of a connection as hyper wants it for upgrades: `Send`, though it never leaves its thread.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use fragile::Fragile;
use hyper::rt::{Read, ReadBufCursor, Write};

use super::gate::Gate;
use crate::accept::Stream;

/// A gate that panics when it is used on another thread than the one it was made on.
pub(super) struct Anchored<I: Stream>(Fragile<Gate<I>>);

impl<I: Stream> Anchored<I> {
    pub(super) fn new(gate: Gate<I>) -> Self {
        Self(Fragile::new(gate))
    }

    fn gate(self: Pin<&mut Self>) -> Pin<&mut Gate<I>> {
        Pin::new(self.get_mut().0.get_mut())
    }
}

impl<I: Stream> Read for Anchored<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.gate().poll_read(cx, out)
    }
}

impl<I: Stream> Write for Anchored<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.gate().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gate().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gate().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.get().is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.gate().poll_write_vectored(cx, parts)
    }
}

//! An accepted socket, TCP or unix, with the options of W20.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::sys::socket::{
    AddressFamily, SockaddrLike, SockaddrStorage, getsockname, setsockopt, sockopt,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::request::scope::Peer;

/// The stream of a connection.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Registers a connected non-blocking socket with the runtime.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<(Self, Peer)> {
        let local = getsockname::<SockaddrStorage>(fd.as_raw_fd())?;
        if local.family() == Some(AddressFamily::Unix) {
            let stream = UnixStream::from_std(std::os::unix::net::UnixStream::from(fd))?;
            return Ok((Self::Unix(stream), Peer::default()));
        }
        options(&fd);
        let stream = TcpStream::from_std(std::net::TcpStream::from(fd))?;
        let peer = stream.peer_addr()?;
        Ok((Self::Tcp(stream), Peer { address: Some(peer.ip().to_canonical()), port: peer.port() }))
    }
}

/// Failing options are ignored: the connection works without them, only less well.
fn options(fd: &impl AsFd) {
    let fd = &fd.as_fd();
    let _ = setsockopt(fd, sockopt::TcpNoDelay, &true);
    let _ = setsockopt(fd, sockopt::KeepAlive, &true);
    let _ = setsockopt(fd, sockopt::TcpKeepIdle, &60);
    let _ = setsockopt(fd, sockopt::TcpKeepInterval, &10);
    let _ = setsockopt(fd, sockopt::TcpKeepCount, &6);
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel has the bytes after a write; there is nothing of ours to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }
}

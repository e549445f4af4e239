//! An accepted socket, TCP or unix, with the options of W20.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::libc::linger;
use nix::sys::socket::{
    AddressFamily, SockaddrLike, SockaddrStorage, getsockname, getsockopt, setsockopt, sockopt,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::Stream;

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
    pub(crate) fn new(fd: OwnedFd) -> io::Result<(Self, Option<SocketAddr>)> {
        let local = getsockname::<SockaddrStorage>(fd.as_raw_fd())?;
        if local.family() == Some(AddressFamily::Unix) {
            let stream = UnixStream::from_std(std::os::unix::net::UnixStream::from(fd))?;
            return Ok((Self::Unix(stream), None));
        }
        options(&fd);
        let stream = TcpStream::from_std(std::net::TcpStream::from(fd))?;
        let peer = stream.peer_addr()?;
        Ok((Self::Tcp(stream), Some(peer)))
    }
}

/// Failing options are ignored: the connection works without them, only less well.
fn options(fd: &impl AsFd) {
    // More than a little unsent is the client's debt, and does not belong into the kernel's memory.
    let _ = socket2::SockRef::from(fd).set_tcp_notsent_lowat(131_072);
    let fd = &fd.as_fd();
    let _ = setsockopt(fd, sockopt::TcpNoDelay, &true);
    let _ = setsockopt(fd, sockopt::KeepAlive, &true);
    let _ = setsockopt(fd, sockopt::TcpKeepIdle, &60);
    let _ = setsockopt(fd, sockopt::TcpKeepInterval, &10);
    let _ = setsockopt(fd, sockopt::TcpKeepCount, &6);
}

impl Stream for Socket {
    fn unacknowledged(&self) -> u64 {
        unacknowledged(self.as_fd().as_raw_fd())
    }

    fn segment(&self) -> u64 {
        match self {
            Self::Tcp(_) => getsockopt(self, sockopt::TcpMaxSeg).map_or(0, u64::from),
            // A unix socket gives memory back buffer by buffer.
            Self::Unix(_) => 65_536,
        }
    }

    fn owner(&self) -> Option<(u32, i32)> {
        let Self::Unix(stream) = self else { return None };
        let owner = stream.peer_cred().ok()?;
        // A process of another namespace has no number here.
        Some((owner.uid(), owner.pid().unwrap_or(0)))
    }

    fn abort_on_close(&self) {
        // A failure leaves an orderly close, and the kernel's own patience with the rest.
        let _ = setsockopt(self, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 });
    }
}

nix::ioctl_read_bad!(
    /// `SIOCOUTQ`, which has the number of `TIOCOUTQ`.
    siocoutq,
    nix::libc::TIOCOUTQ,
    nix::libc::c_int
);

/// A socket that cannot tell owes nothing, so nobody is cut off for it.
#[expect(unsafe_code, reason = "nix has the ioctl, but no safe function for it")]
fn unacknowledged(fd: RawFd) -> u64 {
    let mut bytes = 0;
    // SAFETY: ioctl_tty(2): TIOCOUTQ writes one int. The pointer is to an int of this function, which lives through the
    // call; the descriptor is a socket that the caller keeps open, and a wrong one would only be an error.
    let asked = unsafe { siocoutq(fd, &raw mut bytes) };
    asked.ok().and_then(|_| u64::try_from(bytes).ok()).unwrap_or(0)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
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

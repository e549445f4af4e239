//! What a connection needs of its stream besides reading and writing.

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

/// The stream of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Bytes that were written and that the other end has not acknowledged. A stream that cannot tell says 0.
    fn unacknowledged(&self) -> u64 {
        0
    }

    /// The least that the other end acknowledges at once while it has no room, in bytes. A stream that cannot tell says 0.
    fn segment(&self) -> u64 {
        0
    }

    /// User and process at the other end, where the kernel knows them. A stream that cannot tell says nothing.
    fn owner(&self) -> Option<(u32, i32)> {
        None
    }

    /// Has the coming close throw away what the other end does not take.
    fn abort_on_close(&self) {}
}

impl Stream for DuplexStream {}

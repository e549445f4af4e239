//! Where bytes are read to while nobody knows what they are, and small pieces gathered: one buffer a thread, so that a silent
//! connection owns none.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 32_768].into_boxed_slice());
}

/// Reads what there is and fits. `Ok(0)` is the end of the stream.
pub(super) fn poll_scratch<I: AsyncRead + Unpin>(
    io: &mut I,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

/// Looks at the bytes that were read last, so many as there were.
pub(super) fn scratched<T>(count: usize, look: impl FnOnce(&[u8]) -> T) -> T {
    SCRATCH.with_borrow(|scratch| look(scratch.get(..count).unwrap_or_default()))
}

/// Writes what is in small pieces as one: `send` costs the kernel less than `writev`. `None` when there is too much of it.
pub(super) fn gathered<T>(parts: &[IoSlice<'_>], write: impl FnOnce(&[u8]) -> T) -> Option<T> {
    if parts.len() < 2 || parts.iter().map(|part| part.len()).sum::<usize>() > SMALL {
        return None;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        let mut end = 0;
        for part in parts {
            scratch.get_mut(end..end + part.len())?.copy_from_slice(part);
            end += part.len();
        }
        scratch.get(..end).map(write)
    })
}

/// Bytes that are faster copied once more than handed over in pieces.
const SMALL: usize = 2048;

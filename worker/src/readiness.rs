//! A descriptor that the runtime watches for input.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime, which then owns it.
#[expect(
    unsafe_code,
    reason = "tokio cannot check what any AsRawFd promises; OwnedFd does promise it"
)]
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor must stay open, the same, and always named the same while it is registered. An OwnedFd owns
    // it until dropped and cannot change it, and it is dropped only together with the AsyncFd.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(Into::into)
}

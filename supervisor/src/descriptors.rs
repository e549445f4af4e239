//! Descriptors that came over `fork` or `execve`, and the errors of the system as numbers.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// The number of an error of the system; `EIO` for one that has none.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// A copy, closed on exec, of a descriptor that was inherited.
#[expect(unsafe_code, reason = "a number from outside is to become a descriptor")]
pub(crate) fn copy_descriptor(number: RawFd) -> nix::Result<OwnedFd> {
    if number < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: borrow_raw wants a descriptor that stays open while borrowed: what was inherited is closed by nobody here,
    // and one that is not open makes the call below fail with EBADF, before anything is done to it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned().map_err(|error| errno_of(&error))
}

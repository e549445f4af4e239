//! Waiting at a word in shared memory until another process wakes who waits there: futex(2), which has no wrapper.
//!
//! Not `FUTEX_PRIVATE`: waiter and waker are different processes, each with its own mapping.

use std::io;
use std::time::Duration;

use nix::libc;

use crate::sync::AtomicU32;

/// Wakes everybody who waits at a word.
#[expect(unsafe_code, reason = "futex(2) has no wrapper")]
pub(crate) fn wake(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE asks for an aligned 32-bit address and does not dereference it. The reference is one.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Waits at a word while it has this value, at most so long.
#[expect(unsafe_code, reason = "futex(2) has no wrapper")]
pub(crate) fn wait(word: &AtomicU32, value: u32, timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let (address, timeout) = (word.as_ptr(), &raw const timeout);
    // SAFETY: FUTEX_WAIT asks for an aligned 32-bit address that stays mapped and a timespec that lives through the call: the
    // reference outlives it, and the timespec is on this stack.
    let result =
        unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAIT, value, timeout) };
    if result == -1 {
        // EAGAIN: woken already. ETIMEDOUT: time to look. EINTR: as good. Each ends the wait, which is all we want.
        let _ = io::Error::last_os_error();
    }
}

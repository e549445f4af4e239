//! The bell: one futex word in the supervisor's slot file, by which a worker wakes a sleeping observer (F60).
//!
//! While the observer is awake a request makes no system call for it: it only looks at the word.

use std::io;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::Duration;

use nix::libc;

use crate::layout::BELL_AT;
use crate::map::Map;

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// The bell's page, mapped by the one who rings or by the one who sleeps.
pub(crate) struct Bell {
    map: Map,
}

impl Bell {
    pub(crate) fn new(map: Map) -> Self {
        Self { map }
    }

    /// Leaves its page out of children: each maps it afresh.
    pub(crate) fn keep_from_children(&self) -> io::Result<()> {
        self.map.keep_from_children()
    }

    /// A writer has published. Wakes the observer if it sleeps.
    pub(crate) fn ring(&self) {
        // Pairs with the fence of `set`: either we see it asleep, or it sees our head.
        fence(SeqCst);
        let word = self.map.half(BELL_AT);
        if word.load(Relaxed) == ASLEEP && word.swap(AWAKE, SeqCst) == ASLEEP {
            wake(word.as_ptr());
        }
    }

    /// The observer is going to sleep: whoever publishes from now on rings. It looks at all heads once more before it does,
    /// against the lost wake-up.
    pub(crate) fn set(&self) {
        self.map.half(BELL_AT).store(ASLEEP, SeqCst);
        fence(SeqCst);
    }

    /// Returns when somebody has rung since [`Self::set`], or after `timeout`; says whether somebody has.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let word = self.map.half(BELL_AT);
        sleep(word.as_ptr(), ASLEEP, timeout);
        word.load(SeqCst) == AWAKE
    }

    /// The observer is awake: nobody needs to ring.
    pub(crate) fn clear(&self) {
        self.map.half(BELL_AT).store(AWAKE, SeqCst);
    }
}

#[expect(
    unsafe_code,
    reason = "futex(2) has no wrapper; not FUTEX_PRIVATE: the waiter is another process"
)]
fn wake(word: *mut u32) {
    // SAFETY: FUTEX_WAKE asks for an aligned 32-bit address and does not dereference it. The caller's mapping is alive.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX) };
}

#[expect(
    unsafe_code,
    reason = "futex(2) has no wrapper; not FUTEX_PRIVATE: the waker is another process"
)]
fn sleep(word: *mut u32, state: u32, timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: FUTEX_WAIT asks for an aligned 32-bit address that stays mapped and a timespec that lives through the call:
    // the caller's mapping is alive and the timespec is on this stack.
    let result = unsafe {
        libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, state, &raw const timeout)
    };
    if result == -1 {
        // EAGAIN: rung already. ETIMEDOUT: time to look. EINTR: as good. Each ends the wait, which is all we want.
        let _ = io::Error::last_os_error();
    }
}

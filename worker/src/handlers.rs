//! The two signal handlers of a worker. Both do async-signal-safe things only, because the loop may be stuck anywhere.
//!
//! TERM: wakes the loop, and sets an alarm for a loop that does not wake (S57). SIGRTMIN+1: sends the addresses of the
//! loop's stack to the supervisor (S37).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};
use saola_observability::profile::stack;

/// Where the handlers find what they need. Set once, before they are installed.
static CHANNEL: AtomicI32 = AtomicI32::new(-1);
static BELL: AtomicI32 = AtomicI32::new(-1);
static ALARM_SECONDS: AtomicU32 = AtomicU32::new(0);
static STACK_END: AtomicUsize = AtomicUsize::new(0);

/// Installs both; the answer becomes readable when TERM has come. `channel` must stay open as long as the process lives.
pub(crate) fn install(channel: &OwnedFd, longest_drain: Duration) -> io::Result<EventFd> {
    let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    CHANNEL.store(channel.as_raw_fd(), Relaxed);
    BELL.store(bell.as_raw_fd(), Relaxed);
    let seconds = u32::try_from(longest_drain.as_secs().saturating_add(1)).unwrap_or(u32::MAX);
    ALARM_SECONDS.store(seconds, Relaxed);
    STACK_END.store(stack::end(), Relaxed);
    handle(libc::SIGTERM, on_term)?;
    handle(libc::SIGRTMIN() + 1, on_dump)?;
    Ok(bell)
}

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

#[expect(unsafe_code, clippy::as_conversions, reason = "nix cannot handle real-time signals")]
fn handle(signal: libc::c_int, handler: Handler) -> io::Result<()> {
    // SAFETY: all zeros are a valid sigaction: no handler, an empty mask, no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: sigaction(2) reads the struct, which lives here. What the handlers do is allowed in handlers; they say so.
    let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

#[expect(unsafe_code, reason = "alarm and write, both async-signal-safe")]
extern "C" fn on_term(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let errno = Errno::last_raw();
    // SAFETY: alarm(2) has no preconditions. SIGALRM is at its default, which ends the process.
    unsafe { libc::alarm(ALARM_SECONDS.load(Relaxed)) };
    let one = 1_u64.to_ne_bytes();
    // SAFETY: write(2) reads eight bytes that are on this stack; a closed bell is an error and no harm.
    unsafe { libc::write(BELL.load(Relaxed), one.as_ptr().cast(), one.len()) };
    Errno::set_raw(errno);
}

#[expect(unsafe_code, reason = "getpid, gettid, tgkill and send, all async-signal-safe")]
extern "C" fn on_dump(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let errno = Errno::last_raw();
    // SAFETY: no preconditions.
    let pid = unsafe { libc::getpid() };
    // SAFETY: as above.
    let thread = unsafe { libc::gettid() };
    if thread == pid {
        let mut text = Text::new();
        let mut left = MOST_FRAMES;
        stack::walk(context.cast_const().cast(), STACK_END.load(Relaxed), |address| {
            text.push_address(address);
            left -= 1;
            left > 0
        });
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let (bytes, length) = (text.bytes.as_ptr().cast(), text.length);
        // SAFETY: send(2) reads `length` bytes of the array, which are initialised; a closed channel is an error, no harm.
        unsafe { libc::send(CHANNEL.load(Relaxed), bytes, length, flags) };
    } else {
        // A thread of the blocking pool was hit: the loop's thread is the one that is meant.
        // SAFETY: tgkill(2) takes three integers; the main thread lives as long as the process.
        unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, signal) };
    }
    Errno::set_raw(errno);
}

/// `stack 55d0… 55d1…`, written without the allocator.
struct Text {
    bytes: [u8; 6 + MOST_FRAMES * 17],
    length: usize,
}

impl Text {
    fn new() -> Self {
        let mut text = Self { bytes: [0; 6 + MOST_FRAMES * 17], length: 0 };
        b"stack".iter().for_each(|byte| text.push(*byte));
        text
    }

    fn push_address(&mut self, address: usize) {
        self.push(b' ');
        let mut is_leading = true;
        for nibble in (0..16).rev() {
            let digit = (address >> (nibble * 4)) & 0xf;
            is_leading &= digit == 0 && nibble > 0;
            if !is_leading {
                self.push(b"0123456789abcdef".get(digit).copied().unwrap_or(b'?'));
            }
        }
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }
}

const MOST_FRAMES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_in_hex_and_never_beyond_the_end() {
        let mut text = Text::new();
        text.push_address(0xdead_0042);
        text.push_address(0);
        assert_eq!(text.bytes.get(..text.length), Some(&b"stack dead0042 0"[..]));
        for _ in 0..1_000 {
            text.push_address(usize::MAX);
        }
        assert_eq!(text.length, text.bytes.len());
    }
}

//! The handler of SIGPROF: one sample, written into the ring of the slot. No lock, no allocation, no system call (O56).

use std::cell::Cell;
use std::io;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::gettid;

use super::stack;
use crate::clock::monotonic_ns;
use crate::ids::{SpanId, TraceId};
use crate::in_flight::{entry, label};
use crate::layout::long;
use crate::samples::{MOST_FRAMES, Sample};
use crate::slot::Slot;

/// Where samples go. Set before the handler is installed: then `get` is one load.
static SLOT: OnceLock<&'static Slot> = OnceLock::new();

thread_local! {
    // Without destructors or lazy starts, like the label's word.
    static STACK_END: Cell<usize> = const { Cell::new(0) };
    static THREAD: Cell<i32> = const { Cell::new(0) };
}

/// Lets this thread's stack be followed.
pub(super) fn know_thread() {
    STACK_END.set(stack::end());
    THREAD.set(gettid().as_raw());
}

pub(super) fn install(slot: &'static Slot) -> io::Result<()> {
    // A process has one slot; whoever asks again means the same.
    SLOT.get_or_init(|| slot);
    handle(SigHandler::SigAction(on_sample)).map_err(io::Error::from)
}

pub(super) fn ignore() {
    // Signals of a timer that is deleted may still be on their way; that they cannot be ignored never happens.
    let _ = handle(SigHandler::SigIgn);
}

#[expect(unsafe_code, reason = "nix cannot know which handlers are sound")]
fn handle(handler: SigHandler) -> nix::Result<()> {
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESTART | SaFlags::SA_ONSTACK;
    let action = SigAction::new(handler, flags, SigSet::empty());
    // SAFETY: sigaction(2) wants a handler that is safe to run in a signal context. SIG_IGN runs no code; the other one
    // says below what it does.
    unsafe { sigaction(Signal::SIGPROF, &action) }.map(drop)
}

/// Async-signal-safe: it reads thread-locals that need no start, words of its own stack within its bounds, and two
/// clocks through the vdso, and writes words of a mapping that is never unmapped.
extern "C" fn on_sample(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let errno = Errno::last_raw();
    if let Some(slot) = SLOT.get()
        && let Some(overruns) = overruns(info)
    {
        take(slot, overruns, context.cast_const().cast());
    }
    Errno::set_raw(errno);
}

fn take(slot: &'static Slot, overruns: u32, context: *const libc::ucontext_t) {
    let start_ns = monotonic_ns();
    let label = label::current();
    let (trace, span, route) = label.map_or((TraceId::NONE, SpanId::NONE, 0), entry::label);
    let mut sample = Sample {
        time_ns: start_ns,
        span,
        trace,
        route,
        weight: overruns.saturating_add(1),
        thread: u32::try_from(THREAD.get()).unwrap_or(0),
        image: slot.image(),
        depth: 0,
        is_cut: false,
        frames: [0; MOST_FRAMES],
    };
    stack::walk(context, STACK_END.get(), |pc| {
        let Some(frame) = sample.frames.get_mut(usize::from(sample.depth)) else {
            sample.is_cut = true;
            return false;
        };
        *frame = long(pc);
        sample.depth += 1;
        true
    });
    if slot.push_sample(&sample)
        && let Some(words) = label
    {
        entry::count_sample(words);
    }
    slot.add_handler_ns(monotonic_ns().saturating_sub(start_ns));
}

/// How often the timer fired besides this time; `None` if it was not a timer: somebody's `kill -PROF`.
#[expect(unsafe_code, reason = "siginfo_t is a union, of which libc names only some parts")]
fn overruns(info: *const libc::siginfo_t) -> Option<u32> {
    /// The head of `siginfo_t` as a POSIX timer fills it (sigaction(2): `si_timerid`, `si_overrun`).
    #[repr(C, align(8))]
    struct OfTimer {
        signal: libc::c_int,
        errno: libc::c_int,
        code: libc::c_int,
        padding: libc::c_int,
        timer: libc::c_int,
        overrun: libc::c_int,
    }
    // SAFETY: with SA_SIGINFO the kernel hands a valid siginfo_t of 128 bytes, aligned to 8, whose first 24 bytes are
    // these six integers on every 64-bit machine.
    let info = unsafe { info.cast::<OfTimer>().as_ref() }?;
    (info.code == libc::SI_TIMER).then(|| u32::try_from(info.overrun).unwrap_or(0))
}

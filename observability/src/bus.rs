//! What a process does when another one truncates a slot file that it has mapped: it goes on, in memory of its own (F57a).
//!
//! A touch of a page that a mapping has and its file no longer has is SIGBUS. The handler here puts zero pages over the
//! whole mapping if the address lies in one of ours, marks the mapping as lost and returns: the touch is repeated and the
//! process lives. Every other SIGBUS goes to whoever handled it before.

use std::num::NonZeroUsize;
use std::ptr::fn_addr_eq;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

/// Mappings that are watched at once; further ones are not, and their SIGBUS is fatal as it would be without this file.
const MOST: usize = 4_096;

/// One watched mapping. `length` is stored last and is 0 in a free place.
struct Watched {
    start: AtomicUsize,
    length: AtomicUsize,
    /// Processes inherit this table over a fork, but not the mappings: an entry counts for the one that made it.
    process: AtomicU32,
    lost: AtomicU32,
}

static WATCHED: [Watched; MOST] = [const {
    Watched {
        start: AtomicUsize::new(0),
        length: AtomicUsize::new(0),
        process: AtomicU32::new(0),
        lost: AtomicU32::new(0),
    }
}; MOST];

/// The process that has installed the handler: a child may have been given back the system's action before it maps anything.
static INSTALLED: Mutex<u32> = Mutex::new(0);
/// The action before ours, in this process.
static BEFORE: AtomicPtr<SigAction> = AtomicPtr::new(std::ptr::null_mut());

/// Keeps a mapping watched. It is dropped before the mapping is.
pub(crate) struct Watch {
    place: Option<&'static Watched>,
}

impl Watch {
    /// Watches a mapping, and installs the handler the first time in each process.
    pub(crate) fn new(start: *const u8, length: usize) -> Self {
        let process = std::process::id();
        install(process);
        let place = WATCHED.iter().find(|place| place.take(process));
        if let Some(place) = place {
            place.lost.store(0, Relaxed);
            place.start.store(start.addr(), Relaxed);
            place.length.store(length, Release);
        }
        Self { place }
    }

    /// Says whether the file was cut under the mapping, which is private memory since.
    pub(crate) fn is_lost(&self) -> bool {
        self.place.is_some_and(|place| place.lost.load(Acquire) != 0)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            place.length.store(0, Release);
            place.process.store(0, Release);
        }
    }
}

impl Watched {
    /// Takes a free place, or one of another process: after a fork those are the parent's, in a copy of this table.
    fn take(&self, process: u32) -> bool {
        let owner = self.process.load(Relaxed);
        owner != process
            && self.process.compare_exchange(owner, process, Acquire, Relaxed).is_ok()
            && {
                self.length.store(0, Release);
                true
            }
    }

    fn holds(&self, address: usize, process: u32) -> bool {
        let length = self.length.load(Acquire);
        let start = self.start.load(Relaxed);
        self.process.load(Relaxed) == process && address.wrapping_sub(start) < length
    }
}

fn install(process: u32) {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed == process {
        return;
    }
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
    let before = set(&SigAction::new(SigHandler::SigAction(OURS), flags, SigSet::empty()));
    let before = before.unwrap_or_else(|_| default_action());
    // A child that has kept the handler over its fork has kept what stood before it, too.
    let is_kept = matches!(before.handler(), SigHandler::SigAction(it) if fn_addr_eq(it, OURS));
    if !is_kept {
        BEFORE.store(Box::into_raw(Box::new(before)), Release);
    }
    *installed = process;
}

/// The handler that had the signal before ours, if any was installed.
fn before() -> Option<SigHandler> {
    #[expect(unsafe_code, reason = "a handler may take no lock")]
    // SAFETY: `as_ref` asks for null or a live value that nobody changes. Only `install` stores here, with release, and never
    // frees what it has stored.
    let before = unsafe { BEFORE.load(Acquire).as_ref() };
    before.map(SigAction::handler)
}

#[expect(unsafe_code, reason = "a handler is the only way to outlive a cut file")]
fn set(action: &SigAction) -> nix::Result<SigAction> {
    // SAFETY: sigaction(2) asks for a handler that keeps to signal-safety(7): ours calls getpid, mmap and, for what is not
    // ours, sigaction, raise or the handler before it, and else only atomics. It runs on the alternate stack that std gives
    // the main and every spawned thread; on a thread made otherwise it runs on that thread's own.
    unsafe { sigaction(Signal::SIGBUS, action) }
}

fn default_action() -> SigAction {
    SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty())
}

const OURS: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;

extern "C" fn on_bus_error(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let errno = Errno::last();
    if !fault_address(info).is_some_and(is_repaired) {
        hand_on(signal, info, context);
    }
    errno.set();
}

/// The address of a fault; none for a signal that somebody sent.
#[expect(unsafe_code, reason = "the kernel hands a pointer to the handler")]
fn fault_address(info: *mut libc::siginfo_t) -> Option<usize> {
    // SAFETY: `as_ref` asks for null or a valid value: with SA_SIGINFO the kernel passes a siginfo_t of the handler's frame.
    let info = unsafe { info.as_ref() }?;
    if info.si_code <= 0 {
        return None; // SI_USER and its like
    }
    // SAFETY: `si_addr` asks for a signal of the kernel's that has an address: SIGBUS with a positive code has one.
    let address = unsafe { info.si_addr() };
    Some(address.addr())
}

/// Puts zero pages over the mapping that holds the address, if it is one of ours.
fn is_repaired(address: usize) -> bool {
    let process = std::process::id();
    let Some(place) = WATCHED.iter().find(|place| place.holds(address, process)) else {
        return false;
    };
    let length = NonZeroUsize::new(place.length.load(Relaxed));
    let start = NonZeroUsize::new(place.start.load(Relaxed));
    let is_mapped = start.zip(length).is_some_and(|(start, length)| cover(start, length));
    place.lost.store(1, Release);
    is_mapped
}

#[expect(unsafe_code, reason = "the mapping must keep its address: others hold references into it")]
fn cover(start: NonZeroUsize, length: NonZeroUsize) -> bool {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED | MapFlags::MAP_NORESERVE;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: mmap(2) with MAP_FIXED replaces what is mapped there, so the range must be the caller's: it is exactly one
    // mapping of this process that `Watch` was given and that is not unmapped yet. All accesses to it are atomic loads and
    // stores, for which zero pages are as valid as the file's.
    unsafe { mmap_anonymous(Some(start), length, access, flags) }.is_ok()
}

/// Does with a signal that is not ours what would have been done without us.
fn hand_on(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    match before() {
        Some(SigHandler::Handler(before)) => before(signal),
        Some(SigHandler::SigAction(before)) => before(signal, info, context),
        Some(SigHandler::SigIgn) if fault_address(info).is_none() => {}
        Some(SigHandler::SigDfl | SigHandler::SigIgn) | None => {
            // The signal is blocked until the handler returns; then it ends the process, as it would have.
            let _ = set(&default_action());
            let _ = raise(Signal::SIGBUS);
        }
    }
}

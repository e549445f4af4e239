//! Which request a thread works for: one thread-local word, set while a request is polled, read by the signal handler.
//!
//! It points at the first words of an entry of the in-flight table, which hold all that a sample wants to know (F39). One
//! word: the handler sees the old or the new one, never a mixture.

use std::cell::Cell;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, compiler_fence};

/// Words of an entry that the handler reads: the last one holds its count of samples.
pub(crate) const LABEL_WORDS: usize = 9;
type Words = [AtomicU64; LABEL_WORDS];

thread_local! {
    // No destructor and no lazy start: the handler may read it at any instant.
    static WORD: Cell<*const Words> = const { Cell::new(std::ptr::null()) };
}

/// The request that samples are taken for.
#[derive(Copy, Clone, Debug)]
pub struct Label(pub(crate) &'static Words);

/// A copy of a label, for work on another thread that may outlast the request. Its samples are not in the request's own
/// count.
#[derive(Debug)]
pub struct OwnLabel(Box<Words>);

impl Label {
    /// Takes samples of this thread for the request until the guard is dropped, also by unwinding. Guards nest.
    pub fn enter(self) -> Entered<'static> {
        enter(self.0)
    }

    /// What another thread may work under.
    pub fn to_own(self) -> OwnLabel {
        OwnLabel(Box::new(self.0.each_ref().map(|word| AtomicU64::new(word.load(Relaxed)))))
    }
}

impl OwnLabel {
    /// As [`Label::enter`].
    pub fn enter(&self) -> Entered<'_> {
        enter(&self.0)
    }
}

/// Takes samples of this thread for nobody until the guard is dropped.
pub fn enter_none() -> Entered<'static> {
    Entered { before: replace(std::ptr::null()), label: std::marker::PhantomData }
}

/// While it lives, samples of this thread are taken for a request. Stays on its thread.
#[derive(Debug)]
#[must_use]
pub struct Entered<'l> {
    before: *const Words,
    label: std::marker::PhantomData<&'l Words>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        replace(self.before);
    }
}

fn enter(words: &Words) -> Entered<'_> {
    Entered { before: replace(words), label: std::marker::PhantomData }
}

fn replace(words: *const Words) -> *const Words {
    // The handler runs on this thread: it is the compiler alone that might move the work across the store.
    compiler_fence(SeqCst);
    let before = WORD.replace(words);
    compiler_fence(SeqCst);
    before
}

/// The words of the request that this thread works for, inside the handler.
#[expect(unsafe_code, reason = "a pointer that another function of this thread keeps valid")]
pub(crate) fn current<'h>() -> Option<&'h Words> {
    // SAFETY: the pointer is null or that of a label which the guard borrows: the guard puts the former one back before
    // what it borrows can go. A guard that is leaked borrows for ever. The reference does not leave the handler, which
    // returns before its thread goes on.
    unsafe { WORD.get().as_ref() }
}

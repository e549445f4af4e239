//! The kernel's side of a futex: it compares and waits under one lock. It knows no timeout, so a lost wake-up is a deadlock,
//! which loom finds.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use loom::sync::{Condvar, Mutex};

use crate::sync::AtomicU32;

loom::lazy_static! {
    static ref KERNEL: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
}

pub(crate) fn wake(_: &AtomicU32) {
    let _guard = KERNEL.0.lock().unwrap();
    KERNEL.1.notify_all();
}

pub(crate) fn wait(word: &AtomicU32, value: u32, _: Duration) {
    let guard = KERNEL.0.lock().unwrap();
    if word.load(SeqCst) == value {
        drop(KERNEL.1.wait(guard).unwrap());
    }
}

//! The atomics of what threads and processes share. A module of its own, so that the models (`tests/models`) can run the same
//! code with atomics that take every value which the memory model allows.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, fence};
pub(crate) use std::thread::yield_now;

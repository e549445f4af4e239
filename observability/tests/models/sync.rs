//! Loom's atomics, of a thread that may die: from its last store on nothing that it does is seen by others.

use std::cell::Cell;
use std::sync::atomic::Ordering;

pub(crate) use loom::hint::spin_loop;
use loom::sync::atomic;
pub(crate) use loom::sync::atomic::fence;
pub(crate) use loom::thread::yield_now;

loom::thread_local! {
    /// Stores that the thread has left to live for.
    static LEFT: Cell<u32> = Cell::new(u32::MAX);
}

/// Lets the calling thread die after so many stores. It goes on, but what it does is not seen: as a killed process.
pub(crate) fn die_after(stores: u32) {
    LEFT.with(|left| left.set(stores));
}

/// From now on the calling thread stands for another, who is well.
pub(crate) fn be_another() {
    die_after(u32::MAX);
}

fn is_dead() -> bool {
    LEFT.with(|left| {
        let stores = left.get();
        left.set(stores.saturating_sub(u32::from(stores != u32::MAX)));
        stores == 0
    })
}

macro_rules! atomic {
    ($name:ident, $number:ty) => {
        pub(crate) struct $name(atomic::$name);

        #[expect(dead_code, reason = "not each of them is asked for everything")]
        impl $name {
            pub(crate) fn new(value: $number) -> Self {
                Self(atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $number {
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $number, order: Ordering) {
                if !is_dead() {
                    self.0.store(value, order);
                }
            }

            pub(crate) fn swap(&self, value: $number, order: Ordering) -> $number {
                self.0.swap(value, order)
            }

            pub(crate) fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                self.0.fetch_add(value, order)
            }

            pub(crate) fn fetch_max(&self, value: $number, order: Ordering) -> $number {
                self.0.fetch_max(value, order)
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $number,
                new: $number,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$number, $number> {
                self.0.compare_exchange(current, new, success, failure)
            }

            pub(crate) fn compare_exchange_weak(
                &self,
                current: $number,
                new: $number,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$number, $number> {
                self.0.compare_exchange_weak(current, new, success, failure)
            }

            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                update: impl FnMut($number) -> Option<$number>,
            ) -> Result<$number, $number> {
                self.0.fetch_update(set, fetch, update)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);

//! A static that is set after the fork and read without a lock.

use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

/// A reference that lives for ever, or none; any thread may read it while another sets it.
pub(crate) struct StaticRef<T: 'static>(AtomicPtr<T>);

impl<T> StaticRef<T> {
    pub(crate) const fn empty() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&'static T> {
        let pointer = self.0.load(Acquire);
        #[expect(
            unsafe_code,
            reason = "a static that is set after the fork must be read without a lock"
        )]
        // SAFETY: `as_ref` asks for null or a pointer to a live, initialised value that nobody changes. Only `set` stores
        // here, from a `&'static T`, with release; the load above acquires. The value is never freed.
        unsafe {
            pointer.as_ref()
        }
    }

    pub(crate) fn set(&self, value: &'static T) {
        self.0.store(ptr::from_ref(value).cast_mut(), Release);
    }

    pub(crate) fn clear(&self) {
        self.0.store(ptr::null_mut(), Release);
    }
}

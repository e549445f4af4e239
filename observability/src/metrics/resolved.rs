//! The cells of one label set in this process: what a handle points at.

use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

use crate::keys::{Family, GaugeMode};
use crate::layout::wide;
use crate::metrics::is_owner;
use crate::series::Found;
use crate::slot::Slot;

/// A reference that lives for ever, or none; any thread may read it while another sets it.
pub(crate) struct StaticRef<T: 'static>(AtomicPtr<T>);

impl<T> StaticRef<T> {
    pub(crate) const fn empty() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

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

/// The cells of one label set. Leaked: handles are `Copy` and valid for the life of the process.
pub(crate) struct Resolved {
    slot: &'static Slot,
    /// The owner's cells.
    pub(crate) own: &'static [AtomicU64],
    pub(crate) bounds: &'static [f64],
    /// Offset of the record that names them.
    key: u32,
    /// Offset in the file of the cells of all other threads, once they are made.
    foreign: AtomicU32,
    pub(crate) mode: GaugeMode,
    is_overflow: bool,
}

impl Resolved {
    /// Finds or makes the cells of a label set in the slot of this process; a refusal is counted there.
    pub(crate) fn find(family: &Family<'static>, values: &[&str]) -> Option<Self> {
        let slot = super::current()?;
        slot.find(family, values).map(|found| Self::of(slot, family, found))
    }

    /// Finds or makes the cells of a family without labels.
    pub(crate) fn alone(family: &Family<'static>) -> Option<&'static Self> {
        Some(Self::find(family, &[])?.leak())
    }

    fn of(slot: &'static Slot, family: &Family<'static>, found: Found) -> Self {
        let words = crate::keys::words_of(family.kind, family.mode, family.bounds.len());
        Self {
            slot,
            own: slot.map.words(found.offset, words),
            bounds: family.bounds,
            key: found.key,
            foreign: AtomicU32::new(0),
            mode: family.mode,
            is_overflow: found.overflow,
        }
    }

    pub(crate) fn leak(self) -> &'static Self {
        Box::leak(Box::new(self))
    }

    /// Whether these are the overflow cells of the family, found in place of others.
    pub(crate) fn is_overflow(&self) -> bool {
        self.is_overflow
    }

    /// The owner's cells, if an update is nothing but a store there: one that is counted as refused by the limit is more.
    pub(crate) fn plain(&self) -> &'static [AtomicU64] {
        if self.is_overflow { &[] } else { self.own }
    }

    /// The cells of all threads but the owner, if they are made.
    fn known_foreign(&self) -> Option<&'static [AtomicU64]> {
        let offset = self.foreign.load(Acquire);
        (offset != 0).then(|| self.slot.map.words(wide(offset), self.own.len()))
    }

    /// The cells that this thread may write, and whether it does so alone; none when there is no space for them. Counts an
    /// update that goes to the overflow series.
    #[inline(never)]
    pub(crate) fn writable(&self) -> Option<(&'static [AtomicU64], bool)> {
        self.count_overflow();
        if is_owner() { Some((self.own, true)) } else { Some((self.foreign()?, false)) }
    }

    /// The cells of all threads but the owner, made at their first use; a refusal is counted.
    pub(crate) fn foreign(&self) -> Option<&'static [AtomicU64]> {
        self.known_foreign().or_else(|| {
            let found = self.slot.find_foreign(self.key)?;
            self.foreign.store(u32::try_from(found.offset).ok()?, Release);
            self.known_foreign()
        })
    }

    /// Counts an update if it goes to the overflow series because the limit refused one of its own.
    pub(crate) fn count_overflow(&self) {
        if self.is_overflow {
            self.slot.count(crate::layout::UPDATES_LIMIT_AT);
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn count_invalid(&self) {
        self.slot.count(crate::layout::UPDATES_INVALID_AT);
    }
}

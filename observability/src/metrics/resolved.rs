//! The cells of one label set in this process: what a handle points at.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64};

use crate::keys::Family;
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
    family: Family<'static>,
    values: Vec<String>,
    /// The owner's cells.
    pub(crate) own: &'static [AtomicU64],
    /// The cells of all other threads, made at their first update: plain stores and atomic ones never meet.
    foreign: OnceLock<&'static [AtomicU64]>,
}

impl Resolved {
    /// Finds or makes the cells of a family without labels.
    pub(crate) fn alone(family: Family<'static>) -> Option<&'static Self> {
        Some(Place::find(&family, &[])?.resolve(family, &[]))
    }

    /// The cells for a thread that is not the owner; none when there is no space for them, which is counted.
    #[inline(never)]
    pub(crate) fn foreign(&self) -> Option<&'static [AtomicU64]> {
        self.foreign.get().copied().or_else(|| self.make_foreign())
    }

    /// Adds to the one cell that all other threads share.
    #[inline]
    pub(crate) fn add_foreign(&self, add: impl FnOnce(&AtomicU64)) {
        if let Some([cell, ..]) = self.foreign.get().copied().or_else(|| self.make_foreign()) {
            add(cell);
        }
    }

    #[cold]
    #[inline(never)]
    fn make_foreign(&self) -> Option<&'static [AtomicU64]> {
        let values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        let found = self.slot.find(&self.family, &values, true)?;
        Some(self.foreign.get_or_init(|| self.slot.map.words(found.offset, self.own.len())))
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn count_invalid(&self) {
        self.slot.count(crate::layout::UPDATES_INVALID_AT);
    }

    pub(crate) fn bounds(&self) -> &'static [f64] {
        self.family.bounds
    }

    pub(crate) fn kind(&self) -> crate::keys::CellKind {
        self.family.kind
    }

    pub(crate) fn mode(&self) -> crate::keys::GaugeMode {
        self.family.mode
    }
}

/// Where the cells of a label set stand in the slot of this process.
pub(crate) struct Place {
    slot: &'static Slot,
    found: Found,
}

impl Place {
    /// Finds or makes the cells; a refusal, and a label set beyond the limit, are counted in the slot.
    pub(crate) fn find(family: &Family<'_>, values: &[&str]) -> Option<Self> {
        let slot = super::current()?;
        slot.find(family, values, false).map(|found| Self { slot, found })
    }

    /// Whether these are the overflow cells of the family.
    pub(crate) fn is_overflow(&self) -> bool {
        self.found.overflow
    }

    /// Keeps them for the life of the process. `values` are those of the cells.
    pub(crate) fn resolve(&self, family: Family<'static>, values: &[&str]) -> &'static Resolved {
        let words = crate::keys::words_of(family.kind, family.mode, family.bounds.len());
        Box::leak(Box::new(Resolved {
            slot: self.slot,
            family,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            own: self.slot.map.words(self.found.offset, words),
            foreign: OnceLock::new(),
        }))
    }
}

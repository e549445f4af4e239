//! Where one label set stands in the slot of this process: what a handle is made of.

use std::sync::atomic::AtomicU64;

use crate::cells::exemplar::{self, EXEMPLAR_WORDS};
use crate::cells::histogram;
use crate::cells::search::Search;
use crate::keys::{CellKind, Family, GaugeMode};
use crate::layout::{long, size, wide};
use crate::metrics::is_own;
use crate::metrics::places::{HASH_SHIFT, Places};
use crate::series::Found;
use crate::slot::Slot;

/// A family in the slot of this process: what all its label sets have in common. Leaked: handles are `Copy` and valid for
/// the life of the process.
pub(crate) struct Home {
    slot: &'static Slot,
    /// The whole file of the slot.
    file: &'static [AtomicU64],
    family: Family<'static>,
    /// Words of one label set.
    words: usize,
    /// Where among them the exemplars begin, if it is a histogram that keeps them.
    exemplars: Option<usize>,
    /// The bounds of a histogram; of other kinds nothing.
    pub(crate) search: &'static Search,
    /// Where the cells of other threads stand, by the key of the owner's.
    foreign: Places,
}

/// One label set of a family, found. Two words, so that it goes from function to function in registers.
#[derive(Copy, Clone)]
pub(crate) struct Resolved {
    pub(crate) home: &'static Home,
    place: Place,
}

/// Where a label set stands in the file: its key and its cells, both as numbers of words, and room for a part of its hash.
#[derive(Copy, Clone)]
pub(crate) struct Place(u64);

const OFFSET_BITS: u32 = HASH_SHIFT / 2;
const _: () = assert!(crate::layout::FILE_BYTES / 8 <= 1 << OFFSET_BITS);
/// These are the overflow cells of the family, found in place of others. Never in a table, which needs the bit for its hash.
const OVERFLOW: u64 = 1 << 63;

impl Place {
    fn of(found: &Found) -> Self {
        let overflow = if found.overflow { OVERFLOW } else { 0 };
        Self(overflow | long(wide(found.key) / 8) << OFFSET_BITS | long(found.offset / 8))
    }

    /// The place and the upper bits of a hash in one word.
    pub(crate) fn with_hash(self, hash: u64) -> u64 {
        hash >> HASH_SHIFT << HASH_SHIFT | self.0
    }

    #[inline]
    pub(crate) fn without_hash(word: u64) -> Self {
        Self(word & ((1 << HASH_SHIFT) - 1))
    }

    /// Offset of the record in the key region that names the cells.
    fn key(self) -> usize {
        size(self.0 >> OFFSET_BITS & ((1 << OFFSET_BITS) - 1)) * 8
    }

    /// Number of the first of the cells among the words of the file.
    #[inline]
    fn cells(self) -> usize {
        size(self.0 & ((1 << OFFSET_BITS) - 1))
    }

    #[inline]
    fn is_overflow(self) -> bool {
        self.0 & OVERFLOW != 0
    }
}

/// For handles and families that have no buckets.
pub(crate) static NO_BOUNDS: Search = Search::of(&[]);

impl Home {
    /// Where the label sets of a family are looked for, in the slot of this process.
    pub(crate) fn new(family: Family<'static>) -> Option<&'static Self> {
        let slot = super::current()?;
        let words = crate::keys::words_of(family.kind, family.mode, family.bounds.len());
        let search: &Search = match family.bounds {
            [] => &NO_BOUNDS,
            bounds => Box::leak(Box::new(Search::of(bounds))),
        };
        let file = slot.map.words(0, slot.map.length() / 8);
        let foreign = Places::new();
        let exemplars = (family.kind == CellKind::ExemplarHistogram)
            .then(|| histogram::exemplars_at(family.bounds.len() + 1));
        let home = Self { slot, file, family, words, exemplars, search, foreign };
        Some(Box::leak(Box::new(home)))
    }

    /// Finds or makes the cells of a label set; a refusal is counted.
    pub(crate) fn find(&'static self, values: &[&str]) -> Option<Resolved> {
        let found = self.slot.find(&self.family, values)?;
        Some(Resolved { home: self, place: Place::of(&found) })
    }

    /// The label set of a place.
    #[inline]
    pub(crate) fn at(&'static self, place: Place) -> Resolved {
        Resolved { home: self, place }
    }

    #[inline]
    fn cells(&self, place: Place) -> &'static [AtomicU64] {
        let start = place.cells();
        &self.file[start..start + self.words]
    }

    /// Number of a histogram's buckets.
    pub(crate) fn buckets(&self) -> usize {
        self.family.bounds.len() + 1
    }

    pub(crate) fn mode(&self) -> GaugeMode {
        self.family.mode
    }
}

impl Resolved {
    /// Finds or makes the cells of a family without labels.
    pub(crate) fn alone(family: Family<'static>) -> Option<Self> {
        Home::new(family)?.find(&[])
    }

    /// Where it stands. None for the overflow cells, which stand for many label sets.
    pub(crate) fn place(self) -> Option<Place> {
        Some(self.place).filter(|place| !place.is_overflow())
    }

    /// The owner's cells.
    #[inline]
    pub(crate) fn own(self) -> &'static [AtomicU64] {
        self.home.cells(self.place)
    }

    /// The owner's exemplar of a bucket, which is one of this histogram's; none if it keeps none.
    #[inline]
    pub(crate) fn own_exemplar(self, bucket: usize) -> Option<&'static exemplar::Words> {
        let start = self.place.cells() + self.home.exemplars? + bucket * EXEMPLAR_WORDS;
        self.home.file.get(start..)?.first_chunk()
    }

    /// The first of them.
    #[inline]
    pub(crate) fn first(self) -> &'static AtomicU64 {
        &self.home.file[self.place.cells()]
    }

    /// Whether an update is more than its stores, for every thread: it is counted as refused by the limit.
    #[inline]
    pub(crate) fn is_overflow(self) -> bool {
        self.place.is_overflow()
    }

    /// The cells that this thread may write, and whether it does so alone; none when there is no space for them. Counts an
    /// update that goes to the overflow series.
    #[inline(never)]
    pub(crate) fn writable(self) -> Option<(&'static [AtomicU64], bool)> {
        self.count_overflow();
        if is_own(self.first()) { Some((self.own(), true)) } else { Some((self.foreign()?, false)) }
    }

    /// The cells of all threads but the owner, made at their first use; a refusal is counted.
    pub(crate) fn foreign(self) -> Option<&'static [AtomicU64]> {
        let Home { slot, foreign, .. } = self.home;
        let key = self.place.key();
        // Keys are numbered by words: near ones fall into near places, and two never into one.
        let hash = long(key / 8) << HASH_SHIFT;
        let known = foreign.find(hash, |word| Place::without_hash(word).key() == key);
        if let Some(word) = known {
            return Some(self.home.cells(Place::without_hash(word)));
        }
        let made = slot.find_foreign(key)?.offset;
        let place = Place(long(key / 8) << OFFSET_BITS | long(made / 8));
        foreign.insert(place.with_hash(hash));
        Some(self.home.cells(place))
    }

    /// Counts an update if it goes to the overflow series because the limit refused one of its own.
    pub(crate) fn count_overflow(self) {
        if self.place.is_overflow() {
            self.home.slot.count(crate::layout::UPDATES_LIMIT_AT);
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn count_invalid(self) {
        self.home.slot.count(crate::layout::UPDATES_INVALID_AT);
    }
}

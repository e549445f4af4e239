//! The owner's side of keys and values: finds the cells of a label set, or makes them (F15, F21, F22, F55).

use std::fs::File;
use std::hash::BuildHasher;
use std::sync::atomic::Ordering::{Relaxed, Release};

use hashbrown::HashTable;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use rustc_hash::FxHashMap;

use crate::cells::exemplar;
use crate::cells::histogram::{self, Histogram};
use crate::cells::settle_last;
use crate::clock::monotonic_ns;
use crate::keys::{
    CellKind, Damaged, Family, FamilyKey, Key, SeriesKey, Walk, family_bytes, label_text,
    raw_values, series_bytes, string_bytes,
};
use crate::layout::{
    EPOCH_AT, KEYS_ALLOCATED_AT, KEYS_LENGTH_AT, LINE, SERIES_AT, STEP, Section, Sections,
    VALUES_ALLOCATED_AT, VALUES_LENGTH_AT, long, size, wide,
};
use crate::map::Map;
use crate::record::encode::cut;

/// Label sets a family may have in one slot; further ones are counted in its overflow series.
pub(crate) const SERIES_LIMIT: usize = 1_000;
/// Bytes of a label value that are kept.
pub(crate) const LONGEST_VALUE: usize = 256;
/// Interned strings of one slot, and bytes of each that are kept.
const MOST_STRINGS: usize = 2_048;
const LONGEST_STRING: usize = 128;
/// What a label value that has no place of its own is called.
pub(crate) const OTHER: &str = "other";

/// Why an update has no cells to go to.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Refusal {
    /// The file system or the region is full; asked again after a second.
    NoSpace,
    /// A family of that name with another definition is in the slot.
    Conflict,
}

/// Cells that were found or made.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Found {
    /// Byte offset of the first word in the file.
    pub(crate) offset: usize,
    /// Offset of the record in the key region that names them.
    pub(crate) key: u32,
    /// Whether this is the overflow series: each update counts as refused by the limit.
    pub(crate) overflow: bool,
}

/// The mapped file that an owner grows.
#[derive(Copy, Clone)]
pub(crate) struct Place<'s> {
    pub(crate) map: &'s Map,
    pub(crate) file: &'s File,
    pub(crate) sections: &'s Sections,
}

/// What the owner knows of its own keys; private memory, rebuilt by each new owner.
#[derive(Default)]
pub(crate) struct Series {
    families: FxHashMap<String, Known>,
    /// Offsets of the records of all series; what they say is read in the file.
    known: HashTable<u32>,
    strings: FxHashMap<String, u32>,
    not_before_ns: u64,
}

struct Known {
    offset: u32,
    key: FamilyKey,
    series: usize,
}

impl Series {
    /// Rebuilds the index from the file and finishes what a dead owner left half done (F24).
    pub(crate) fn take_over(place: Place<'_>) -> Result<Self, Damaged> {
        let mut series = Self::default();
        let mut names = FxHashMap::default();
        let length = place.map.load(KEYS_LENGTH_AT);
        let mut walk = Walk::new(place.map, place.sections.keys, 0, length);
        while let Some((at, key)) = walk.next()? {
            let offset = u32::try_from(at).map_err(|_| Damaged { at })?;
            match key {
                Key::Family(key) => {
                    names.insert(offset, key.name.clone());
                    series.families.insert(key.name.clone(), Known { offset, key, series: 0 });
                }
                Key::String(text) => _ = series.strings.insert(text.to_owned(), offset),
                Key::Series(key) => {
                    let name = names.get(&key.family).ok_or(Damaged { at })?;
                    let family = series.families.get_mut(name).ok_or(Damaged { at })?;
                    family.series += usize::from(!key.foreign);
                    let cells = absolute(place.sections.values, key.value, family.key.words())
                        .ok_or(Damaged { at })?;
                    settle(place.map, &family.key, cells);
                    series.remember(place, offset, key);
                }
            }
        }
        Ok(series)
    }

    /// The cells of a label set, made if they are new.
    pub(crate) fn find(
        &mut self,
        place: Place<'_>,
        family: &Family<'_>,
        values: &[&str],
    ) -> Result<Found, Refusal> {
        let offset = self.family(place, family)?;
        let values: Vec<&str> = values.iter().map(|value| cut(value, LONGEST_VALUE)).collect();
        let raw = raw_values(&values);
        if let Some(found) = self.look_up(place, offset, false, &raw) {
            return Ok(found);
        }
        if self.families.get(family.name).is_some_and(|known| known.series > SERIES_LIMIT) {
            let others = raw_values(&vec![OTHER; values.len()]);
            let found = self.look_up(place, offset, false, &others).ok_or(Refusal::NoSpace)?;
            return Ok(Found { overflow: true, ..found });
        }
        let labels = &*label_text(family.labels, &values);
        let key = SeriesKey { family: offset, value: 0, foreign: false, labels, raw: &raw };
        self.make(place, family.name, key)
    }

    /// The cells of the same label set that all threads but the owner write: made at their first update, so that plain
    /// stores and atomic ones never meet.
    pub(crate) fn find_foreign(&mut self, place: Place<'_>, own: usize) -> Result<Found, Refusal> {
        let found = series_at(place, own, |key| {
            if let Some(found) = self.look_up(place, key.family, true, key.raw) {
                return Ok(found);
            }
            let family = self.families.iter().find(|(_, known)| known.offset == key.family);
            let name = family.map(|(name, _)| name.clone()).ok_or(Refusal::NoSpace)?;
            self.make(place, &name, SeriesKey { foreign: true, ..key })
        });
        found.unwrap_or(Err(Refusal::NoSpace))
    }

    /// The id of a string: its offset in the key region, 0 = `other` when there is no room for it (F23).
    pub(crate) fn string(&mut self, place: Place<'_>, text: &str) -> u32 {
        let text = cut(text, LONGEST_STRING);
        if let Some(id) = self.strings.get(text) {
            return *id;
        }
        if self.strings.len() >= MOST_STRINGS {
            return 0;
        }
        let Some(bytes) = string_bytes(text) else { return 0 };
        let Ok(at) = self.append(place, &bytes) else { return 0 };
        self.strings.insert(text.to_owned(), at);
        at
    }

    fn family(&mut self, place: Place<'_>, family: &Family<'_>) -> Result<u32, Refusal> {
        if let Some(known) = self.families.get(family.name) {
            let offset = known.offset;
            if !known.key.is(family) {
                return Err(Refusal::Conflict);
            }
            return self.with_overflow(place, family, offset);
        }
        let bytes = family_bytes(family).ok_or(Refusal::NoSpace)?;
        let offset = self.append(place, &bytes)?;
        let key = FamilyKey {
            name: family.name.to_owned(),
            help: family.help.to_owned(),
            kind: family.kind,
            mode: family.mode,
            labels: family.labels.iter().map(|label| (*label).to_owned()).collect(),
            bounds: family.bounds.to_vec(),
        };
        self.families.insert(family.name.to_owned(), Known { offset, key, series: 0 });
        self.with_overflow(place, family, offset)
    }

    /// Makes the overflow series together with its family, so that there is always a place for one label set too many. Asked
    /// each time: the owner may have died, or the space may have ended, between the two.
    fn with_overflow(
        &mut self,
        place: Place<'_>,
        family: &Family<'_>,
        offset: u32,
    ) -> Result<u32, Refusal> {
        if family.labels.is_empty() {
            return Ok(offset);
        }
        let others = vec![OTHER; family.labels.len()];
        let raw = raw_values(&others);
        if self.look_up(place, offset, false, &raw).is_none() {
            let labels = &*label_text(family.labels, &others);
            let key = SeriesKey { family: offset, value: 0, foreign: false, labels, raw: &raw };
            self.make(place, family.name, key)?;
        }
        Ok(offset)
    }

    /// Cells first, then the key that names them.
    fn make(
        &mut self,
        place: Place<'_>,
        family: &str,
        mut key: SeriesKey<'_>,
    ) -> Result<Found, Refusal> {
        let words = self.families.get(family).map_or(1, |known| known.key.words());
        key.value = self.reserve(place, words)?;
        let bytes = series_bytes(&key).ok_or(Refusal::NoSpace)?;
        let at = self.append(place, &bytes)?;
        self.remember(place, at, key);
        if let Some(known) = self.families.get_mut(family) {
            known.series += usize::from(!key.foreign);
        }
        place.map.store(SERIES_AT, place.map.load(SERIES_AT).wrapping_add(1));
        let offset = place.sections.values.offset + wide(key.value);
        Ok(Found { offset, key: at, overflow: false })
    }

    /// A series that is in the file.
    fn look_up(&self, place: Place<'_>, family: u32, foreign: bool, raw: &[u8]) -> Option<Found> {
        let value_of = |key: SeriesKey<'_>| {
            let is_it = (key.family, key.foreign) == (family, foreign) && key.raw == raw;
            is_it.then_some(key.value)
        };
        let mut value = None;
        let known = self.known.find(hash(family, foreign, raw), |at| {
            value = series_at(place, wide(*at), value_of).flatten();
            value.is_some()
        });
        let offset = place.sections.values.offset + wide(value?);
        known.map(|key| Found { offset, key: *key, overflow: false })
    }

    fn remember(&mut self, place: Place<'_>, at: u32, key: SeriesKey<'_>) {
        // Only a damaged file says nothing of what it held.
        let again = |at: &u32| series_at(place, wide(*at), hash_of).unwrap_or(0);
        self.known.insert_unique(hash_of(key), at, again);
    }

    /// Zeroed cells behind the last; published by `value_len` before any key names them.
    fn reserve(&mut self, place: Place<'_>, words: usize) -> Result<u32, Refusal> {
        let at = self.room(place, &VALUES, words * 8)?;
        for word in place.map.words(place.sections.values.offset + at, words) {
            word.store(0, Relaxed);
        }
        place.map.word(VALUES_LENGTH_AT).store(long(at + words * 8), Release);
        u32::try_from(at).map_err(|_| Refusal::NoSpace)
    }

    fn append(&mut self, place: Place<'_>, bytes: &[u8]) -> Result<u32, Refusal> {
        let before = size(place.map.load(KEYS_LENGTH_AT)).max(LINE);
        let at = self.room(place, &KEYS, bytes.len())?;
        if at != before && !before.is_multiple_of(STEP) {
            // The rest of the step stays empty; a dead writer may have left bytes there, so say it.
            place.map.store(place.sections.keys.offset + before, 0);
        }
        place.map.copy_in(place.sections.keys.offset + at, bytes);
        place.map.word(KEYS_LENGTH_AT).store(long(at + bytes.len()), Release);
        u32::try_from(at).map_err(|_| Refusal::NoSpace)
    }

    /// Where `bytes` fit behind the last, in allocated space, without crossing the end of a step.
    fn room(&mut self, place: Place<'_>, region: &Region, bytes: usize) -> Result<usize, Refusal> {
        let section = (region.section)(place.sections);
        let length = size(place.map.load(region.length_at)).max(LINE);
        let left = STEP - length % STEP;
        let at = if length.is_multiple_of(STEP) {
            length + LINE
        } else if left < bytes {
            length + left + LINE
        } else {
            length
        };
        while size(place.map.load(region.allocated_at)) < at + bytes {
            self.grow(place, section, region.allocated_at)?;
        }
        Ok(at)
    }

    fn grow(
        &mut self,
        place: Place<'_>,
        section: Section,
        allocated_at: usize,
    ) -> Result<(), Refusal> {
        let allocated = size(place.map.load(allocated_at));
        if allocated + STEP > section.capacity || monotonic_ns() < self.not_before_ns {
            return Err(Refusal::NoSpace);
        }
        if allocate(place.file, section.offset + allocated, STEP).is_err() {
            self.not_before_ns = monotonic_ns() + 1_000_000_000;
            return Err(Refusal::NoSpace);
        }
        let at = section.offset + allocated;
        place.map.store(at, sentinel(place.map.load(EPOCH_AT), at));
        place.map.word(allocated_at).store(long(allocated + STEP), Release);
        Ok(())
    }
}

/// What the record of a series says, at an offset of the key region where this process has met it.
fn series_at<T>(place: Place<'_>, at: usize, read: impl FnOnce(SeriesKey<'_>) -> T) -> Option<T> {
    let end = place.map.load(KEYS_LENGTH_AT);
    match Walk::new(place.map, place.sections.keys, at, end).next() {
        Ok(Some((_, Key::Series(key)))) => Some(read(key)),
        Ok(Some((_, Key::Family(_) | Key::String(_))) | None) | Err(_) => None,
    }
}

fn hash_of(key: SeriesKey<'_>) -> u64 {
    hash(key.family, key.foreign, key.raw)
}

fn hash(family: u32, foreign: bool, raw: &[u8]) -> u64 {
    rustc_hash::FxBuildHasher.hash_one((family, foreign, raw))
}

/// The first word of each step of keys and values: it tells a file that was truncated and grown again (F57a).
pub(crate) fn sentinel(epoch: u64, at: usize) -> u64 {
    epoch ^ long(at)
}

/// Gives a range of the file its blocks, so that no store into it can meet a full file system.
pub(crate) fn allocate(file: &File, offset: usize, bytes: usize) -> Result<(), Errno> {
    let start = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
    let length = i64::try_from(bytes).map_err(|_| Errno::EFBIG)?;
    loop {
        match fallocate(file, FallocateFlags::empty(), start, length) {
            Err(Errno::EINTR) => {}
            Err(Errno::EOPNOTSUPP) => return write_zeros(file, offset, bytes),
            done => return done,
        }
    }
}

/// What [`allocate`] does where the file system cannot.
fn write_zeros(file: &File, offset: usize, bytes: usize) -> Result<(), Errno> {
    use std::os::unix::fs::FileExt;
    let zeros = vec![0; bytes];
    file.write_all_at(&zeros, long(offset))
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

/// The byte offset in the file of cells, if they lie inside the value region.
pub(crate) fn absolute(values: Section, value: u32, words: usize) -> Option<usize> {
    let start = wide(value);
    let end = start.checked_add(words.checked_mul(8)?)?;
    (start.is_multiple_of(8) && start >= LINE && end <= values.capacity)
        .then(|| values.offset + start)
}

/// What a new owner does to the cells of a dead one: live gauges begin at 0, and what its threads had locked is free.
fn settle(map: &Map, family: &FamilyKey, cells: usize) {
    use crate::keys::GaugeMode::{Last, LiveMax, LiveMin, LiveSum, PerWorker};
    match (family.kind, family.mode) {
        (CellKind::Histogram | CellKind::ExemplarHistogram, _) => {
            let (words, buckets) = (map.words(cells, family.words()), family.bounds.len() + 1);
            if let Some(histogram) = Histogram::of(words, buckets) {
                histogram.unlock();
            }
            let exemplars = (0..buckets).filter_map(|at| histogram::exemplar(words, buckets, at));
            exemplars.for_each(exemplar::settle);
        }
        (CellKind::Gauge, Last) => settle_last(map.words(cells, family.words())),
        (CellKind::Gauge, LiveSum | LiveMax | LiveMin | PerWorker) => map.store(cells, 0),
        (CellKind::CounterU64 | CellKind::CounterF64, _) => {}
    }
}

struct Region {
    length_at: usize,
    allocated_at: usize,
    section: fn(&Sections) -> Section,
}

const KEYS: Region = Region {
    length_at: KEYS_LENGTH_AT,
    allocated_at: KEYS_ALLOCATED_AT,
    section: |sections| sections.keys,
};
const VALUES: Region = Region {
    length_at: VALUES_LENGTH_AT,
    allocated_at: VALUES_ALLOCATED_AT,
    section: |sections| sections.values,
};

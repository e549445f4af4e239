//! The redo log of a slot: what makes "all of these stores or none" true for a process that may die at any instruction.
//!
//! The owner writes absolute values, commits, applies them and clears the commit. Whoever comes after a death replays what
//! was committed. Every cell has one writer, so replaying twice is the same as once.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use arrayvec::ArrayVec;

use crate::cells::histogram::Histogram;
use crate::layout::{
    HEADER_BYTES, KEYS_AT, PID_AT, REDO_AT, REDO_ITEM_BYTES, REDO_ITEMS, REDO_ITEMS_AT,
    VALUES_ALLOCATED_AT, VALUES_AT, long, size,
};
use crate::map::Map;
use crate::sync::{AtomicU64, fence};

const ITEM_WORDS: usize = REDO_ITEM_BYTES / 8;

/// Words that one transaction may set.
const MOST_SETS: usize = 8;
const _: () = assert!(MOST_SETS < REDO_ITEMS);

type Item = [AtomicU64; ITEM_WORDS];

/// A transaction being written. Dropped without [`Redo::commit`] it never happened.
pub(crate) struct Redo<'m> {
    map: &'m Map,
    log: &'m [Item],
    /// What the log says, for the one who is sure of it: a successor reads the log and trusts nothing.
    sets: ArrayVec<(&'m AtomicU64, u64), MOST_SETS>,
}

impl<'m> Redo<'m> {
    pub(crate) fn begin(map: &'m Map) -> Self {
        Self { map, log: log(map), sets: ArrayVec::new() }
    }

    /// Sets a word, after those that were named before.
    #[inline]
    #[expect(clippy::panic, reason = "the number of words is a constant of each transaction")]
    pub(crate) fn set(&mut self, cell: &'m AtomicU64, value: u64) {
        let item = self.log.get(self.sets.len());
        let (Some([offset, logged]), Ok(())) = (item, self.sets.try_push((cell, value))) else {
            // A transaction that did half of what it should would be worse than none.
            panic!("a transaction sets at most {MOST_SETS} words");
        };
        offset.store(long(self.map.offset_of(cell)), Relaxed);
        logged.store(value, Relaxed);
    }

    /// Adds to a word, which only the owner writes. At most once a word and transaction.
    #[inline]
    pub(crate) fn add(&mut self, cell: &'m AtomicU64, delta: u64) {
        self.set(cell, cell.load(Relaxed).wrapping_add(delta));
    }

    /// Adds one observation to a histogram. At most once a bucket and transaction.
    #[inline]
    pub(crate) fn observe(&mut self, histogram: Histogram<'m>, bucket: usize, value: f64) {
        if let Some(next) = histogram.next(bucket, value) {
            self.set(next.place, next.sum);
            self.set(next.cell, next.count);
        }
    }

    /// Publishes the transaction and carries it out.
    #[inline]
    pub(crate) fn commit(self) {
        let commit = self.map.word(REDO_AT);
        commit.store(long(self.sets.len()), Release);
        fence(Release); // nothing is carried out before it is committed, not even by the compiler
        for (cell, value) in &self.sets {
            // Release: a ring head or the state of an entry may be among them, and what it publishes came before.
            cell.store(*value, Release);
        }
        end(commit);
    }
}

fn log(map: &Map) -> &[Item] {
    map.words(REDO_ITEMS_AT, REDO_ITEMS * ITEM_WORDS).as_chunks().0
}

fn end(commit: &AtomicU64) {
    commit.store(0, Release);
    // The next transaction's items, and the next use of an entry that was freed, stay behind this point.
    fence(Release);
}

/// Carries out what was committed, if anything was. Only the owner calls it, or who has seen the owner reaped.
pub(crate) fn replay(map: &Map) {
    let commit = map.word(REDO_AT);
    let items = size(commit.load(Acquire)).min(REDO_ITEMS);
    let values_end = VALUES_AT.saturating_add(size(map.load(VALUES_ALLOCATED_AT)));
    for item in log(map).iter().take(items) {
        let [offset, value] = item.each_ref().map(|word| word.load(Relaxed));
        // A damaged log may say anything; nothing of ours names another place.
        if is_cell(map, size(offset), values_end) {
            map.word(size(offset)).store(value, Release);
        }
    }
    end(commit);
}

/// Says whether a transaction may write at an offset: the changing part of the header, the tables and rings, and values
/// that have blocks. Anything else in a log is damage, and storing there could meet a full file system.
fn is_cell(map: &Map, offset: usize, values_end: usize) -> bool {
    let inside = (PID_AT..REDO_AT).contains(&offset)
        || (HEADER_BYTES..KEYS_AT).contains(&offset)
        || (VALUES_AT..values_end).contains(&offset);
    inside && offset.is_multiple_of(8) && offset < map.length()
}

//! The redo log of a slot: what makes "all of these stores or none" true for a process that may die at any instruction.
//!
//! The owner writes absolute values, commits, applies them and clears the commit. Whoever comes after a death replays what
//! was committed. Every cell has one writer, so replaying twice is the same as once.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use crate::cells::histogram::{Histogram, Next};
use crate::layout::{
    HEADER_BYTES, KEYS_AT, PID_AT, REDO_AT, REDO_ITEM_BYTES, REDO_ITEMS, REDO_ITEMS_AT,
    VALUES_ALLOCATED_AT, VALUES_AT, long, size,
};
use crate::map::Map;

const ITEM_WORDS: usize = REDO_ITEM_BYTES / 8;
const SET: u64 = 0;
const OBSERVE: u64 = 1;

/// A transaction being written. Dropped without [`Redo::commit`] it never happened.
pub(crate) struct Redo<'m> {
    map: &'m Map,
    /// The places of the log that are still free.
    free: &'m [[AtomicU64; ITEM_WORDS]],
    items: u64,
}

impl<'m> Redo<'m> {
    pub(crate) fn begin(map: &'m Map) -> Self {
        let words = map.words(REDO_ITEMS_AT, REDO_ITEMS * ITEM_WORDS);
        Self { map, free: words.as_chunks().0, items: 0 }
    }

    /// Sets the word at byte `offset`.
    pub(crate) fn set(&mut self, offset: usize, value: u64) {
        self.push([SET | long(offset) << 32, value, 0, 0]);
    }

    /// Adds to the word at byte `offset`, which only the owner writes. At most once a word and transaction.
    pub(crate) fn add(&mut self, offset: usize, delta: u64) {
        self.set(offset, self.map.load(offset).wrapping_add(delta));
    }

    /// Adds one observation to the histogram at byte `offset`.
    pub(crate) fn observe(&mut self, offset: usize, bucket: usize, value: f64) {
        if let Some(next) = Histogram::at(self.map, offset).next(bucket, value) {
            let head = OBSERVE | long(offset) << 32;
            self.push([head, next.count, next.sum.to_bits(), next.tag]);
        }
    }

    /// Publishes the transaction and carries it out.
    pub(crate) fn commit(self) {
        self.map.word(REDO_AT).store(self.items, Release);
        fence(Release); // nothing is carried out before it is committed, not even by the compiler
        replay(self.map);
    }

    #[expect(clippy::panic, reason = "the number of items is a constant of each transaction")]
    fn push(&mut self, item: [u64; 4]) {
        let Some((words, free)) = self.free.split_first() else {
            // A transaction that did half of what it should would be worse than none.
            panic!("a transaction has at most {REDO_ITEMS} items");
        };
        for (word, value) in words.iter().zip(item) {
            word.store(value, Relaxed);
        }
        (self.free, self.items) = (free, self.items + 1);
    }
}

/// Carries out what was committed, if anything was. Only the owner calls it, or who has seen the owner reaped.
pub(crate) fn replay(map: &Map) {
    let commit = map.word(REDO_AT);
    let items = size(commit.load(Acquire)).min(REDO_ITEMS);
    let log = map.words(REDO_ITEMS_AT, REDO_ITEMS * ITEM_WORDS).as_chunks::<ITEM_WORDS>().0;
    let values_end = VALUES_AT.saturating_add(size(map.load(VALUES_ALLOCATED_AT)));
    for words in log.iter().take(items) {
        let [head, first, second, third] = words.each_ref().map(|word| word.load(Relaxed));
        let offset = size(head >> 32);
        if !is_cell(map, offset, values_end) {
            continue; // a damaged log; nothing of ours writes such an item
        }
        if head & 0xff == OBSERVE {
            let next = Next { tag: third, count: first, sum: f64::from_bits(second) };
            Histogram::at(map, offset).replace(&next);
        } else {
            // Release: a ring head or the state of an entry may be among them, and what it publishes came before.
            map.word(offset).store(first, Release);
        }
    }
    commit.store(0, Release);
    // The next transaction's items, and the next use of an entry that was freed, stay behind this point.
    fence(Release);
}

/// Says whether a transaction may write at an offset: the changing part of the header, the tables and rings, and values
/// that have blocks. Anything else in a log is damage, and storing there could meet a full file system.
fn is_cell(map: &Map, offset: usize, values_end: usize) -> bool {
    let inside = (PID_AT..REDO_AT).contains(&offset)
        || (HEADER_BYTES..KEYS_AT).contains(&offset)
        || (VALUES_AT..values_end).contains(&offset);
    inside && offset.is_multiple_of(8) && offset < map.length()
}

//! Words that are found by the hash in their upper bits, without a lock.
//!
//! Words are only added. A larger table replaces a full one whole; the smaller ones stay allocated for who still looks
//! there, together less than the last.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, PoisonError};

use crate::layout::size;
use crate::metrics::static_ref::StaticRef;

/// The lowest bit of a word that is part of its hash; those below belong to who puts it there.
pub(crate) const HASH_SHIFT: u32 = 46;

/// A set of words, none of them 0.
pub(crate) struct Places {
    words: StaticRef<Vec<AtomicU64>>,
    used: Mutex<usize>,
}

impl Places {
    pub(crate) const fn new() -> Self {
        Self { words: StaticRef::empty(), used: Mutex::new(0) }
    }

    /// The word of this hash of which `is_it` is true.
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(u64) -> bool) -> Option<u64> {
        probe(self.words.get()?, hash)
            .map(|place| place.load(Acquire))
            .take_while(|word| *word != 0)
            .find(|word| word >> HASH_SHIFT == hash >> HASH_SHIFT && is_it(*word))
    }

    /// Adds a word, if it is not there.
    pub(crate) fn insert(&self, word: u64) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let words = match self.words.get() {
            Some(words) if (*used + 1) * 4 <= words.len() * 3 => words,
            smaller => self.grown(smaller),
        };
        *used += usize::from(put(words, word));
    }

    fn grown(&self, smaller: Option<&'static Vec<AtomicU64>>) -> &'static Vec<AtomicU64> {
        let size = smaller.map_or(8, |words| words.len() * 2);
        let words: &'static Vec<AtomicU64> =
            Box::leak(Box::new((0..size).map(|_| AtomicU64::new(0)).collect()));
        for word in smaller.into_iter().flatten().map(|word| word.load(Acquire)) {
            if word != 0 {
                put(words, word);
            }
        }
        self.words.set(words);
        words
    }
}

/// Stores a word in the first free place of its own; `false` if it is there already.
fn put(words: &[AtomicU64], word: u64) -> bool {
    let place = probe(words, word).find(|place| [0, word].contains(&place.load(Acquire)));
    place.is_some_and(|place| place.swap(word, Release) == 0)
}

/// The places where a hash may stand, in order: a quarter of them is always free.
fn probe(words: &[AtomicU64], hash: u64) -> impl Iterator<Item = &AtomicU64> {
    let (first, mask) = (size(hash >> HASH_SHIFT), words.len() - 1);
    (0..words.len()).map(move |number| &words[(first + number) & mask])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_by_its_hash_however_many_there_are() {
        let places = Places::new();
        let word = |number: u64| (number % 97) << HASH_SHIFT | number;
        for number in 1..2_000 {
            assert_eq!(places.find(word(number), |found| found == word(number)), None);
            places.insert(word(number));
            places.insert(word(number));
        }
        for number in 1..2_000 {
            let found = places.find(word(number), |found| found == word(number));
            assert_eq!(found, Some(word(number)));
        }
        let size = places.words.get().unwrap().len();
        assert!(size <= 4_096, "{size} places for 2,000 words");
    }
}

//! A histogram's cells: the buckets, and beside them the last observation, whole.
//!
//! Words: tag; two places of count and sum; then one count a bucket, `+Inf` last. The tag is `sequence << 8 | bucket` of the
//! last observation, and the place of number `sequence & 1` says what the count of that bucket and the sum are since. An
//! observation fills the other place, moves the tag, which is the instant at which it happens, and then brings the bucket
//! up to date. So whoever takes the tagged bucket and the sum from the place has all observations and no half one, whether
//! the writer goes on, stands still or is dead.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::cells::exemplar::EXEMPLAR_WORDS;
use crate::cells::lock;
use crate::cells::search::MOST_BOUNDS;
use crate::layout::{long, size};
use crate::map::Map;
use crate::sync::{AtomicU64, fence};

/// The words of one histogram.
#[derive(Copy, Clone)]
pub(crate) struct Histogram<'m> {
    head: &'m Head,
    buckets: &'m [AtomicU64],
}

const TAG: usize = 0;
/// Words in front of the buckets.
pub(crate) const HISTOGRAM_HEAD: usize = 5;
/// The bit of the tag by which the threads that share a histogram take turns.
const LOCKED: u64 = 1 << 63;

pub(crate) type Head = [AtomicU64; HISTOGRAM_HEAD];

/// What the cells will be after one more observation.
pub(crate) struct Next {
    /// The new tag: which observation it is, and its bucket.
    pub(crate) tag: u64,
    /// The new count of that bucket.
    pub(crate) count: u64,
    /// The new sum.
    pub(crate) sum: f64,
}

impl<'m> Histogram<'m> {
    /// The histogram at a byte offset, as far as the mapping goes: only its own code says how many buckets it has.
    pub(crate) fn at(map: &'m Map, offset: usize) -> Option<Self> {
        let left = map.length().saturating_sub(offset) / 8;
        Self::of(map.words(offset, left.min(HISTOGRAM_HEAD + MOST_BOUNDS + 1)))
    }

    /// The histogram in these words; none if there are too few.
    #[inline]
    pub(crate) fn of(words: &'m [AtomicU64]) -> Option<Self> {
        let (head, buckets) = words.split_first_chunk()?;
        Some(Self::new(head, buckets))
    }

    pub(crate) const fn new(head: &'m Head, buckets: &'m [AtomicU64]) -> Self {
        Self { head, buckets }
    }

    /// Its first word, which stands for it in the redo log.
    pub(crate) fn first(self) -> &'m AtomicU64 {
        &self.head[TAG]
    }

    /// Owner only: four plain stores. Says the bucket; none, and no store, for one that is not there.
    #[inline]
    pub(crate) fn observe(self, bucket: usize, value: f64) -> Option<usize> {
        let cell = self.buckets.get(bucket)?;
        let next = self.after(cell, self.head[TAG].load(Relaxed), bucket, value);
        self.happen(cell, &next, next.tag);
        Some(bucket)
    }

    /// Any thread of the owner: a bit of the tag is taken as a lock.
    pub(crate) fn observe_shared(self, bucket: usize, value: f64) -> Option<usize> {
        let cell = self.buckets.get(bucket)?;
        let next = self.after(cell, lock(&self.head[TAG], LOCKED), bucket, value);
        self.happen(cell, &next, next.tag | LOCKED);
        self.head[TAG].store(next.tag, Release);
        Some(bucket)
    }

    /// What [`Self::replace`] is to be given for one more observation; none for a bucket that is not there.
    #[inline]
    pub(crate) fn next(self, bucket: usize, value: f64) -> Option<Next> {
        let cell = self.buckets.get(bucket)?;
        Some(self.after(cell, self.head[TAG].load(Relaxed), bucket, value))
    }

    /// Makes an observation happen whose outcome is known. Doing it twice is doing it once.
    #[inline]
    pub(crate) fn replace(self, next: &Next) {
        // Only a damaged log names a bucket that is not there.
        if let Some(cell) = self.buckets.get(bucket(next.tag)) {
            self.happen(cell, next, next.tag);
        }
    }

    /// Successor of a dead writer: brings the last observation into its bucket.
    pub(crate) fn finish(self) {
        let tag = self.head[TAG].load(Acquire) & !LOCKED;
        if let Some(cell) = self.buckets.get(bucket(tag)) {
            cell.store(self.place(tag)[0].load(Relaxed), Relaxed);
        }
        self.head[TAG].store(tag, Release);
    }

    /// Any reader: fills the counts, not cumulative, and returns the sum. It never waits and never writes.
    pub(crate) fn read(self, counts: &mut [u64]) -> f64 {
        let Self { head, buckets } = self;
        let mut sum = 0.0;
        for _ in 0..64 {
            let tag = head[TAG].load(Acquire) & !LOCKED;
            for (count, word) in counts.iter_mut().zip(buckets) {
                *count = word.load(Relaxed);
            }
            let [count, last_sum] = self.place(tag).each_ref().map(|word| word.load(Relaxed));
            sum = f64::from_bits(last_sum);
            fence(Acquire); // the counterpart of the fence behind the tag
            if head[TAG].load(Relaxed) & !LOCKED == tag {
                if let Some(tagged) = counts.get_mut(bucket(tag)) {
                    *tagged = count;
                }
                return sum;
            }
        }
        // 64 changes in a row while 20 words were copied: no two of them belong to one moment, but none is ever behind an
        // earlier read. The sum may be of some observations more or less than the buckets.
        sum
    }

    /// The words of a bucket's exemplar, which stand behind all buckets; none if the family keeps none.
    #[inline]
    pub(crate) fn exemplar(
        self,
        buckets: usize,
        bucket: usize,
    ) -> Option<&'m [AtomicU64; EXEMPLAR_WORDS]> {
        self.buckets.get(buckets + bucket * EXEMPLAR_WORDS..)?.first_chunk()
    }

    /// The outcome of one more observation than that of `tag`.
    #[inline]
    fn after(self, cell: &AtomicU64, tag: u64, bucket: usize, value: f64) -> Next {
        let [_, sum] = self.place(tag);
        Next {
            // Bit 8 changes, and those above it only if it falls.
            tag: (tag & !0xff).wrapping_add(0x100) | long(bucket),
            count: cell.load(Relaxed).wrapping_add(1),
            sum: f64::from_bits(sum.load(Relaxed)) + value,
        }
    }

    /// Writes the place, then the tag, then the bucket, in an order that a death or a reader at any instruction finds whole.
    #[inline]
    fn happen(self, cell: &AtomicU64, next: &Next, tag: u64) {
        let [count, sum] = self.place(next.tag);
        count.store(next.count, Relaxed);
        sum.store(next.sum.to_bits(), Relaxed);
        self.head[TAG].store(tag, Release);
        // A release store lets later stores pass before it, also in the compiler. Without this fence a bucket could be ahead
        // of its tag, or the next observation could fill a place that readers of this tag still look at.
        fence(Release);
        cell.store(next.count, Relaxed);
    }

    /// Count and sum as the observation of a tag left them.
    #[inline]
    fn place(self, tag: u64) -> &'m [AtomicU64; 2] {
        let places = self.head[1..].as_chunks::<2>().0;
        &places[size(tag >> 8 & 1)]
    }
}

fn bucket(tag: u64) -> usize {
    usize::from(tag.to_le_bytes()[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_finds_every_observation_and_no_half_one() {
        let words: Vec<AtomicU64> = (0..HISTOGRAM_HEAD + 3).map(|_| AtomicU64::new(0)).collect();
        let histogram = Histogram::of(&words).unwrap();
        let mut counts = [0; 3];
        for number in 0..10_u32 {
            let value = f64::from(number);
            let Histogram { head, buckets } = histogram;
            let next = histogram.next(1, value).unwrap();
            let before = (histogram.read(&mut counts), counts);
            // What a death leaves in front of the tag and behind it.
            let [count, sum] = histogram.place(next.tag);
            count.store(next.count, Relaxed);
            sum.store(next.sum.to_bits(), Relaxed);
            assert_eq!((histogram.read(&mut counts), counts), before);
            head[TAG].store(next.tag, Relaxed);
            let after = (before.0 + value, [0, u64::from(number) + 1, 0]);
            assert_eq!((histogram.read(&mut counts), counts), after);
            histogram.finish();
            assert_eq!((histogram.read(&mut counts), counts), after);
            assert_eq!(buckets[1].load(Relaxed), after.1[1]);
        }
    }
}

//! A histogram's cells: the buckets, and beside them the last observation, whole.
//!
//! Words: tag; two places of count and sum; then one count a bucket, `+Inf` last. The tag is `sequence << 8 | bucket` of the
//! last observation, and the place of number `sequence & 1` says what the count of that bucket and the sum are since. An
//! observation fills the other place, moves the tag, which is the instant at which it happens, and then brings the bucket
//! up to date. So whoever takes the tagged bucket and the sum from the place has all observations and no half one, whether
//! the writer goes on, stands still or is dead.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use crate::cells::lock;
use crate::layout::long;
use crate::map::Map;

/// The words of one histogram.
#[derive(Copy, Clone)]
pub(crate) struct Histogram<'m> {
    words: &'m [AtomicU64],
}

const TAG: usize = 0;
/// Words in front of the buckets.
pub(crate) const HISTOGRAM_HEAD: usize = 5;
/// Bounds of a histogram; with `+Inf` one more bucket.
pub(crate) const MOST_BOUNDS: usize = 64;
/// The bit of the tag by which the threads that share a histogram take turns.
const LOCKED: u64 = 1 << 63;

type Head = [AtomicU64; HISTOGRAM_HEAD];

/// What the cells will be after one more observation.
pub(crate) struct Next {
    /// The new tag: which observation it is, and its bucket.
    pub(crate) tag: u64,
    /// The new count of that bucket.
    pub(crate) count: u64,
    /// The new sum.
    pub(crate) sum: f64,
}

/// The bucket that a number falls into: bounds ascend and are inclusive. It counts without a branch: where a value falls is
/// what no processor can guess, and a wrong guess costs more than the rest of an observation.
#[inline]
pub(crate) fn bucket_of(bounds: &[f64], value: f64) -> usize {
    bounds.iter().map(|bound| usize::from(value > *bound)).sum()
}

impl<'m> Histogram<'m> {
    /// The histogram at a byte offset, as far as the mapping goes: only its own code says how many buckets it has.
    pub(crate) fn at(map: &'m Map, offset: usize) -> Self {
        let left = map.length().saturating_sub(offset) / 8;
        Self { words: map.words(offset, left.min(HISTOGRAM_HEAD + MOST_BOUNDS + 1)) }
    }

    pub(crate) fn of(words: &'m [AtomicU64]) -> Self {
        Self { words }
    }

    /// Its first word, which stands for it in the redo log.
    pub(crate) fn first(self) -> &'m AtomicU64 {
        &self.words[TAG]
    }

    /// Owner only: four plain stores. A function of its own, with all that it needs in registers: inlined into a large one it
    /// would be slower than the call.
    #[inline(never)]
    pub(crate) fn observe(self, bounds: &[f64], value: f64) -> Option<usize> {
        let bucket = bucket_of(bounds, value);
        let (head, cell) = self.parts(bucket)?;
        let next = after(head, cell, head[TAG].load(Relaxed), bucket, value);
        happen(head, cell, &next, next.tag);
        Some(bucket)
    }

    /// Any thread of the owner: a bit of the tag is taken as a lock.
    pub(crate) fn observe_shared(self, bounds: &[f64], value: f64) -> Option<usize> {
        let bucket = bucket_of(bounds, value);
        let (head, cell) = self.parts(bucket)?;
        let tag = lock(&head[TAG], LOCKED);
        let next = after(head, cell, tag, bucket, value);
        happen(head, cell, &next, next.tag | LOCKED);
        head[TAG].store(next.tag, Release);
        Some(bucket)
    }

    /// What [`Self::replace`] is to be given for one more observation; none for a bucket that is not there.
    #[inline]
    pub(crate) fn next(self, bucket: usize, value: f64) -> Option<Next> {
        let (head, cell) = self.parts(bucket)?;
        Some(after(head, cell, head[TAG].load(Relaxed), bucket, value))
    }

    /// Makes an observation happen whose outcome is known. Doing it twice is doing it once.
    #[inline]
    pub(crate) fn replace(self, next: &Next) {
        // Only a damaged log names a bucket that is not there.
        if let Some((head, cell)) = self.parts(bucket(next.tag)) {
            happen(head, cell, next, next.tag);
        }
    }

    /// Successor of a dead writer: brings the last observation into its bucket.
    pub(crate) fn finish(self) {
        let Some((head, _)) = self.parts(0) else { return };
        let tag = head[TAG].load(Acquire) & !LOCKED;
        if let Some((_, cell)) = self.parts(bucket(tag)) {
            cell.store(place(head, tag)[0].load(Relaxed), Relaxed);
        }
        head[TAG].store(tag, Release);
    }

    /// Any reader: fills the counts, not cumulative, and returns the sum. It never waits and never writes.
    pub(crate) fn read(self, counts: &mut [u64]) -> f64 {
        let Some((head, buckets)) = self.words.split_first_chunk::<HISTOGRAM_HEAD>() else {
            return 0.0;
        };
        let mut sum = 0.0;
        for _ in 0..64 {
            let tag = head[TAG].load(Acquire) & !LOCKED;
            for (count, word) in counts.iter_mut().zip(buckets) {
                *count = word.load(Relaxed);
            }
            let [count, last_sum] = place(head, tag).each_ref().map(|word| word.load(Relaxed));
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

    #[inline]
    fn parts(self, bucket: usize) -> Option<(&'m Head, &'m AtomicU64)> {
        let (head, buckets) = self.words.split_first_chunk()?;
        Some((head, buckets.get(bucket)?))
    }
}

/// The outcome of one more observation than that of `tag`.
#[inline]
fn after(head: &Head, cell: &AtomicU64, tag: u64, bucket: usize, value: f64) -> Next {
    let [_, sum] = place(head, tag);
    Next {
        tag: (tag | 0xff).wrapping_add(1) | long(bucket),
        count: cell.load(Relaxed).wrapping_add(1),
        sum: f64::from_bits(sum.load(Relaxed)) + value,
    }
}

/// Writes the place, then the tag, then the bucket, in an order that a death or a reader at any instruction finds whole.
#[inline]
fn happen(head: &Head, cell: &AtomicU64, next: &Next, tag: u64) {
    let [count, sum] = place(head, next.tag);
    count.store(next.count, Relaxed);
    sum.store(next.sum.to_bits(), Relaxed);
    head[TAG].store(tag, Release);
    // A release store lets later stores pass before it, also in the compiler. Without this fence a bucket could be ahead of
    // its tag, or the next observation could fill a place that readers of this tag still look at.
    fence(Release);
    cell.store(next.count, Relaxed);
}

/// Count and sum as the observation of a tag left them.
#[inline]
fn place(head: &Head, tag: u64) -> &[AtomicU64; 2] {
    let places = head[1..].as_chunks::<2>().0;
    &places[usize::from(tag >> 8 & 1 == 1)]
}

fn bucket(tag: u64) -> usize {
    usize::from(tag.to_le_bytes()[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_falls_into_the_first_bucket_whose_bound_holds_it() {
        let bounds: Vec<f64> = (0..13).map(|bound| f64::from(bound - 1) / 2.0).collect();
        for length in 1..bounds.len() {
            let bounds = &bounds[..length];
            let between = bounds.iter().flat_map(|bound| [bound - 0.1, *bound, bound + 0.1]);
            for value in between.chain([f64::INFINITY, f64::NEG_INFINITY, -0.0]) {
                let first = bounds.iter().position(|bound| value <= *bound).unwrap_or(length);
                assert_eq!(bucket_of(bounds, value), first, "{value} in {bounds:?}");
            }
        }
    }

    #[test]
    fn a_reader_finds_every_observation_and_no_half_one() {
        let words: Vec<AtomicU64> = (0..HISTOGRAM_HEAD + 3).map(|_| AtomicU64::new(0)).collect();
        let histogram = Histogram::of(&words);
        let mut counts = [0; 3];
        for number in 0..10_u32 {
            let value = f64::from(number);
            let (head, cell) = histogram.parts(1).unwrap();
            let next = after(head, cell, head[TAG].load(Relaxed), 1, value);
            let before = (histogram.read(&mut counts), counts);
            // What a death leaves in front of the tag and behind it.
            let [count, sum] = place(head, next.tag);
            count.store(next.count, Relaxed);
            sum.store(next.sum.to_bits(), Relaxed);
            assert_eq!((histogram.read(&mut counts), counts), before);
            head[TAG].store(next.tag, Relaxed);
            let after = (before.0 + value, [0, u64::from(number) + 1, 0]);
            assert_eq!((histogram.read(&mut counts), counts), after);
            histogram.finish();
            assert_eq!((histogram.read(&mut counts), counts), after);
            assert_eq!(cell.load(Relaxed), after.1[1]);
        }
    }
}

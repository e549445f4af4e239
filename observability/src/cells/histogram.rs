//! A histogram's cells: each bucket has its own count and its own sum.
//!
//! Words of a bucket, `+Inf` last: its count, and two places for its sum; while it has counted `n`, the sum is in place `n & 1`.
//! An observation fills the other place and then counts, which is the instant at which it happens. So whoever takes a count
//! and the sum from its place has all observations and no half one, whether the writer goes on, stands still or is dead: two
//! stores, no log, and nothing to finish after a death. The sum of the histogram is that of its buckets.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::cells::exemplar::{self, EXEMPLAR_WORDS};
use crate::cells::lock;
use crate::layout::size;
use crate::sync::{AtomicU64, fence};

/// Words of one bucket.
pub(crate) const BUCKET_WORDS: usize = 3;
/// The bit of a count by which the threads that share a bucket take turns.
const LOCKED: u64 = 1 << 63;

type Bucket = [AtomicU64; BUCKET_WORDS];

/// The buckets of one histogram.
#[derive(Copy, Clone)]
pub(crate) struct Histogram<'m>(&'m [Bucket]);

/// What the words of a bucket will be after one more observation.
pub(crate) struct Next<'m> {
    /// The place that has the new sum.
    pub(crate) place: &'m AtomicU64,
    /// That sum, as bits.
    pub(crate) sum: u64,
    /// The count, to be stored behind the sum.
    pub(crate) cell: &'m AtomicU64,
    pub(crate) count: u64,
}

impl<'m> Histogram<'m> {
    /// Of no buckets: every observation is refused.
    pub(crate) const NONE: Self = Self(&[]);

    /// Where its words begin.
    #[inline]
    pub(crate) fn start(self) -> *const Bucket {
        self.0.as_ptr()
    }

    /// The histogram that these words begin with; none if there are too few.
    pub(crate) fn of(words: &'m [AtomicU64], buckets: usize) -> Option<Self> {
        words.as_chunks().0.get(..buckets).map(Self)
    }

    /// Owner only: two plain stores. Says the bucket; none, and no store, for one that is not there.
    #[inline]
    pub(crate) fn observe(self, bucket: usize, value: f64) -> Option<usize> {
        self.next(bucket, value)?.happen();
        Some(bucket)
    }

    /// Any thread of the owner: a bit of the count is taken as a lock, and given back by counting.
    pub(crate) fn observe_shared(self, bucket: usize, value: f64) -> Option<usize> {
        let words = self.0.get(bucket)?;
        after(words, lock(&words[0], LOCKED), value).happen();
        Some(bucket)
    }

    /// The stores of one more observation, for who does them in a transaction; none for a bucket that is not there.
    #[inline]
    pub(crate) fn next(self, bucket: usize, value: f64) -> Option<Next<'m>> {
        let words = self.0.get(bucket)?;
        Some(after(words, words[0].load(Relaxed), value))
    }

    /// Successor of a dead writer: takes the locks of its threads away. What they had begun never happened.
    pub(crate) fn unlock(self) {
        for [count, ..] in self.0 {
            count.store(count.load(Acquire) & !LOCKED, Release);
        }
    }

    /// Any reader: adds to the counts, not cumulative, and returns the sum. It never waits and never writes.
    pub(crate) fn add_to(self, counts: &mut [u64]) -> f64 {
        let mut sum = 0.0;
        for (count, words) in counts.iter_mut().zip(self.0) {
            // Most buckets of most histograms have never counted, and have no sum to look up.
            if words[0].load(Relaxed) & !LOCKED == 0 {
                continue;
            }
            let (read, of_bucket) = read(words);
            *count = count.wrapping_add(read);
            sum += of_bucket;
        }
        sum
    }
}

impl Next<'_> {
    /// The sum, then the count. Release, both: neither may be seen before what was stored earlier, so that no reader of a
    /// count finds its place filled anew already.
    #[inline]
    fn happen(self) {
        self.place.store(self.sum, Release);
        self.cell.store(self.count, Release);
    }
}

/// The word at which the exemplars begin, behind all buckets.
pub(crate) fn exemplars_at(buckets: usize) -> usize {
    buckets * BUCKET_WORDS
}

/// The words of a bucket's exemplar; none if the family keeps none.
pub(crate) fn exemplar(
    words: &[AtomicU64],
    buckets: usize,
    bucket: usize,
) -> Option<&exemplar::Words> {
    words.get(exemplars_at(buckets) + bucket * EXEMPLAR_WORDS..)?.first_chunk()
}

#[inline]
fn after(words: &Bucket, count: u64, value: f64) -> Next<'_> {
    let sum = f64::from_bits(place(words, count).load(Relaxed)) + value;
    // The other place, which the processor knows without waiting for the count after.
    let other = place(words, !count);
    Next { place: other, sum: sum.to_bits(), cell: &words[0], count: count.wrapping_add(1) }
}

fn read(words: &Bucket) -> (u64, f64) {
    let mut last = (0, 0.0);
    for _ in 0..64 {
        let count = words[0].load(Acquire) & !LOCKED;
        last = (count, f64::from_bits(place(words, count).load(Relaxed)));
        fence(Acquire); // if the place was filled anew, the count that came before that is seen below
        if words[0].load(Relaxed) & !LOCKED == count {
            break;
        }
    }
    // 64 observations while two words were read, one after the other: the sum may be of one more or two than the count.
    last
}

/// Where the sum of a bucket stands that has counted so many.
#[inline]
fn place(words: &Bucket, count: u64) -> &AtomicU64 {
    let [_, places @ ..] = words;
    &places[size(count & 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_finds_every_observation_and_no_half_one() {
        let words: Vec<AtomicU64> = (0..3 * BUCKET_WORDS).map(|_| AtomicU64::new(0)).collect();
        let histogram = Histogram::of(&words, 3).unwrap();
        assert!(histogram.observe(2, 0.5).is_some() && histogram.observe(3, 0.5).is_none());
        let read = || {
            let mut counts = [0; 3];
            (histogram.add_to(&mut counts), counts)
        };
        for number in 0..10_u32 {
            let value = f64::from(number);
            let before = read();
            // What a death leaves in front of the count and behind it, also of a thread that held the lock.
            let next = histogram.next(1, value).unwrap();
            next.place.store(next.sum, Relaxed);
            assert_eq!(read(), before);
            next.cell.fetch_or(LOCKED, Relaxed);
            assert_eq!(read(), before);
            histogram.unlock();
            assert_eq!(read(), before);
            next.cell.store(next.count, Relaxed);
            let after = (before.0 + value, [0, u64::from(number) + 1, 1]);
            assert_eq!(read(), after);
        }
    }
}

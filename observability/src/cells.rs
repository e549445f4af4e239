//! The words of one series in the value region, and how each kind is written and read so that a death or a reader in the
//! middle does no harm.

pub(crate) mod exemplar;

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use crate::layout::long;
use crate::map::Map;

/// A histogram: sequence, tag, count', sum', sum, then one count a bucket, `+Inf` last.
///
/// The sequence is odd while an observation is applied. `tag` says, for that very sequence, which bucket and that count'
/// and sum' are complete: so a reader or successor of a dead writer can finish the observation exactly.
pub(crate) struct Histogram<'m> {
    words: &'m [AtomicU64],
}

const SEQUENCE: usize = 0;
const TAG: usize = 1;
const NEXT_COUNT: usize = 2;
const NEXT_SUM: usize = 3;
const SUM: usize = 4;
/// Words in front of the buckets.
pub(crate) const HISTOGRAM_HEAD: usize = 5;
/// Bounds of a histogram; with `+Inf` one more bucket.
pub(crate) const MOST_BOUNDS: usize = 64;

/// What the cells will be after one more observation.
pub(crate) struct Next {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    pub(crate) sequence: u64,
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

    /// Owner only: one plain-store observation.
    #[inline]
    pub(crate) fn observe(&self, bucket: usize, value: f64) {
        let Some((head, buckets)) = self.words.split_first_chunk::<HISTOGRAM_HEAD>() else {
            return;
        };
        let Some(cell) = buckets.get(bucket) else { return };
        let odd = head[SEQUENCE].load(Relaxed) | 1;
        let count = cell.load(Relaxed).wrapping_add(1);
        let sum = (f64::from_bits(head[SUM].load(Relaxed)) + value).to_bits();
        head[SEQUENCE].store(odd, Relaxed);
        fence(Release);
        apply(head, cell, [odd << 8 | long(bucket), count, sum]);
        head[SEQUENCE].store(odd.wrapping_add(1), Release);
    }

    /// Any thread of the owner: the odd sequence is taken as a lock.
    pub(crate) fn observe_shared(&self, bucket: usize, value: f64) {
        let before = lock(&self.words[SEQUENCE]);
        let count = self.words[HISTOGRAM_HEAD + bucket].load(Relaxed).wrapping_add(1);
        let sum = f64::from_bits(self.words[SUM].load(Relaxed)) + value;
        let odd = before.wrapping_add(1);
        self.apply(bucket, [odd << 8 | long(bucket), count, sum.to_bits()]);
        self.words[SEQUENCE].store(before.wrapping_add(2), Release);
    }

    /// What [`Self::replace`] is to be given for one more observation.
    pub(crate) fn next(&self, bucket: usize, value: f64) -> Next {
        Next {
            count: self.words[HISTOGRAM_HEAD + bucket].load(Relaxed).wrapping_add(1),
            sum: f64::from_bits(self.words[SUM].load(Relaxed)) + value,
            sequence: (self.words[SEQUENCE].load(Relaxed) | 1).wrapping_add(1),
        }
    }

    /// Applies absolute values; `sequence` is the even one to end with. Doing it twice is doing it once.
    pub(crate) fn replace(&self, bucket: usize, count: u64, sum: u64, sequence: u64) {
        if HISTOGRAM_HEAD + bucket >= self.words.len() {
            return; // a damaged log; nothing of ours writes such an item
        }
        let odd = sequence.wrapping_sub(1);
        self.words[SEQUENCE].store(odd, Relaxed);
        fence(Release);
        self.apply(bucket, [odd << 8 | long(bucket), count, sum]);
        self.words[SEQUENCE].store(sequence, Release);
    }

    fn apply(&self, bucket: usize, next: [u64; 3]) {
        if let Some((head, buckets)) = self.words.split_first_chunk()
            && let Some(cell) = buckets.get(bucket)
        {
            apply(head, cell, next);
        }
    }

    /// Successor of a dead writer: finishes what it had begun.
    pub(crate) fn finish(&self) {
        let sequence = self.words[SEQUENCE].load(Acquire);
        if sequence.is_multiple_of(2) {
            return;
        }
        if let Some(bucket) = self.tagged(sequence) {
            let count = self.words[NEXT_COUNT].load(Relaxed);
            self.words[HISTOGRAM_HEAD + bucket].store(count, Relaxed);
            self.words[SUM].store(self.words[NEXT_SUM].load(Relaxed), Relaxed);
        }
        self.words[SEQUENCE].store(sequence.wrapping_add(1), Release);
    }

    /// Any reader: fills the counts, not cumulative, and returns the sum. It never waits and never writes.
    pub(crate) fn read(&self, counts: &mut [u64]) -> f64 {
        let mut sum = 0.0;
        for _ in 0..64 {
            let before = self.words[SEQUENCE].load(Acquire);
            sum = self.copy(counts);
            if before.is_multiple_of(2) {
                fence(Acquire);
                if self.words[SEQUENCE].load(Relaxed) == before {
                    return sum;
                }
                continue;
            }
            fence(Acquire); // the counterpart of the fence behind the tag
            let tagged = self.tagged(before);
            let next = (self.words[NEXT_COUNT].load(Relaxed), self.words[NEXT_SUM].load(Relaxed));
            fence(Acquire);
            if self.words[SEQUENCE].load(Relaxed) != before {
                continue;
            }
            if let Some(bucket) = tagged
                && let Some(count) = counts.get_mut(bucket)
            {
                // The writer stands or has died in the middle: take the observation whole.
                *count = next.0;
                sum = f64::from_bits(next.1);
            }
            return sum;
        }
        // 64 changes in a row while 20 words were copied: no two of them belong to one moment, but none is ever behind an
        // earlier read. The sum may be of some observations more or less than the buckets.
        sum
    }

    fn copy(&self, counts: &mut [u64]) -> f64 {
        for (count, word) in counts.iter_mut().zip(self.words.iter().skip(HISTOGRAM_HEAD)) {
            *count = word.load(Relaxed);
        }
        f64::from_bits(self.words[SUM].load(Relaxed))
    }

    fn tagged(&self, sequence: u64) -> Option<usize> {
        let tag = self.words[TAG].load(Acquire);
        let bucket = usize::from(tag.to_le_bytes()[0]);
        (tag >> 8 == sequence & (u64::MAX >> 8)).then_some(bucket)
    }
}

/// Writes the journal, its tag, and then what it says, in an order that a death at any instruction leaves readable.
#[inline]
fn apply(head: &[AtomicU64; HISTOGRAM_HEAD], cell: &AtomicU64, [tag, count, sum]: [u64; 3]) {
    head[NEXT_COUNT].store(count, Relaxed);
    head[NEXT_SUM].store(sum, Relaxed);
    head[TAG].store(tag, Release);
    // A release store lets later stores pass before it, also in the compiler: without this fence a death or a reader could
    // find a bucket that is ahead of its tag.
    fence(Release);
    cell.store(count, Relaxed);
    head[SUM].store(sum, Relaxed);
}

/// A gauge of mode `Last`: sequence, then two places of time and value. Half the sequence says which place is valid: a
/// setter fills the other one, so a death in the middle leaves the value before it, whole.
pub(crate) const LAST_WORDS: usize = 5;

/// Any thread of the owner: sets a `Last` gauge at a monotonic time.
pub(crate) fn set_last(words: &[AtomicU64], now_ns: u64, change: impl Fn(f64) -> f64) {
    let before = lock(&words[0]);
    let [_, value] = last_place(words, before);
    let value = change(f64::from_bits(value.load(Relaxed)));
    let [time, cell] = last_place(words, before.wrapping_add(2));
    time.store(now_ns, Relaxed);
    cell.store(value.to_bits(), Relaxed);
    words[0].store(before.wrapping_add(2), Release);
}

/// Successor of a dead writer: what it had begun to set never happened.
pub(crate) fn settle_last(words: &[AtomicU64]) {
    let sequence = words[0].load(Acquire);
    words[0].store(sequence & !1, Release);
}

/// Any reader: time and value of a `Last` gauge; `None` if it was set 64 times while two words were read.
pub(crate) fn read_last(words: &[AtomicU64]) -> Option<(u64, f64)> {
    for _ in 0..64 {
        let before = words[0].load(Acquire);
        let [time, value] = last_place(words, before);
        let read = (time.load(Relaxed), f64::from_bits(value.load(Relaxed)));
        fence(Acquire);
        if words[0].load(Relaxed) >> 1 == before >> 1 {
            return Some(read);
        }
    }
    None
}

fn last_place(words: &[AtomicU64], sequence: u64) -> [&AtomicU64; 2] {
    if sequence >> 1 & 1 == 0 { [&words[1], &words[2]] } else { [&words[3], &words[4]] }
}

/// Adds to a float cell that several threads write.
pub(crate) fn add_shared(cell: &AtomicU64, delta: f64) {
    // Both orders are relaxed: a gauge is read alone. The closure never refuses, so the result is always Ok.
    let _ =
        cell.fetch_update(Relaxed, Relaxed, |bits| Some((f64::from_bits(bits) + delta).to_bits()));
}

/// Takes a sequence from even to odd and returns the even one. Between threads of one process only: a writer that was
/// killed in between is finished by its successor, not waited for.
fn lock(sequence: &AtomicU64) -> u64 {
    let mut spins = 0_u32;
    loop {
        let before = sequence.load(Relaxed) & !1;
        if sequence.compare_exchange_weak(before, before + 1, AcqRel, Relaxed).is_ok() {
            fence(Release);
            return before;
        }
        spins += 1;
        if spins.is_multiple_of(64) {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

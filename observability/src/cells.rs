//! The words of one series in the value region, and how each kind is written and read so that a death or a reader in the
//! middle does no harm.

pub(crate) mod exemplar;
pub(crate) mod histogram;
pub(crate) mod search;
#[cfg(test)]
mod torn;

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::sync::{AtomicU64, fence, spin_loop, yield_now};

/// A gauge of mode `Last`: sequence, then two places of time and value. Half the sequence says which place is valid: a
/// setter fills the other one, so a death in the middle leaves the value before it, whole.
pub(crate) const LAST_WORDS: usize = 5;

/// Any thread of the owner: sets a `Last` gauge at a monotonic time.
pub(crate) fn set_last(words: &[AtomicU64], now_ns: u64, change: impl Fn(f64) -> f64) {
    let before = lock(&words[0], 1);
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

/// Sets a bit of a word that is not set, and returns the word without it. Between threads of one process only: a writer
/// that was killed in between is finished by its successor, not waited for.
fn lock(word: &AtomicU64, bit: u64) -> u64 {
    let mut spins = 0_u32;
    loop {
        let before = word.load(Relaxed) & !bit;
        if word.compare_exchange_weak(before, before | bit, AcqRel, Relaxed).is_ok() {
            fence(Release);
            return before;
        }
        spins += 1;
        if spins.is_multiple_of(64) {
            yield_now();
        } else {
            spin_loop();
        }
    }
}

/// How much the tests write beside a reader.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests have no settings")]
pub(crate) fn writes_in_tests() -> u32 {
    let is_long = std::env::var("SAOLA_LONG").is_ok_and(|value| value == "1");
    let usual = if is_long { 10_000_000 } else { 300_000 };
    std::env::var("SAOLA_WRITES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

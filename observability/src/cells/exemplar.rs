//! The exemplar of one histogram bucket: the trace of a value that fell into it, behind a sequence of its own.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::ids::{SpanId, TraceId};
use crate::layout::{halves, join};
use crate::sync::{AtomicU64, fence};

/// Sequence, trace (2), span, value, wall clock nanoseconds.
pub(crate) const EXEMPLAR_WORDS: usize = 6;

/// The words of one exemplar.
pub(crate) type Words = [AtomicU64; EXEMPLAR_WORDS];

/// A value, and the trace it came from.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Exemplar {
    /// The trace.
    pub trace: TraceId,
    /// The span in it.
    pub span: SpanId,
    /// The value that was observed.
    pub value: f64,
    /// When, wall clock nanoseconds; as exact as the last request or heartbeat of the writer.
    pub wall_ns: u64,
}

/// Owner only: two plain stores around the fields.
pub(crate) fn set(words: &Words, exemplar: &Exemplar) {
    let odd = words[0].load(Relaxed) | 1;
    words[0].store(odd, Relaxed);
    fence(Release);
    fill(words, exemplar);
    words[0].store(odd.wrapping_add(1), Release);
}

/// Any thread of the owner, in a foreign shard.
pub(crate) fn set_shared(words: &Words, exemplar: &Exemplar) {
    let before = super::lock(&words[0], 1);
    fill(words, exemplar);
    words[0].store(before.wrapping_add(2), Release);
}

fn fill(words: &Words, exemplar: &Exemplar) {
    let [first, second] = halves(exemplar.trace.0);
    words[1].store(first, Relaxed);
    words[2].store(second, Relaxed);
    words[3].store(u64::from_ne_bytes(exemplar.span.0), Relaxed);
    words[4].store(exemplar.value.to_bits(), Relaxed);
    words[5].store(exemplar.wall_ns, Relaxed);
}

/// Any reader: `None` if there is none, or it is half written, or it changed 64 times meanwhile.
pub(crate) fn read(words: &[AtomicU64]) -> Option<Exemplar> {
    let words = words.first_chunk::<EXEMPLAR_WORDS>()?;
    for _ in 0..64 {
        let before = words[0].load(Acquire);
        let [_, first, second, span, value, wall_ns] =
            [0, 1, 2, 3, 4, 5].map(|at: usize| words[at].load(Relaxed));
        fence(Acquire);
        if words[0].load(Relaxed) == before {
            let trace = TraceId(join(first, second));
            let is_whole = before.is_multiple_of(2) && !trace.is_none();
            return is_whole.then(|| Exemplar {
                trace,
                span: SpanId(span.to_ne_bytes()),
                value: f64::from_bits(value),
                wall_ns,
            });
        }
    }
    None
}

/// Successor of a dead writer: a half-written exemplar is none.
pub(crate) fn settle(words: &Words) {
    let sequence = words[0].load(Acquire);
    if !sequence.is_multiple_of(2) {
        words[1].store(0, Relaxed);
        words[2].store(0, Relaxed);
        words[0].store(sequence.wrapping_add(1), Release);
    }
}

//! Responses that are large, and how hyper is to write the others.
//!
//! hyper either copies a body behind its head and writes both as one, or writes head and body as a list of pieces, and wants
//! to know which when a connection begins. A small body is cheaper copied; a large one costs time and memory then. So
//! a connection copies if it begins while responses are small. What is large there all the same is copied part by part, so
//! that hyper never keeps much more than it may have unsent.

use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::scope::Running;
use crate::worker::Worker;

/// A frame of more bytes is large. One of so many costs as much either way, one of four times as many a third more copied.
pub(super) const LARGE: usize = 16_384;
/// How long connections are begun for large responses after one.
const REMEMBERED: Duration = Duration::from_mins(1);

impl Worker {
    /// Says whether a connection that begins now is to copy bodies behind their heads.
    pub(crate) fn copies_bodies(&self, now: Instant) -> bool {
        self.large_at.get().is_none_or(|at| at + REMEMBERED <= now)
    }
}

impl Running {
    /// Notes that a frame of its response is large; says whether it is to be cut, as its connection copies bodies.
    #[cold]
    pub(super) fn sends_large(&self) -> bool {
        self.worker.large_at.set(Some(self.facts.start));
        self.connection.copies_bodies.get()
    }
}

/// What hyper has not been given yet of a large frame.
pub(super) struct Rest {
    bytes: Bytes,
    is_last: bool,
}

impl Rest {
    /// Takes all of a frame, which is the last one or not.
    pub(super) fn of(frame: &mut impl Buf, is_last: bool) -> Self {
        Self { bytes: frame.copy_to_bytes(frame.remaining()), is_last }
    }

    /// Cuts off the next part; says whether nothing follows, here or in other frames.
    pub(super) fn next(&mut self) -> (Bytes, bool) {
        let part = self.bytes.split_to(self.bytes.len().min(LARGE));
        (part, self.is_last && self.is_over())
    }

    pub(super) fn is_over(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_frame_are_the_frame() {
        for (length, is_last) in [(1, true), (LARGE, true), (LARGE + 1, false), (100_000, true)] {
            let whole: Vec<u8> = (0..=250).cycle().take(length).collect();
            let (first, second) = whole.split_at(length / 3);
            let mut rest = Rest::of(&mut first.chain(second), is_last);
            let (mut parts, mut ends) = (Vec::new(), Vec::new());
            while !rest.is_over() {
                let (part, is_end) = rest.next();
                assert!((1..=LARGE).contains(&part.len()), "{length}: {}", part.len());
                parts.extend_from_slice(&part);
                ends.push(is_end);
            }
            assert_eq!(parts, whole);
            assert_eq!(ends.pop(), Some(is_last));
            assert!(!ends.contains(&true), "{length}: the end comes too early");
        }
    }
}

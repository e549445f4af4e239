//! Going through the records of a key region, step by step. Trusts no byte.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use crate::keys::{Damaged, KEY_HEADER, Key, parse};
use crate::layout::{LINE, STEP, Section, size, wide};
use crate::map::Map;

/// Walks the records of a key region between two offsets, each given with its own offset.
pub(crate) struct Walk<'m> {
    map: &'m Map,
    section: Section,
    at: usize,
    end: usize,
    bytes: Vec<u8>,
}

impl<'m> Walk<'m> {
    pub(crate) fn new(map: &'m Map, section: Section, from: usize, to: u64) -> Self {
        Self {
            map,
            section,
            at: from.max(LINE),
            end: size(to).min(section.capacity),
            bytes: Vec::new(),
        }
    }

    /// The next record, `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, Key<'_>)>, Damaged> {
        while self.at < self.end {
            let at = self.at;
            let damaged = Damaged { at };
            if at.is_multiple_of(STEP) {
                self.at = at.saturating_add(LINE); // behind the sentinel
                continue;
            }
            let left = STEP.saturating_sub(at % STEP);
            let head = if left < KEY_HEADER { 0 } else { self.load(at) };
            let length = wide(low(head));
            if length == 0 {
                // The rest of this step was too small for the next record.
                self.at = at.saturating_add(left).saturating_add(LINE);
                continue;
            }
            let end = at.checked_add(length).filter(|end| *end <= self.end).ok_or(damaged)?;
            if length < KEY_HEADER || length > left || !length.is_multiple_of(8) {
                return Err(damaged);
            }
            let absolute = self.section.offset.saturating_add(at);
            self.map.copy_out(absolute, length, &mut self.bytes);
            let key = parse(&self.bytes).ok_or(damaged)?;
            self.at = end;
            return Ok(Some((at, key)));
        }
        Ok(None)
    }

    fn load(&self, at: usize) -> u64 {
        self.map.load(self.section.offset.saturating_add(at))
    }
}

/// The lower 32 bits of a word.
const fn low(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

//! The ring of records in a slot file: one writer, any number of readers, never blocks.
//!
//! Full, it drops the newest record and counts it: overwriting would race with the observer's copy (there is no reader
//! lock), waiting would let a reader stop a request. What a record means is in `record.rs`.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod history;
mod raw;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::ids::SpanId;
use crate::layout::{
    BAD_RINGS_AT, CURSORS, OWNER_CURSORS_AT, OWNER_HEAD_AT, RECORDS_DROPPED_AT, SHARED_CURSORS_AT,
    SHARED_DROPPED_AT, SHARED_HEAD_AT, Section, Sections, UNREADABLE_AT, long, size, wide,
};
use crate::map::Map;
use crate::record::decode::Header;
use crate::record::encode::{HEADER, LONGEST, PAD};
use crate::record::{Kind, Record};
pub use crate::ring::raw::RawEntry;
use crate::sync::fence;

/// Which of the two rings of a slot.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub enum RingName {
    /// The one that the worker's event loop writes.
    Owner,
    /// The one that its other threads write.
    Shared,
}

/// Who reads: each stage has its own cursor in the file (F48).
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub enum Stage {
    /// The writer of lines.
    Log,
    /// The exporter of spans.
    Otlp,
    /// The labels of profiles.
    Profile,
}

impl Stage {
    const fn number(self) -> usize {
        match self {
            Self::Log => 0,
            Self::Otlp => 1,
            Self::Profile => 2,
        }
    }
}

/// Where one ring of a file stands.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Ring {
    section: Section,
    pub(crate) head_at: usize,
    cursors_at: usize,
    dropped_at: usize,
    bad_at: usize,
}

impl Ring {
    pub(crate) fn new(sections: &Sections, name: RingName) -> Self {
        match name {
            RingName::Owner => Self {
                section: sections.owner_ring,
                head_at: OWNER_HEAD_AT,
                cursors_at: OWNER_CURSORS_AT,
                dropped_at: RECORDS_DROPPED_AT,
                bad_at: BAD_RINGS_AT,
            },
            RingName::Shared => Self {
                section: sections.shared_ring,
                head_at: SHARED_HEAD_AT,
                cursors_at: SHARED_CURSORS_AT,
                dropped_at: SHARED_DROPPED_AT,
                bad_at: BAD_RINGS_AT + 8,
            },
        }
    }

    pub(crate) fn capacity(&self) -> u64 {
        long(self.section.capacity)
    }

    pub(crate) fn head(&self, map: &Map) -> u64 {
        map.word(self.head_at).load(Acquire)
    }

    pub(crate) fn cursor(&self, map: &Map, stage: Stage) -> u64 {
        map.load(self.cursor_at(stage.number()))
    }

    /// Moves a cursor forward; one that is further already stays. Two threads of an observer may do so.
    pub(crate) fn commit(&self, map: &Map, stage: Stage, position: u64) {
        map.word(self.cursor_at(stage.number())).fetch_max(position, Release);
    }

    /// Sets a cursor that was impossible.
    pub(crate) fn repair(&self, map: &Map, stage: Stage, position: u64) {
        map.word(self.cursor_at(stage.number())).store(position, Release);
    }

    /// Says whether every stage is done with everything that was published.
    pub(crate) fn is_read(&self, map: &Map) -> bool {
        let head = self.head(map);
        self.slowest_cursor(map, head) == head
    }

    /// Sets every cursor before the first use: the stages of the observer to 0, the free ones out of the way.
    pub(crate) fn reset_cursors(&self, map: &Map, stages: &[Stage]) {
        for number in 0..CURSORS {
            let used = stages.iter().any(|stage| stage.number() == number);
            map.store(self.cursor_at(number), if used { 0 } else { u64::MAX });
        }
    }

    pub(crate) fn dropped_at(&self, kind: Kind) -> usize {
        self.dropped_at.saturating_add(kind.number().saturating_mul(8))
    }

    /// Says whether a rest was skipped and no good record has come since (F47).
    pub(crate) fn is_bad(&self, map: &Map) -> bool {
        map.load(self.bad_at) != 0
    }

    /// A rest was skipped: it counts as one record of this kind.
    pub(crate) fn set_bad(&self, map: &Map, kind: Kind) {
        let cell = UNREADABLE_AT.saturating_add(kind.number().saturating_mul(8));
        map.store(cell, map.load(cell).wrapping_add(1));
        map.store(self.bad_at, 1);
    }

    /// A good record has come.
    pub(crate) fn set_good(&self, map: &Map) {
        map.store(self.bad_at, 0);
    }

    fn slowest_cursor(&self, map: &Map, head: u64) -> u64 {
        let cursors = map.words(self.cursors_at, CURSORS).iter();
        let slowest = cursors.map(|cursor| cursor.load(Acquire)).min().unwrap_or(head);
        slowest.min(head) // none in use, or one that is damaged
    }

    fn cursor_at(&self, number: usize) -> usize {
        self.cursors_at.saturating_add(number.saturating_mul(8))
    }

    fn offset(&self, position: u64) -> usize {
        self.section.offset.saturating_add(self.within(position))
    }

    fn within(&self, position: u64) -> usize {
        // A power of two, or the header would have been refused: a division would cost more than the rest.
        size(position) & self.section.capacity.saturating_sub(1)
    }
}

/// The writing end. There is one for each ring and process, and one thread at a time uses it.
pub(crate) struct Producer {
    ring: Ring,
    head: u64,
    slowest: u64,
}

impl Producer {
    /// Goes on where the ring's head stands: a dead writer's unpublished bytes are overwritten.
    pub(crate) fn resume(map: &Map, ring: Ring) -> Self {
        // A damaged head may be anything; positions of ours are multiples of 8.
        let head = ring.head(map) & !7;
        Self { ring, head, slowest: ring.slowest_cursor(map, head) }
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Writes a record behind the head without publishing it. `Some(head)` is what to publish; `None` means no room, or
    /// longer than a record may be: the record is to be counted as dropped.
    pub(crate) fn stage(&mut self, map: &Map, record: &mut [u8]) -> Option<u64> {
        self.stage_with(map, record.len(), |position, offset| {
            if let Some(place) = record.get_mut(8..HEADER) {
                place.copy_from_slice(&position.to_ne_bytes());
            }
            map.copy_in(offset, record);
        })
    }

    /// The same for a record of so many bytes, a multiple of 8, that `write` stores itself: it is given the position in the
    /// ring and the offset in the mapping.
    #[inline]
    pub(crate) fn stage_with(
        &mut self,
        map: &Map,
        bytes: usize,
        write: impl FnOnce(u64, usize),
    ) -> Option<u64> {
        let length = long(bytes);
        let capacity = self.ring.capacity();
        if bytes > LONGEST || length.checked_mul(2)? > capacity {
            return None;
        }
        let left = capacity.checked_sub(long(self.ring.within(self.head)))?;
        let pad = if left < length { left } else { 0 };
        let end = self.head.checked_add(pad)?.checked_add(length)?;
        if end.wrapping_sub(self.slowest) > capacity {
            self.slowest = self.ring.slowest_cursor(map, self.head);
            if end.wrapping_sub(self.slowest) > capacity {
                return None;
            }
        }
        if pad > 0 {
            self.write_pad(map, pad);
        }
        let position = end.checked_sub(length)?;
        write(position, self.ring.offset(position));
        self.head = end;
        self.fetch_next(map, bytes);
        Some(end)
    }

    /// Writes and publishes; a record that finds no room is counted.
    pub(crate) fn push(&mut self, map: &Map, record: &mut [u8], kind: Kind) -> bool {
        let before = self.head;
        if let Some(head) = self.stage(map, record) {
            map.word(self.ring.head_at).store(head, Release);
            true
        } else {
            self.head = before;
            let cell = self.ring.dropped_at(kind);
            map.store(cell, map.load(cell).wrapping_add(1));
            false
        }
    }

    /// Fetches the place of the next record, which is mostly as long as this one: the observer has read what stood there
    /// before, and who writes would wait for each line of it.
    fn fetch_next(&self, map: &Map, length: usize) {
        let Section { offset, capacity } = self.ring.section;
        let next = self.ring.within(self.head);
        let bytes = length.min(capacity.saturating_sub(next));
        map.fetch_to_write(offset.saturating_add(next), bytes / 8);
    }

    fn write_pad(&self, map: &Map, pad: u64) {
        // Records are multiples of 8, so a pad has at least room for its own first word.
        let [a, b, c, d, ..] = pad.to_le_bytes();
        let word = u64::from_ne_bytes([a, b, c, d, PAD, 1, 0, 0]);
        let at = self.ring.offset(self.head);
        map.store(at, word);
        if pad >= 16 {
            map.store(at.saturating_add(8), self.head);
        }
    }
}

/// What a reader found at a position.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on the reader's stack")]
pub enum Entry<'a> {
    /// A record.
    Record(Record<'a>),
    /// The end of a request whose trace is not kept, by its server span. Only who reads for spans gets these.
    Unkept(SpanId),
    /// A record of a kind that this version does not know: skipped.
    Unknown,
    /// The rest of the ring up to its head cannot be read: it is skipped and counts as one dropped record.
    Damaged(Kind),
}

/// What a reader wants of requests.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Wants {
    All,
    /// Only the end of those whose traces are not kept.
    Kept,
}

/// Reads one ring from a position on. Trusts no byte (F47).
pub(crate) struct Consumer<'m> {
    pub(crate) map: &'m Map,
    pub(crate) ring: Ring,
}

impl Consumer<'_> {
    /// Where to begin when a stage's cursor says `cursor`: there, or at the head if the cursor is impossible (F49).
    pub(crate) fn start(&self, cursor: u64) -> (u64, u64) {
        let head = self.ring.head(self.map);
        let possible = cursor <= head
            && cursor.is_multiple_of(8)
            && head.wrapping_sub(cursor) <= self.ring.capacity();
        (if possible { cursor } else { head }, head)
    }

    /// The entry at `position` and where the next one is. `None`: nothing is published there yet.
    pub(crate) fn read<'b>(
        &self,
        position: u64,
        head: u64,
        raw: &'b mut RawEntry,
    ) -> Option<(u64, Entry<'b>)> {
        self.copy(position, head, raw).then(|| raw.decode())
    }

    /// Copies the entry at `position`. False: nothing is published there yet.
    pub(crate) fn copy(&self, mut position: u64, head: u64, raw: &mut RawEntry) -> bool {
        raw.head = head;
        loop {
            if position >= head {
                return false;
            }
            raw.end = head;
            if !position.is_multiple_of(8) {
                raw.found = Err(Kind::Event); // behind a damaged head
                return true;
            }
            let at = self.ring.offset(position);
            let header = Header::read(self.map.load(at));
            raw.found = Err(header.counted_as());
            let length = u64::from(header.length);
            let left = self.ring.capacity().saturating_sub(long(self.ring.within(position)));
            let Some(next) = position.checked_add(length) else { return true };
            if length < 8 || !length.is_multiple_of(8) || length > left || next > head {
                return true;
            }
            if header.kind == PAD {
                position = next;
                continue;
            }
            let longest = wide(header.length) <= LONGEST && length >= long(HEADER);
            if longest && self.map.load(at.saturating_add(8)) == position {
                self.map.copy_out(at, wide(header.length), &mut raw.bytes);
                fence(Acquire);
                (raw.found, raw.end) = (Ok(header), next);
            }
            return true;
        }
    }

    pub(crate) fn dropped(&self, kind: Kind) -> u64 {
        self.map.word(self.ring.dropped_at(kind)).load(Relaxed)
    }
}

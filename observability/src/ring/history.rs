//! What a ring still holds although every stage is done with it: for guests, who have no cursor (F51).
//!
//! The writer uses the space of what is committed again from the oldest byte on, so the youngest part of the ring stays
//! whole for a while. Where a record begins there is found by its own position, which stands in its header.

use std::sync::atomic::Ordering::Acquire;

use super::{Consumer, Header, PAD, Ring};
use crate::layout::long;
use crate::map::Map;
use crate::record::encode::{HEADER, LONGEST};
use crate::sync::fence;

impl Ring {
    /// Everything from here to the head is whole at this moment: the writer is busy with a record, and with a pad before it,
    /// behind the head at most.
    pub(crate) fn floor(&self, map: &Map) -> u64 {
        fence(Acquire); // after the copy that this judges
        let busy = long(LONGEST).saturating_mul(2);
        self.head(map).saturating_add(busy).saturating_sub(self.capacity()).next_multiple_of(8)
    }
}

impl Consumer<'_> {
    /// The first record at or behind the floor; the head if there is none.
    pub(crate) fn oldest_whole(&self) -> u64 {
        let (floor, head) = (self.ring.floor(self.map), self.ring.head(self.map));
        let mut position = floor;
        while position < head {
            if self.is_record(position, head) {
                return position;
            }
            position = position.saturating_add(8);
        }
        head
    }

    /// Whether a record begins there: its header says so, and another begins where it ends, and so on for a few.
    fn is_record(&self, position: u64, head: u64) -> bool {
        let mut position = position;
        for _ in 0..CHAIN {
            if position == head {
                return true;
            }
            let at = self.ring.offset(position);
            let header = Header::read(self.map.load(at));
            let length = u64::from(header.length);
            let left = self.ring.capacity().saturating_sub(long(self.ring.within(position)));
            let is_pad = header.kind == PAD;
            let least = if is_pad { 8 } else { long(HEADER) };
            let fits = length >= least && length.is_multiple_of(8) && length <= left;
            // A pad of one word has no room for its position.
            let is_placed = (is_pad && length == 8)
                || (fits && self.map.load(at.saturating_add(8)) == position);
            let next = position.saturating_add(length);
            if !fits || !is_placed || next > head {
                return false;
            }
            position = next;
        }
        true
    }
}

/// Headers that must follow each other: nothing that a request brings can look like them.
const CHAIN: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::closed::Role;
    use crate::layout::Shape;
    use crate::record::{Kind, Record};
    use crate::ring::tests::event_of;
    use crate::ring::{Entry, Producer, RawEntry, RingName, Stage};

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

        /// What a guest finds is the unbroken end of what was written, also when texts look like headers.
        #[test]
        fn a_guest_finds_where_a_record_begins(lengths in proptest::collection::vec(0_usize..4_000, 1..400)) {
            let shape = Shape { ring_bytes: 128 << 10, ..Shape::default() };
            let sections = shape.sections(Role::Worker);
            let file = tempfile::tempfile().unwrap();
            file.set_len(long(sections.samples.end())).unwrap();
            let map = Map::writable(&file, sections.samples.end()).unwrap();
            let ring = Ring::new(&sections, RingName::Owner);
            ring.reset_cursors(&map, &[Stage::Log]);
            let mut producer = Producer::resume(&map, ring);
            let mut written = Vec::new();
            for (number, length) in lengths.into_iter().enumerate() {
                let forged = format!("\u{30}\0\0\0\u{3}\u{1}\0\0{number}");
                let text = format!("{number}:{}", forged.repeat(length / forged.len()));
                let kept = text.split_at(text.floor_char_boundary(4_096)).0.to_owned();
                prop_assert!(producer.push(&map, &mut event_of(&text), Kind::Event));
                written.push(kept);
                ring.commit(&map, Stage::Log, ring.head(&map));
            }
            let consumer = Consumer { map: &map, ring };
            let (mut position, head) = (consumer.oldest_whole(), ring.head(&map));
            prop_assert!(position >= ring.floor(&map) || position == head);
            let (mut found, mut raw) = (Vec::new(), RawEntry::default());
            while let Some((next, entry)) = consumer.read(position, head, &mut raw) {
                let Entry::Record(Record::Event(event)) = entry else { panic!("{entry:?}") };
                found.push(event.message);
                position = next;
            }
            prop_assert!(written.ends_with(&found));
            prop_assert!(!found.is_empty() || head == 0);
        }
    }
}

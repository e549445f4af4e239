//! The two rings of one slot: reading from a position on, the cursors of the stages, and the samples beside them.

use std::ops::Range;

use crate::closed::{Role, SlotState};
use crate::in_flight::entry::InFlightEntry;
use crate::layout::{HEADER_BYTES, SAMPLES_CURSOR_AT, TOLD_AT};
use crate::map::Map;
use crate::record::Kind;
use crate::ring::{Consumer, Entry, RawEntry, Ring, RingName, Stage, Wants};
use crate::samples::{Found, SampleRing};
use crate::view::{Seen, View};

/// The two rings of one slot, and what else its file says.
pub struct Slot {
    pub(super) view: View,
    rings: [(RingName, Ring); 2],
    pub(super) raw: RawEntry,
}

/// A place in a ring: bytes since its beginning, never wrapping.
pub type Position = u64;

impl Slot {
    pub(super) fn new(view: View) -> Self {
        let rings =
            [RingName::Owner, RingName::Shared].map(|name| (name, Ring::new(&view.sections, name)));
        Self { view, rings, raw: RawEntry::default() }
    }

    /// Whose slot it is.
    pub fn role(&self) -> Role {
        self.view.role
    }

    /// The number: the label `worker` of a worker's slot.
    pub fn number(&self) -> u32 {
        self.view.number
    }

    /// What the header says of its owner.
    pub fn seen(&self) -> Seen {
        self.view.seen()
    }

    /// Says whether a process owns it now.
    pub fn is_live(&self) -> bool {
        self.view.is_live()
    }

    /// Says whether a dead owner's slot still waits for the supervisor: its lost requests are not yet in the ring.
    pub fn is_unburied(&self) -> bool {
        self.seen().state != SlotState::Free && !self.is_live()
    }

    /// The requests being served now, oldest first.
    pub fn in_flight(&mut self) -> Vec<InFlightEntry> {
        self.view.in_flight()
    }

    /// Where a stage is to go on, after a death of the observer too; an impossible cursor is the head.
    pub fn start(&self, name: RingName, stage: Stage) -> Position {
        let consumer = self.consumer(name);
        let cursor = consumer.ring.cursor(&self.view.map, stage);
        let (position, _) = consumer.start(cursor);
        if position != cursor {
            consumer.ring.repair(&self.view.map, stage, position);
        }
        position
    }

    /// A cursor that another thread of the observer may move: the one that writes to stdout.
    ///
    /// # Errors
    ///
    /// What mapping one page of the file said.
    pub fn cursor(&self, name: RingName, stage: Stage) -> std::io::Result<Cursor> {
        let map = Map::writable(&self.view.file, HEADER_BYTES)?;
        Ok(Cursor { map, ring: self.ring(name), stage })
    }

    /// Reads entries from a position on until `each` says stop or nothing is left; returns where it stopped. `each` gets the
    /// position behind the entry.
    pub fn read(
        &mut self,
        name: RingName,
        position: Position,
        each: impl FnMut(Position, Entry<'_>) -> Reading,
    ) -> Position {
        self.read_as(Wants::All, name, position, each)
    }

    /// Copies the next entry within these positions, for who has to choose between several rings; false if there is none. The end
    /// is a [`Slot::head`] that was asked for before: with each question the writer has to fetch that word back from the
    /// reader's processor.
    pub fn copy(&self, name: RingName, positions: Range<Position>, raw: &mut RawEntry) -> bool {
        self.consumer(name).copy(positions.start, positions.end, raw)
    }

    /// As [`Slot::read`], for spans: of a request whose trace is not kept only the end is told.
    pub fn read_kept(
        &mut self,
        name: RingName,
        position: Position,
        each: impl FnMut(Position, Entry<'_>) -> Reading,
    ) -> Position {
        self.read_as(Wants::Kept, name, position, each)
    }

    fn read_as(
        &mut self,
        wants: Wants,
        name: RingName,
        mut position: Position,
        mut each: impl FnMut(Position, Entry<'_>) -> Reading,
    ) -> Position {
        let head = self.head(name);
        let mut raw = std::mem::take(&mut self.raw);
        let consumer = self.consumer(name);
        while consumer.copy(position, head, &mut raw) {
            let (next, entry) = raw.decode_as(wants);
            position = next;
            if each(next, entry) == Reading::Stop {
                break;
            }
        }
        self.raw = raw;
        position
    }

    /// Positions of the sample ring: what may still be read, and where the next sample will stand. Empty without a ring.
    pub fn samples(&self) -> Range<Position> {
        SampleRing::new(self.view.sections.samples).map_or(0..0, |ring| {
            let head = SampleRing::head(&self.view.map);
            head.saturating_sub(ring.entries())..head
        })
    }

    /// What stands at a position of the sample ring.
    pub fn sample(&self, position: Position) -> Found {
        SampleRing::new(self.view.sections.samples)
            .map_or(Found::Overwritten, |ring| ring.read(&self.view.map, position))
    }

    /// How far the samples were read, by this observer or one before it.
    pub fn samples_read(&self) -> Position {
        self.view.map.load(SAMPLES_CURSOR_AT)
    }

    /// Says that the samples before a position were read.
    pub fn commit_samples(&self, position: Position) {
        self.view.map.store(SAMPLES_CURSOR_AT, position);
    }

    /// The string of an id that this slot's owner gave: the route of a sample. One that is not known is `other`.
    pub fn string(&mut self, id: u32) -> String {
        self.view.new_string(id)
    }

    /// Says that a stage is done with everything before a position: the writer may use that space again.
    pub fn commit(&self, name: RingName, stage: Stage, position: Position) {
        self.ring(name).commit(&self.view.map, stage, position);
    }

    /// The writer's position.
    pub fn head(&self, name: RingName) -> Position {
        self.ring(name).head(&self.view.map)
    }

    /// Bytes that the ring holds.
    pub fn capacity(&self, name: RingName) -> u64 {
        self.ring(name).capacity()
    }

    /// Records of a kind that found no room, ever, in this slot.
    pub fn dropped(&self, kind: Kind) -> u64 {
        [RingName::Owner, RingName::Shared]
            .map(|name| self.consumer(name).dropped(kind))
            .iter()
            .sum()
    }

    /// How many of these [`Slot::dropped`] were told of, by this observer or one before it.
    pub fn told(&self, kind: Kind) -> u64 {
        self.view.map.load(TOLD_AT + kind.number() * 8)
    }

    /// Says that so many were told of.
    pub fn set_told(&self, kind: Kind, count: u64) {
        self.view.map.store(TOLD_AT + kind.number() * 8, count);
    }

    /// Says whether a rest of the ring could not be read, by this observer or one before it, and no good record has come since.
    pub fn is_bad(&self, name: RingName) -> bool {
        self.ring(name).is_bad(&self.view.map)
    }

    /// Says that the rest of a ring could not be read: whoever scrapes sees a bad slot, and one dropped record of this kind.
    pub fn set_bad(&self, name: RingName, kind: Kind) {
        self.ring(name).set_bad(&self.view.map, kind);
    }

    /// Says that a good record has come from a ring that was bad.
    pub fn set_good(&self, name: RingName) {
        self.ring(name).set_good(&self.view.map);
    }

    fn ring(&self, name: RingName) -> Ring {
        let [owner, shared] = self.rings;
        match name {
            RingName::Owner => owner.1,
            RingName::Shared => shared.1,
        }
    }

    pub(super) fn consumer(&self, name: RingName) -> Consumer<'_> {
        Consumer { map: &self.view.map, ring: self.ring(name) }
    }
}

/// One stage's cursor in one ring.
pub struct Cursor {
    map: Map,
    ring: Ring,
    stage: Stage,
}

impl Cursor {
    /// Says that the stage is done with everything before a position; it never goes back.
    pub fn advance(&self, position: Position) {
        self.ring.commit(&self.map, self.stage, position);
    }
}

/// Whether to read on.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Reading {
    /// There is room for more.
    On,
    /// Enough for now.
    Stop,
}

//! Where everything stands in a slot file (format 1.0). `docs/slot-file.md` is the same for readers in other languages.
//!
//! All numbers are native 64-bit words; a field narrower than a word is packed into one, lowest bits first.

use crate::closed::Role;

/// The first word of a complete file: `SAOLASLT`. It is stored last, with release.
pub(crate) const MAGIC: u64 = u64::from_ne_bytes(*b"SAOLASLT");
/// Another major is another layout (F58).
pub(crate) const MAJOR: u16 = 1;
/// A higher minor only appends.
pub(crate) const MINOR: u16 = 0;

/// The apparent size of every slot file; it is sparse.
pub(crate) const FILE_BYTES: usize = 64 << 20;
/// Keys and values grow in steps of this many bytes.
pub(crate) const STEP: usize = 64 << 10;
/// The first line of each step holds its sentinel (F57a).
pub(crate) const LINE: usize = 64;
pub(crate) const PAGE: usize = 4 << 10;

pub(crate) const HEADER_BYTES: usize = PAGE;
pub(crate) const KEYS_AT: usize = 16 << 20;
pub(crate) const VALUES_AT: usize = 32 << 20;

// ---- identity: written by the creator, once
pub(crate) const MAGIC_AT: usize = 0x00;
/// major u16, minor u16, header length u32
pub(crate) const FORMAT_AT: usize = 0x08;
pub(crate) const BOOT_AT: usize = 0x10;
pub(crate) const EPOCH_AT: usize = 0x20;
/// slot u32, role u8
pub(crate) const NUMBER_AT: usize = 0x28;
/// crc32 of the words before it and of the section table
pub(crate) const CRC_AT: usize = 0x30;
pub(crate) const CREATED_AT: usize = 0x38;
/// section table: per section offset and capacity
pub(crate) const SECTIONS_AT: usize = 0x40;
pub(crate) const SECTIONS: usize = 6;

// ---- owner
pub(crate) const PID_AT: usize = 0x100;
pub(crate) const START_TIME_AT: usize = 0x108;
pub(crate) const GENERATION_AT: usize = 0x110;
pub(crate) const IMAGE_AT: usize = 0x118;
pub(crate) const BIRTHS_AT: usize = 0x120;
pub(crate) const STATE_AT: usize = 0x128;
/// wall clock nanoseconds of the last change of the state
pub(crate) const SINCE_AT: usize = 0x130;
/// requests that were begun in this slot before its owner was born; written by the supervisor
pub(crate) const STARTED_BEFORE_AT: usize = 0x138;

// ---- liveness
pub(crate) const HEARTBEAT_AT: usize = 0x140;
pub(crate) const LOOP_LAG_AT: usize = 0x148;
pub(crate) const LOOP_LAG_MAX_AT: usize = 0x150;
pub(crate) const LOOP_BUSY_AT: usize = 0x158;
pub(crate) const ACCEPTED_AT: usize = 0x160;
pub(crate) const CONNECTIONS_AT: usize = 0x168;
pub(crate) const CONNECTIONS_LIMIT_AT: usize = 0x170;

// ---- publication
pub(crate) const KEYS_LENGTH_AT: usize = 0x180;
pub(crate) const VALUES_LENGTH_AT: usize = 0x188;
pub(crate) const SERIES_AT: usize = 0x190;
pub(crate) const KEYS_ALLOCATED_AT: usize = 0x198;
pub(crate) const VALUES_ALLOCATED_AT: usize = 0x1A0;
/// role supervisor only: how many worker slots the epoch has, so that a reader misses one that was deleted
pub(crate) const SLOTS_AT: usize = 0x1A8;

// ---- drops
pub(crate) const UPDATES_LIMIT_AT: usize = 0x1C0;
pub(crate) const UPDATES_NO_SPACE_AT: usize = 0x1C8;
pub(crate) const UPDATES_CONFLICT_AT: usize = 0x1D0;
pub(crate) const UPDATES_INVALID_AT: usize = 0x1D8;
pub(crate) const IN_FLIGHT_OVERFLOW_AT: usize = 0x1E0;
/// four words, in the order of `record::Kind::ALL`; the owner's
pub(crate) const RECORDS_DROPPED_AT: usize = 0x200;
/// likewise, of the other threads
pub(crate) const SHARED_DROPPED_AT: usize = 0x220;
/// the last of them: samples are counted by handlers on any thread
pub(crate) const SAMPLES_DROPPED_AT: usize = SHARED_DROPPED_AT + 3 * 8;

// ---- rings: head on one line, eight cursors on the next
pub(crate) const OWNER_HEAD_AT: usize = 0x240;
pub(crate) const OWNER_CURSORS_AT: usize = 0x280;
pub(crate) const SHARED_HEAD_AT: usize = 0x2C0;
pub(crate) const SHARED_CURSORS_AT: usize = 0x300;
pub(crate) const SAMPLES_HEAD_AT: usize = 0x340;
/// how far the observer has read the samples
pub(crate) const SAMPLES_CURSOR_AT: usize = 0x350;
/// nanoseconds spent in the handler of the profiler
pub(crate) const HANDLER_NS_AT: usize = 0x348;
pub(crate) const CURSORS: usize = 8;

/// role supervisor only
pub(crate) const BELL_AT: usize = 0x380;

// ---- losses: written by the observer
/// four words, in the order of `record::Kind::ALL`: rests of rings that could not be read
pub(crate) const UNREADABLE_AT: usize = 0x3A0;
/// for the owner's ring and the shared one: 1 from a rest that could not be read to the next good record
pub(crate) const BAD_RINGS_AT: usize = 0x3C0;
/// four words again: dropped records that a line has told of
pub(crate) const TOLD_AT: usize = 0x3D0;
/// the question for the owner's heap that has no answer yet; 0 is none
pub(crate) const HEAP_QUESTION_AT: usize = 0x3F0;

// ---- redo log: number of committed items, then the items of two words
pub(crate) const REDO_AT: usize = 0x400;
pub(crate) const REDO_ITEMS_AT: usize = 0x440;
pub(crate) const REDO_ITEMS: usize = 24;
pub(crate) const REDO_ITEM_BYTES: usize = 16;

pub(crate) const ENTRY_BYTES: usize = 256;
pub(crate) const SAMPLE_BYTES: usize = 576;
pub(crate) const SAMPLE_ENTRIES: usize = 512;

const _: () = assert!(REDO_ITEMS_AT + REDO_ITEMS * REDO_ITEM_BYTES <= HEADER_BYTES);
const _: () = assert!(SECTIONS_AT + SECTIONS * 16 <= PID_AT);
const _: () = assert!(TOLD_AT + 4 * 8 <= HEAP_QUESTION_AT && HEAP_QUESTION_AT + 8 <= REDO_AT);
const _: () = assert!(usize::BITS == 64, "slot files are made for 64-bit machines");

/// A part of the file.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub(crate) struct Section {
    pub(crate) offset: usize,
    /// Bytes it may take; keys and values start smaller.
    pub(crate) capacity: usize,
}

impl Section {
    pub(crate) fn end(self) -> usize {
        self.offset.saturating_add(self.capacity)
    }
}

/// The section table, in the order in which it stands in the header.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Sections {
    pub(crate) in_flight: Section,
    pub(crate) owner_ring: Section,
    pub(crate) shared_ring: Section,
    pub(crate) samples: Section,
    pub(crate) keys: Section,
    pub(crate) values: Section,
}

impl Sections {
    pub(crate) fn array(self) -> [Section; SECTIONS] {
        [self.in_flight, self.owner_ring, self.shared_ring, self.samples, self.keys, self.values]
    }

    pub(crate) fn from_array(sections: [Section; SECTIONS]) -> Self {
        let [in_flight, owner_ring, shared_ring, samples, keys, values] = sections;
        Self { in_flight, owner_ring, shared_ring, samples, keys, values }
    }
}

/// How large the parts of new slot files are.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Shape {
    /// Requests of one worker that can be told apart while they run. Default 1,024.
    pub in_flight_entries: u32,
    /// Bytes of a worker's owner ring: a power of two from 128 KiB to 4 MiB. Default 1 MiB.
    pub ring_bytes: u32,
    /// Whether workers have a sample ring. Default yes.
    pub samples: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { in_flight_entries: 1_024, ring_bytes: 1 << 20, samples: true }
    }
}

impl Shape {
    pub(crate) fn sections(self, role: Role) -> Sections {
        let (entries, ring, samples) = match role {
            Role::Worker => {
                let samples = if self.samples { SAMPLE_ENTRIES * SAMPLE_BYTES } else { 0 };
                (wide(self.in_flight_entries) * ENTRY_BYTES, wide(self.ring_bytes), samples)
            }
            Role::Supervisor => (0, 256 << 10, 0),
            Role::Observer => (0, 64 << 10, 0),
        };
        let in_flight = Section { offset: HEADER_BYTES, capacity: entries.next_multiple_of(PAGE) };
        let owner_ring = Section { offset: in_flight.end(), capacity: ring };
        let shared_ring = Section { offset: owner_ring.end(), capacity: ring / 4 };
        let samples =
            Section { offset: shared_ring.end(), capacity: samples.next_multiple_of(PAGE) };
        let keys = Section { offset: KEYS_AT, capacity: VALUES_AT - KEYS_AT };
        let values = Section { offset: VALUES_AT, capacity: FILE_BYTES - VALUES_AT };
        Sections { in_flight, owner_ring, shared_ring, samples, keys, values }
    }

    /// Bytes that a worker's slot takes on disk before any series is made.
    pub fn slot_bytes(self) -> u64 {
        u64::try_from(self.sections(Role::Worker).samples.end() + 2 * STEP).unwrap_or(u64::MAX)
    }
}

/// Two words of 16 bytes, in the machine's order.
pub(crate) fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let (words, _) = bytes.as_chunks::<8>();
    [0, 1].map(|at: usize| u64::from_ne_bytes(words[at]))
}

/// The 16 bytes of two words.
pub(crate) fn join(first: u64, second: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_ne_bytes());
    bytes[8..].copy_from_slice(&second.to_ne_bytes());
    bytes
}

/// A 32-bit number as a size or index; lossless on the machines this crate is made for.
pub(crate) const fn wide(number: u32) -> usize {
    let [a, b, c, d] = number.to_le_bytes();
    usize::from_le_bytes([a, b, c, d, 0, 0, 0, 0])
}

/// A 64-bit number as a size or index; lossless on the machines this crate is made for.
pub(crate) const fn size(number: u64) -> usize {
    usize::from_le_bytes(number.to_le_bytes())
}

/// A size or index as a 64-bit number; lossless on the machines this crate is made for.
pub(crate) const fn long(number: usize) -> u64 {
    u64::from_le_bytes(number.to_le_bytes())
}

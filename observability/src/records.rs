//! Writing spans, events and panics: on the owner's thread into the owner ring, on any other into the shared ring.
//!
//! Nothing here waits for a reader. A record that finds no room is counted by kind.

use crate::layout::Sections;
use crate::map::Map;
use crate::record::Kind;
use crate::record::encode::{Encoder, Event, Panic, Span};
use crate::ring::{Producer, Ring, RingName};
use crate::slot::Slot;

/// Writes records into one slot.
#[derive(Copy, Clone)]
pub struct Records {
    pub(crate) slot: &'static Slot,
}

/// The shared ring's writing end and its buffer, behind the slot's lock. The owner's thread never takes that lock.
pub(crate) struct Shared {
    producer: Producer,
    bytes: Vec<u8>,
}

impl Shared {
    pub(crate) fn resume(map: &Map, sections: &Sections) -> Self {
        let ring = Ring::new(sections, RingName::Shared);
        Self { producer: Producer::resume(map, ring), bytes: Vec::new() }
    }
}

impl Records {
    /// Writes a log event down.
    pub fn event(self, event: &Event<'_>) {
        self.write(Kind::Event, |bytes| Encoder::event(bytes, event));
    }

    /// Writes a child span down that has ended.
    pub fn span(self, span: &Span<'_>) {
        self.write(Kind::Span, |bytes| Encoder::span(bytes, span));
    }

    /// Writes a panic down.
    pub fn panic(self, panic: &Panic<'_>) {
        self.write(Kind::Event, |bytes| Encoder::panic(bytes, panic));
    }

    pub(crate) fn write(self, kind: Kind, encode: impl FnOnce(&mut Vec<u8>)) {
        if let Some(owned) = self.slot.owned() {
            owned.push(kind, encode);
        } else {
            let shared = &mut *self.slot.shared();
            encode(&mut shared.bytes);
            shared.producer.push(&self.slot.map, &mut shared.bytes, kind);
        }
    }
}

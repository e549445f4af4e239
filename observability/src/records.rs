//! Writing spans, events and panics: on the owner's thread into the owner ring, on any other into the shared ring.
//!
//! Nothing here waits for a reader. A record that finds no room is counted by kind.

use crate::record::Kind;
use crate::record::encode::{Encoder, Event, Panic, Span};
use crate::slot::Slot;

/// Writes records into one slot, from any thread.
///
/// ```
/// use saola_observability::{Event, Level, Slot, SpanId, TraceId, Value, clock};
///
/// let slot = Slot::in_memory(); // in a server: the one that `Slot::attach` gave
/// slot.records().event(&Event {
///     wall_ns: clock::wall_ns(),
///     level: Level::Warn,
///     target: "shop::stock",
///     message: "stock is low",
///     trace: TraceId::NONE, // of the request that it belongs to
///     span: SpanId::NONE,
///     request_id: "",
///     fields: &[("item", Value::Str("laptop")), ("left", Value::U64(2))],
/// });
/// ```
///
/// A record is copied behind what is published, then published by one store: after a death it is there whole or not at all,
/// and so are all before it. The owner's thread takes no lock; others share one among them. Nothing waits for a reader: a
/// full ring drops the newest record and counts it by kind. Longer texts are cut between characters.
#[derive(Copy, Clone)]
pub struct Records {
    pub(crate) slot: &'static Slot,
}

impl Slot {
    /// Where spans, events and panics are written, from any thread.
    pub fn records(&'static self) -> Records {
        Records { slot: self }
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

//! One entry of the table: 32 words, written by the owner, read by anybody.
//!
//! state u32, serial u32 · start monotonic · start wall · trace (2) · span · parent · route u32, method, protocol, phase,
//! flags u8 · samples u32, client port u16, two lengths u8 · client address (2) · request id (5) · path (16)

use std::net::IpAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use crate::closed::{Method, Phase, Protocol};
use crate::ids::{SpanId, TraceId};
use crate::in_flight::label::{LABEL_WORDS, Label};
use crate::in_flight::{Begin, entries_in};
use crate::layout::{BIRTHS_AT, Section, halves, join, wide};
use crate::map::{Map, copy_into};
use crate::record::decode;
use crate::record::encode::cut;
use crate::record::ended::address;

const WORDS: usize = 32;
const STATE: usize = 0;
const START: usize = 8;
const START_WALL: usize = 16;
const TRACE: usize = 24;
const SPAN: usize = 40;
const PARENT: usize = 48;
const KIND: usize = 56;
const LENGTHS: usize = 64;
const CLIENT: usize = 72;
const REQUEST_ID: usize = 88;
const REQUEST_ID_BYTES: usize = 40;
const PATH: usize = 128;
const PATH_BYTES: usize = 128;

/// The state word of a free entry. The serial of the next use is one more than that of the last, which is kept privately.
pub(crate) const FREE: u64 = 0;

/// The state word of a running entry.
pub(crate) fn running(serial: u32) -> u64 {
    u64::from(serial) << 32 | 1
}

/// What the words about route and phase say.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) route: u32,
    pub(crate) method: Method,
    pub(crate) protocol: Protocol,
    pub(crate) phase: Phase,
}

impl Kind {
    fn word(self) -> u64 {
        let [a, b, c, d] = self.route.to_le_bytes();
        u64::from_le_bytes([
            a,
            b,
            c,
            d,
            self.method.number(),
            self.protocol.number(),
            self.phase.number(),
            0,
        ])
    }
}

/// A running request, as a reader finds it.
#[derive(Clone, PartialEq, Debug)]
pub struct InFlightEntry {
    /// When it began, monotonic nanoseconds.
    pub start_ns: u64,
    /// When it began, wall clock nanoseconds.
    pub start_wall_ns: u64,
    /// Its trace.
    pub trace: TraceId,
    /// Its server span.
    pub span: SpanId,
    /// The caller's span, or none.
    pub parent: SpanId,
    /// Whether the caller's context was taken.
    pub remote_parent: bool,
    /// Whether its trace is kept whatever happens.
    pub sampled: bool,
    /// Its route template.
    pub route: String,
    /// Its method.
    pub method: Method,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it is.
    pub phase: Phase,
    /// Profile samples taken of it.
    pub cpu_samples: u32,
    /// The client; none on a unix socket.
    pub client: Option<IpAddr>,
    /// The client's port.
    pub client_port: u16,
    /// Its id, at most 40 bytes.
    pub request_id: String,
    /// Its path, at most 128 bytes.
    pub path: String,
}

/// The texts of an entry, for a request that ends without saying them.
#[derive(Default)]
pub(crate) struct Texts {
    pub(crate) request_id: String,
    pub(crate) path: String,
}

/// The table in a mapping.
pub(crate) struct Entries {
    table: &'static [Words],
    serials: Vec<std::cell::Cell<u32>>,
}

type Words = [AtomicU64; WORDS];

impl Entries {
    pub(crate) fn new(map: &'static Map, section: Section) -> Self {
        let count = entries_in(section.capacity);
        let table = map.words(section.offset, wide(count) * WORDS).as_chunks().0;
        // Each owner begins elsewhere, so that no reader takes a successor's entry for the one it began to copy.
        let [low, high, ..] = map.load(BIRTHS_AT).to_le_bytes();
        let first = u32::from_le_bytes([0, 0, low, high]);
        Self { table, serials: (0..count).map(|_| std::cell::Cell::new(first)).collect() }
    }

    /// The entries that nobody uses, the first one last.
    pub(crate) fn free(&self) -> Vec<u32> {
        let free = (0_u32..).zip(self.table).filter(|(_, words)| is_free(words));
        let mut free: Vec<u32> = free.map(|(entry, _)| entry).collect();
        free.reverse();
        free
    }

    fn words(&self, entry: u32) -> &'static Words {
        &self.table[wide(entry)]
    }

    pub(crate) fn state(&self, entry: u32) -> &'static AtomicU64 {
        &self.words(entry)[STATE]
    }

    /// Writes all but the state, and says the serial that the state is to carry.
    pub(crate) fn write(&self, entry: u32, begin: &Begin<'_>, route: u32) -> u32 {
        let [t0, t1] = halves(begin.trace.0);
        let [c0, c1] = halves(address(begin.client));
        let id = begin.request_id.get(..REQUEST_ID_BYTES).unwrap_or(begin.request_id);
        let path = cut(begin.path, PATH_BYTES).as_bytes();
        let kind =
            Kind { route, method: begin.method, protocol: begin.protocol, phase: Phase::Handler };
        let flags = u64::from(begin.sampled) | u64::from(begin.remote_parent) << 1;
        let length = |text: &[u8]| u64::try_from(text.len()).unwrap_or(0);
        let lengths = u64::from(begin.client_port) << 32 | length(id) << 48 | length(path) << 56;
        let words = self.words(entry);
        let values = [
            (START, begin.start_ns),
            (START_WALL, begin.start_wall_ns),
            (TRACE, t0),
            (TRACE + 8, t1),
            (SPAN, u64::from_ne_bytes(begin.span.0)),
            (PARENT, u64::from_ne_bytes(begin.parent.0)),
            (KIND, kind.word() | flags << 56),
            (LENGTHS, lengths),
            (CLIENT, c0),
            (CLIENT + 8, c1),
        ];
        for (offset, value) in values {
            words[offset / 8].store(value, Relaxed);
        }
        copy_into(&words[REQUEST_ID / 8..PATH / 8], id);
        copy_into(&words[PATH / 8..], path);
        let serial = &self.serials[wide(entry)];
        serial.set(serial.get().wrapping_add(1));
        serial.get()
    }

    /// Route and phase change while the request runs: one aligned store.
    pub(crate) fn set_kind(&self, entry: u32, kind: Kind) {
        let word = &self.words(entry)[KIND / 8];
        let flags = word.load(Relaxed) & 0xff << 56;
        word.store(kind.word() | flags, Release);
    }

    /// Its first words, for the profiler.
    pub(crate) fn label(&self, entry: u32) -> Option<Label> {
        self.words(entry).first_chunk().map(Label)
    }

    pub(crate) fn samples(&self, entry: u32) -> u32 {
        let [a, b, c, d, ..] = self.words(entry)[LENGTHS / 8].load(Relaxed).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    pub(crate) fn oldest_start_ns(&self) -> Option<u64> {
        let running = self.table.iter().filter(|words| !is_free(words));
        running.map(|words| words[START / 8].load(Relaxed)).min()
    }

    pub(crate) fn texts(&self, entry: u32) -> Texts {
        copy(self.words(entry)).map(|(_, words)| texts(&words)).unwrap_or_default()
    }
}

/// What a sample is to say of the request: trace, span, and its route as the id of a string.
pub(crate) fn label(words: &[AtomicU64; LABEL_WORDS]) -> (TraceId, SpanId, u32) {
    let word = |offset: usize| words.get(offset / 8).map_or(0, |word| word.load(Relaxed));
    let [r0, r1, r2, r3, ..] = word(KIND).to_le_bytes();
    let trace = TraceId(join(word(TRACE), word(TRACE + 8)));
    (trace, SpanId(word(SPAN).to_ne_bytes()), u32::from_le_bytes([r0, r1, r2, r3]))
}

/// Counts a sample. Only the signal handler of the thread that writes the entry does, so no add is lost.
pub(crate) fn count_sample(words: &[AtomicU64; LABEL_WORDS]) {
    if let Some(word) = words.get(LENGTHS / 8) {
        word.store(word.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// Reads an entry at a byte offset of any mapping: `None` if it is free or changes meanwhile. `route` resolves its string.
pub(crate) fn read(map: &Map, at: usize, route: impl Fn(u32) -> String) -> Option<InFlightEntry> {
    let (_, words) = copy(map.words(at, WORDS).first_chunk()?)?;
    let word = |offset: usize| words[offset / 8];
    let [r0, r1, r2, r3, method, protocol, phase, flags] = word(KIND).to_le_bytes();
    let [s0, s1, s2, s3, p0, p1, ..] = word(LENGTHS).to_le_bytes();
    let Texts { request_id, path } = texts(&words);
    Some(InFlightEntry {
        start_ns: word(START),
        start_wall_ns: word(START_WALL),
        trace: TraceId(join(word(TRACE), word(TRACE + 8))),
        span: SpanId(word(SPAN).to_ne_bytes()),
        parent: SpanId(word(PARENT).to_ne_bytes()),
        sampled: flags & 1 != 0,
        remote_parent: flags & 2 != 0,
        route: route(u32::from_le_bytes([r0, r1, r2, r3])),
        method: Method::from_number(method).unwrap_or(Method::Other),
        protocol: Protocol::from_number(protocol).unwrap_or(Protocol::Http11),
        phase: Phase::from_number(phase).unwrap_or(Phase::Handler),
        cpu_samples: u32::from_le_bytes([s0, s1, s2, s3]),
        client: decode::address(join(word(CLIENT), word(CLIENT + 8))),
        client_port: u16::from_le_bytes([p0, p1]),
        request_id,
        path,
    })
}

/// Method and route of a running entry, without its texts: what the gauge of active requests asks.
pub(crate) fn read_kind(map: &Map, at: usize) -> Option<(Method, u32)> {
    let state = map.word(at + STATE);
    let before = state.load(Acquire);
    let [r0, r1, r2, r3, method, ..] = map.load(at + KIND).to_le_bytes();
    fence(Acquire);
    if before & 1 == 0 || state.load(Relaxed) != before {
        return None;
    }
    let method = Method::from_number(method).unwrap_or(Method::Other);
    Some((method, u32::from_le_bytes([r0, r1, r2, r3])))
}

fn is_free(words: &Words) -> bool {
    words[STATE].load(Relaxed) == FREE
}

fn copy(words: &Words) -> Option<(u64, [u64; WORDS])> {
    let before = words[STATE].load(Acquire);
    let mut copy = [0; WORDS];
    for (to, from) in copy.iter_mut().zip(words) {
        *to = from.load(Relaxed);
    }
    fence(Acquire);
    (before & 1 == 1 && words[STATE].load(Relaxed) == before).then_some((before, copy))
}

fn texts(words: &[u64; WORDS]) -> Texts {
    let mut bytes = [0; WORDS * 8];
    for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *chunk = word.to_ne_bytes();
    }
    let [.., id, path] = words[LENGTHS / 8].to_le_bytes();
    let text = |at: usize, length: u8, most: usize| {
        let bytes = bytes.get(at..at + usize::from(length).min(most)).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    Texts { request_id: text(REQUEST_ID, id, REQUEST_ID_BYTES), path: text(PATH, path, PATH_BYTES) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Slot;

    /// T12: all parts of an entry say the number of the request, so a mixture of two shows.
    #[test]
    fn an_entry_is_of_one_request() {
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let slot = Slot::in_memory();
                send.send(slot).unwrap();
                (1..=crate::cells::writes_in_tests() / 10).for_each(|number| one(slot, number));
            });
            let slot = receive.recv().unwrap();
            let mut found = 0;
            while !writer.is_finished() {
                let at = slot.sections().in_flight.offset;
                if let Some(entry) = read(&slot.map, at, |_| String::new()) {
                    let number = u32::try_from(entry.start_ns).unwrap();
                    assert_eq!(entry.start_wall_ns, entry.start_ns);
                    assert_eq!((entry.trace, entry.span), (trace(number), span(number)));
                    assert_eq!(entry.request_id, number.to_string());
                    assert_eq!(entry.path, number.to_string());
                    found += 1;
                }
            }
            assert!(found > 0);
        });
    }

    fn trace(number: u32) -> TraceId {
        TraceId(join(number.into(), number.into()))
    }

    fn span(number: u32) -> SpanId {
        SpanId(u64::from(number).to_ne_bytes())
    }

    fn one(slot: &'static Slot, number: u32) {
        let text = number.to_string();
        drop(slot.in_flight().begin(&Begin {
            method: Method::Get,
            protocol: Protocol::Http11,
            start_ns: number.into(),
            start_wall_ns: number.into(),
            trace: trace(number),
            span: span(number),
            parent: SpanId::NONE,
            remote_parent: false,
            sampled: false,
            client: None,
            client_port: 0,
            request_id: text.as_bytes(),
            path: &text,
        }));
    }
}

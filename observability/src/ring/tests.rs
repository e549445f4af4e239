//! The ring against a model of it, and against bytes that nobody wrote.

use std::fs::File;

use proptest::prelude::*;

use super::*;
use crate::closed::{Level, Role};
use crate::ids::{SpanId, TraceId};
use crate::layout::Shape;
use crate::record::encode::{Encoder, Event};

const STAGES: [Stage; 3] = [Stage::Log, Stage::Otlp, Stage::Profile];

fn ring() -> (File, Map, Ring) {
    let shape = Shape { ring_bytes: 128 << 10, ..Shape::default() };
    let sections = shape.sections(Role::Worker);
    let file = tempfile::tempfile().unwrap();
    file.set_len(long(sections.samples.end())).unwrap();
    let map = Map::writable(&file, sections.samples.end()).unwrap();
    let ring = Ring::new(&sections, RingName::Owner);
    ring.reset_cursors(&map, &STAGES);
    (file, map, ring)
}

fn event(number: usize, length: usize) -> Vec<u8> {
    event_of(&format!("{number}:{}", "x".repeat(length)))
}

/// An event with this message, encoded.
pub(super) fn event_of(message: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let event = Event {
        wall_ns: long(message.len()),
        level: Level::Info,
        target: "t",
        message,
        trace: TraceId::NONE,
        span: SpanId::NONE,
        request_id: "",
        fields: &[],
    };
    Encoder::event(&mut bytes, &event);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn what_was_accepted_is_read_in_order(
        steps in prop::collection::vec((0_usize..3_000, 0_usize..6, 0_usize..4), 1..400),
    ) {
        let (_file, map, ring) = ring();
        let mut producer = Producer::resume(&map, ring);
        let consumer = Consumer { map: &map, ring };
        let (mut expected, mut seen) = (Vec::new(), [const { Vec::new() }; 3]);
        let mut raw = RawEntry::default();
        let mut dropped = 0;
        for (number, (length, reads, waiting)) in steps.into_iter().enumerate() {
            if producer.push(&map, &mut event(number, length), Kind::Event) {
                expected.push(number);
            } else {
                dropped += 1;
            }
            for (stage, seen) in STAGES.into_iter().zip(&mut seen) {
                let (mut position, head) = consumer.start(ring.cursor(&map, stage));
                for _ in 0..if stage.number() == waiting { 0 } else { reads } {
                    let Some((next, entry)) = consumer.read(position, head, &mut raw) else { break };
                    let Entry::Record(Record::Event(event)) = entry else { panic!("{entry:?}") };
                    seen.push(event.message.split(':').next().unwrap().parse::<usize>().unwrap());
                    position = next;
                    ring.commit(&map, stage, position);
                }
            }
        }
        prop_assert_eq!(consumer.dropped(Kind::Event), dropped);
        for (stage, seen) in STAGES.into_iter().zip(&mut seen) {
            let (mut position, head) = consumer.start(ring.cursor(&map, stage));
            while let Some((next, entry)) = consumer.read(position, head, &mut raw) {
                let Entry::Record(Record::Event(event)) = entry else { panic!("{entry:?}") };
                seen.push(event.message.split(':').next().unwrap().parse::<usize>().unwrap());
                position = next;
            }
            prop_assert_eq!(&*seen, &expected);
        }
    }

    #[test]
    fn any_bytes_are_survived(
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 0..64),
        start in any::<u64>(),
        head in 0_u64..400_000,
    ) {
        let (_file, map, ring) = ring();
        let mut producer = Producer::resume(&map, ring);
        for number in 0..50 {
            producer.push(&map, &mut event(number, number * 40), Kind::Event);
        }
        for (at, word) in noise {
            map.store(ring.offset(long(at.index(16 << 10)) * 8), word);
        }
        map.store(ring.head_at, head);
        let consumer = Consumer { map: &map, ring };
        let (mut position, head) = consumer.start(start);
        let mut raw = RawEntry::default();
        let mut turns = 0;
        while consumer.copy(position, head, &mut raw) {
            let time = raw.wall_ns();
            let (next, entry) = raw.decode();
            if let Entry::Record(record) = entry {
                prop_assert_eq!(time, record.wall_ns());
            }
            prop_assert!(next > position);
            position = next;
            turns += 1;
            prop_assert!(turns < 100_000);
        }
    }
}

/// A record of this length with its header, of a kind that nobody knows: readers skip it, and have its bytes.
fn unknown(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
    crate::record::encode::put_header(&mut bytes, 200, 0);
    bytes
}

/// Whatever is left in front of the ring's end when a record comes: from nothing to more than the longest has.
#[test]
fn records_wrap_at_every_offset() {
    let (_file, map, ring) = ring();
    let capacity = ring.capacity();
    let mut raw = RawEntry::default();
    for left in (0..=long(LONGEST) + 8).step_by(8) {
        for length in [HEADER + 8, 240, LONGEST] {
            // Rounds before, so that positions are not offsets.
            let start = 3 * capacity - left;
            map.store(ring.head_at, start);
            for stage in STAGES {
                ring.repair(&map, stage, start);
            }
            let mut producer = Producer::resume(&map, ring);
            let records = [unknown(length), unknown(24), unknown(length)];
            for record in &records {
                assert!(producer.push(&map, &mut record.clone(), Kind::Event), "{left} {length}");
            }
            let consumer = Consumer { map: &map, ring };
            let (mut position, head) = consumer.start(start);
            for record in &records {
                let found = consumer.read(position, head, &mut raw);
                let Some((next, Entry::Unknown)) = found else { panic!("{left} {length}") };
                let read = &raw.bytes;
                assert_eq!((&read[..8], &read[16..]), (&record[..8], &record[16..]));
                position = next;
            }
            assert_eq!(position, head, "{left} {length}");
        }
    }
}

#[test]
fn a_record_longer_than_the_bound_is_dropped() {
    let (_file, map, ring) = ring();
    let mut producer = Producer::resume(&map, ring);
    assert!(producer.push(&map, &mut unknown(LONGEST), Kind::Event));
    assert!(!producer.push(&map, &mut unknown(LONGEST + 8), Kind::Event));
    assert_eq!(Consumer { map: &map, ring }.dropped(Kind::Event), 1);
}

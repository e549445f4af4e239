//! The ring against a model of it, and against bytes that nobody wrote.

use std::fs::File;

use proptest::prelude::*;

use super::*;
use crate::closed::{Level, Role};
use crate::ids::{SpanId, TraceId};
use crate::layout::Shape;
use crate::record::encode::{Encoder, Event};

fn ring() -> (File, Map, Ring) {
    let shape = Shape { ring_bytes: 128 << 10, ..Shape::default() };
    let sections = shape.sections(Role::Worker);
    let file = tempfile::tempfile().unwrap();
    file.set_len(long(sections.samples.end())).unwrap();
    let map = Map::writable(&file, sections.samples.end()).unwrap();
    let ring = Ring::new(&sections, RingName::Owner);
    ring.reset_cursors(&map, &[Stage::Log, Stage::Otlp]);
    (file, map, ring)
}

fn event(number: usize, length: usize) -> Vec<u8> {
    event_of(&format!("{number}:{}", "x".repeat(length)))
}

/// An event with this message, encoded.
pub(super) fn event_of(message: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let event = Event {
        wall_ns: 0,
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
        steps in prop::collection::vec((0_usize..3_000, 0_usize..6, any::<bool>()), 1..400),
    ) {
        let (_file, map, ring) = ring();
        let mut producer = Producer::resume(&map, ring);
        let consumer = Consumer { map: &map, ring };
        let (mut expected, mut seen) = (Vec::new(), [Vec::new(), Vec::new()]);
        let mut bytes = Vec::new();
        let mut dropped = 0;
        for (number, (length, reads, slow)) in steps.into_iter().enumerate() {
            if producer.push(&map, &mut event(number, length), Kind::Event) {
                expected.push(number);
            } else {
                dropped += 1;
            }
            for (stage, seen) in [Stage::Log, Stage::Otlp].into_iter().zip(&mut seen) {
                let (mut position, head) = consumer.start(ring.cursor(&map, stage));
                for _ in 0..if slow && stage == Stage::Otlp { 0 } else { reads } {
                    let Some((next, entry)) = consumer.read(position, head, &mut bytes) else { break };
                    let Entry::Record(Record::Event(event)) = entry else { panic!("{entry:?}") };
                    seen.push(event.message.split(':').next().unwrap().parse::<usize>().unwrap());
                    position = next;
                    ring.commit(&map, stage, position);
                }
            }
        }
        prop_assert_eq!(consumer.dropped(Kind::Event), dropped);
        for (stage, seen) in [Stage::Log, Stage::Otlp].into_iter().zip(&mut seen) {
            let (mut position, head) = consumer.start(ring.cursor(&map, stage));
            while let Some((next, entry)) = consumer.read(position, head, &mut bytes) {
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
        let mut bytes = Vec::new();
        let mut turns = 0;
        while let Some((next, _)) = consumer.read(position, head, &mut bytes) {
            prop_assert!(next > position);
            position = next;
            turns += 1;
            prop_assert!(turns < 100_000);
        }
    }
}

#[test]
fn a_record_longer_than_the_bound_is_dropped() {
    let (_file, map, ring) = ring();
    let mut producer = Producer::resume(&map, ring);
    let mut bytes = vec![0; LONGEST];
    crate::record::encode::put_header(&mut bytes, 3, 0);
    assert!(producer.push(&map, &mut bytes, Kind::Event));
    let mut bytes = vec![0; LONGEST + 8];
    crate::record::encode::put_header(&mut bytes, 3, 0);
    assert!(!producer.push(&map, &mut bytes, Kind::Event));
}

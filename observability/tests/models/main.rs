//! What threads and processes do at once, in every order: the very source of histograms, redo log, rings, bell and samples
//! runs here with loom's atomics, which take each value that the memory model allows. A writer dies after any of its stores.
//!
//! Loom goes through all executions with at most `PREEMPTIONS` involuntary switches of threads. It knows no load that sees a
//! store which comes later: that a consumer's copy stays in front of its cursor is argued where the cursor is, not found here.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::float_cmp,
    clippy::indexing_slicing,
    reason = "a test with its own main"
)]

mod barrier;
mod futex;
mod map;
mod sync;

#[path = "../../src"]
#[expect(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::struct_field_names,
    reason = "parts of modules, and private here"
)]
mod source {
    pub(crate) mod bell;
    pub(crate) mod cells;
    pub(crate) mod closed;
    pub(crate) mod ids;
    pub(crate) mod layout;
    pub(crate) mod record;
    pub(crate) mod redo;
    pub(crate) mod ring;
    pub(crate) mod samples;
}

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use loom::sync::Arc;
use loom::thread;

pub(crate) use crate::source::{bell, cells, closed, ids, layout, record, redo, ring, samples};

use crate::barrier::Barrier;
use crate::bell::Bell;
use crate::cells::exemplar::{self, EXEMPLAR_WORDS, Exemplar};
use crate::cells::histogram::{BUCKET_WORDS, Histogram};
use crate::cells::{LAST_WORDS, read_last, set_last, settle_last};
use crate::ids::{SpanId, TraceId};
use crate::layout::{
    OWNER_CURSORS_AT, OWNER_HEAD_AT, PID_AT, RECORDS_DROPPED_AT, REDO_AT, REDO_ITEMS_AT,
    SAMPLE_BYTES, SAMPLES_HEAD_AT, Section, Sections, VALUES_ALLOCATED_AT, VALUES_AT, join,
};
use crate::map::Map;
use crate::record::Kind;
use crate::redo::Redo;
use crate::ring::{Consumer, Entry, Producer, RawEntry, Ring, RingName, Stage};
use crate::samples::{Found, MOST_FRAMES, Sample, SampleRing};

const PREEMPTIONS: usize = 2;

fn main() {
    let models: [(&str, fn()); 9] = [
        ("a_reader_beside_a_writer_finds_whole_observations", observations),
        ("threads_that_share_a_histogram_lose_nothing", shared_observations),
        ("a_transaction_of_a_writer_that_dies_happens_as_a_whole_or_not", transactions),
        ("exemplars_are_of_one_write", exemplars),
        ("a_last_value_is_of_its_time_also_after_a_death", last_values),
        ("a_ring_gives_what_was_put_in_and_space_only_when_it_was_read", rings),
        ("what_a_writer_that_dies_did_not_publish_is_not_read", unpublished),
        ("no_wake_up_is_lost", wake_ups),
        ("handlers_that_claim_at_once_share_no_sample", claims),
    ];
    let only = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    for (name, model) in models {
        if only.as_ref().is_none_or(|only| name.contains(only.as_str())) {
            let start = std::time::Instant::now();
            model();
            println!("test {name} ... ok ({:.1?})", start.elapsed());
        }
    }
    println!("\ntest result: ok. {} passed; 0 failed", models.len());
}

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Lets another thread do something with what is shared. Readers are the other thread, and writers the first one: loom runs
/// this one first, and then goes back to each store that a load depends on. Of loads that a store depends on it remembers only
/// the last, which is often the writer's own.
fn beside<S: Send + Sync + 'static, T: 'static>(
    shared: &Arc<S>,
    work: impl FnOnce(&S) -> T + 'static,
) -> thread::JoinHandle<T> {
    let shared = Arc::clone(shared);
    thread::spawn(move || work(&shared))
}

const BUCKETS: usize = 2;
const WORDS: usize = BUCKETS * BUCKET_WORDS;

/// A map with the cells of one histogram at the first place for values.
fn cells() -> Map {
    Map::of(&[(VALUES_AT, WORDS + 1)])
}

fn histogram(map: &Map) -> Histogram<'_> {
    Histogram::of(map.words(VALUES_AT, WORDS), BUCKETS).unwrap()
}

/// Observations of 1 fall into the first bucket, those of 10 into the second: the sum must say the same.
fn observe(map: &Map, bucket: usize) {
    histogram(map).observe(bucket, [1.0, 10.0][bucket]);
}

fn read(map: &Map) -> [u64; BUCKETS] {
    let mut counts = [0; BUCKETS];
    let sum = histogram(map).add_to(&mut counts);
    let expected = counts[0] + counts[1] * 10;
    assert_eq!(sum, f64::from(u32::try_from(expected).unwrap()), "{counts:?}");
    counts
}

fn observations() {
    explore(|| {
        let map = Arc::new(cells());
        let reader = beside(&map, |map| [read(map), read(map)]);
        // Twice the same: the second fills the place that a reader may have found valid.
        for bucket in [0, 0, 1] {
            observe(&map, bucket);
        }
        let [first, second] = reader.join().unwrap();
        assert!(first[0] <= second[0] && first[1] <= second[1], "{first:?} {second:?}");
        assert_eq!(read(&map), [2, 1]);
    });
}

fn shared_observations() {
    explore(|| {
        let map = Arc::new(cells());
        let other = beside(&map, |map| histogram(map).observe_shared(0, 1.0));
        histogram(&map).observe_shared(1, 10.0);
        other.join().unwrap();
        assert_eq!(read(&map), [1, 1]);
    });
}

/// The owner observes and counts in one transaction, and dies after any of its stores; a successor replays what it has
/// committed, and a reader looks on all the while.
fn transactions() {
    // Six stores write the log, the seventh commits it, four more carry it out.
    for stores in 5..=11 {
        explore(move || {
            let parts =
                [(PID_AT, 24), (REDO_AT, 1), (REDO_ITEMS_AT, 24 * 2), (VALUES_AT, WORDS + 1)];
            let map = Arc::new(Map::of(&parts));
            map.store(VALUES_ALLOCATED_AT, 1 << 16);
            let reader = beside(&map, read);
            sync::die_after(stores);
            transact(&map);
            sync::be_another();
            redo::replay(&map);
            let seen = reader.join().unwrap();
            let after = read(&map);
            assert!(seen[0] <= after[0], "{seen:?} {after:?}");
            let counted = map.load(VALUES_AT + WORDS * 8);
            assert_eq!(after, [counted, 0], "after {stores} stores");
        });
    }
}

fn transact(map: &Map) {
    let mut redo = Redo::begin(map);
    redo.observe(histogram(map), 0, 1.0);
    redo.add(map.word(VALUES_AT + WORDS * 8), 1);
    redo.commit();
}

fn exemplars() {
    explore(|| {
        let map = Arc::new(Map::of(&[(0, EXEMPLAR_WORDS)]));
        set(&map, 1);
        let reader = beside(&map, |map| exemplar::read(map.words(0, EXEMPLAR_WORDS)));
        set(&map, 2);
        if let Some(found) = reader.join().unwrap() {
            assert_eq!(found, of(found.trace.0[0]));
        }
        assert_eq!(exemplar::read(map.words(0, EXEMPLAR_WORDS)), Some(of(2)));
    });
}

fn set(map: &Map, number: u8) {
    exemplar::set(map.words(0, EXEMPLAR_WORDS).first_chunk().unwrap(), &of(number));
}

fn of(number: u8) -> Exemplar {
    let wide = u64::from(number);
    Exemplar {
        trace: TraceId([number; 16]),
        span: SpanId(wide.to_ne_bytes()),
        value: f64::from(number),
        wall_ns: wide,
    }
}

fn last_values() {
    for stores in 0..6 {
        explore(move || {
            let map = Arc::new(Map::of(&[(0, LAST_WORDS)]));
            set_last(map.words(0, LAST_WORDS), 1, |_| 1.0);
            let reader = beside(&map, |map| [last(map), last(map)]);
            sync::die_after(stores);
            set_last(map.words(0, LAST_WORDS), 2, |value| value + 1.0);
            sync::be_another();
            settle_last(map.words(0, LAST_WORDS));
            let [first, second] = reader.join().unwrap();
            assert!(first <= second && second <= last(&map));
            set_last(map.words(0, LAST_WORDS), 3, |_| 3.0);
            assert_eq!(last(&map), 3);
        });
    }
}

/// The time of the gauge, with which its value must agree.
fn last(map: &Map) -> u32 {
    let (time, value) = read_last(map.words(0, LAST_WORDS)).unwrap();
    let time = u32::try_from(time).unwrap();
    assert_eq!(value, f64::from(time));
    time
}

const RING_AT: usize = 0x2000;
const RING_BYTES: usize = 64;

/// A ring for two records of 24 bytes and a rest that is too small for a third.
fn ring() -> (Map, Ring) {
    let cursors = OWNER_CURSORS_AT - OWNER_HEAD_AT;
    let map = Map::of(&[
        (RECORDS_DROPPED_AT, 4),
        (OWNER_HEAD_AT, cursors / 8 + 8),
        (RING_AT, RING_BYTES / 8),
    ]);
    let section = Section { offset: RING_AT, capacity: RING_BYTES };
    let sections = Sections {
        in_flight: section,
        owner_ring: section,
        shared_ring: section,
        samples: section,
        keys: section,
        values: section,
    };
    let ring = Ring::new(&sections, RingName::Owner);
    ring.reset_cursors(&map, &[Stage::Log]);
    (map, ring)
}

/// A record of a kind that nobody knows, with one number in it: readers skip it, and have its bytes.
fn numbered(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    bytes[0] = 24;
    bytes[4] = 200;
    bytes[16..].copy_from_slice(&number.to_ne_bytes());
    bytes
}

/// Reads what is published and says that it was read; returns its numbers.
fn consume(map: &Map, ring: Ring) -> Vec<u64> {
    let consumer = Consumer { map, ring };
    let (mut position, head) = consumer.start(ring.cursor(map, Stage::Log));
    let (mut numbers, mut raw) = (Vec::new(), RawEntry::default());
    while let Some((next, entry)) = consumer.read(position, head, &mut raw) {
        assert!(matches!(entry, Entry::Unknown), "{entry:?}");
        numbers.push(u64::from_ne_bytes(raw.bytes[16..24].try_into().unwrap()));
        position = next;
    }
    ring.commit(map, Stage::Log, position);
    numbers
}

fn rings() {
    explore(|| {
        let (map, ring) = ring();
        let map = Arc::new(map);
        let reader = beside(&map, move |map| [consume(map, ring), consume(map, ring)].concat());
        let mut producer = Producer::resume(&map, ring);
        let mut put = |number| producer.push(&map, &mut numbered(number), Kind::Event);
        let accepted: Vec<u64> = (1..=4).filter(|number| put(*number)).collect();
        let mut found = reader.join().unwrap();
        found.extend(consume(&map, ring));
        assert_eq!(found, accepted);
        let dropped: u64 =
            map.words(RECORDS_DROPPED_AT, 4).iter().map(|cell| cell.load(Relaxed)).sum();
        assert_eq!(dropped, 4 - u64::try_from(found.len()).unwrap());
    });
}

fn unpublished() {
    for stores in 0..9 {
        explore(move || {
            let (map, ring) = ring();
            let map = Arc::new(map);
            let reader = beside(&map, move |map| consume(map, ring));
            sync::die_after(stores);
            let mut producer = Producer::resume(&map, ring);
            for number in 1..=2 {
                producer.push(&map, &mut numbered(number), Kind::Event);
            }
            sync::be_another();
            // A successor goes on where the head stands.
            Producer::resume(&map, ring).push(&map, &mut numbered(9), Kind::Event);
            let mut found = reader.join().unwrap();
            found.extend(consume(&map, ring));
            assert!([&[9][..], &[1, 9], &[1, 2], &[1, 2, 9]].contains(&&found[..]), "{found:?}");
        });
    }
}

/// The observer sleeps only while nothing is published: a worker that publishes afterwards wakes it.
fn wake_ups() {
    const HEAD_AT: usize = 0;
    explore(|| {
        let shared = Arc::new((Map::of(&[(HEAD_AT, 1)]), Bell::new(Map::of(&[]), Barrier)));
        let observer = beside(&shared, |(map, bell)| {
            assert!(bell.set());
            if map.word(HEAD_AT).load(Acquire) == 0 {
                bell.wait(Duration::MAX); // for ever: nobody else would wake it
                assert_eq!(map.word(HEAD_AT).load(Acquire), 1);
            }
            bell.clear();
        });
        let (map, bell) = &*shared;
        map.word(HEAD_AT).store(1, Release);
        bell.ring();
        observer.join().unwrap();
    });
}

/// Two handlers of one process, and the observer beside them.
fn claims() {
    const SAMPLES_AT: usize = 0x2000;
    explore(|| {
        let parts = [(SAMPLES_HEAD_AT, 1), (SAMPLES_AT, 2 * SAMPLE_BYTES / 8)];
        let map = Arc::new(Map::of(&parts));
        let section = Section { offset: SAMPLES_AT, capacity: 2 * SAMPLE_BYTES };
        let ring = SampleRing::new(section).unwrap();
        let other = beside(&map, move |map| ring.push(map, &sample(1)));
        let is_written = ring.push(&map, &sample(2));
        let seen = ring.read(&map, 0);
        assert_ne!(seen, Found::Overwritten, "nobody has come around");
        let seen = whole(seen);
        let is_other_written = other.join().unwrap();
        assert!(is_written && is_other_written, "three tries are enough for two");
        let mut both = [0, 1].map(|position| whole(ring.read(&map, position)).unwrap());
        assert!(seen.is_none_or(|seen| seen == both[0]));
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
        assert_eq!(map.word(SAMPLES_HEAD_AT).load(Relaxed), 2);
    });
}

fn sample(number: u64) -> Sample {
    Sample {
        time_ns: number,
        span: SpanId(number.to_ne_bytes()),
        trace: TraceId(join(number, number)),
        route: 1,
        weight: 1,
        thread: 1,
        image: number,
        depth: 0,
        is_cut: false,
        frames: [0; MOST_FRAMES],
    }
}

/// The number of a sample, all of whose parts must say it.
fn whole(found: Found) -> Option<u64> {
    let Found::Sample(found) = found else { return None };
    assert_eq!(*found, sample(found.time_ns));
    Some(found.time_ns)
}

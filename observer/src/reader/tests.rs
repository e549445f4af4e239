//! Passes over pretended rings, with a real pipe as stdout.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::unistd::pipe;
use saola_observability::SpanId;
use saola_observability::closed::{Level, Sampling};
use saola_observability::record::{EventRecord, Record, RequestRecord};

mod anything;
mod stdout;

use super::*;
use crate::filter::LineFilter;
use crate::logfmt::tests::request;
use crate::logfmt::{Encoder, Format, Origin};
use crate::output::Output;

const RECORD_BYTES: usize = 256;

#[derive(Default)]
struct FakeSlot {
    records: Vec<Record<'static>>,
    head: usize,
    read: [usize; 2],
    committed: [usize; 2],
}

struct FakeRings {
    slots: Vec<FakeSlot>,
    capacity: usize,
}

fn number(stage: Stage) -> usize {
    match stage {
        Stage::Log => 0,
        Stage::Otlp => 1,
    }
}

impl FakeRings {
    fn new(slots: usize, capacity: usize) -> Self {
        let slots = std::iter::repeat_with(FakeSlot::default).take(slots).collect();
        Self { slots, capacity: capacity * RECORD_BYTES }
    }

    /// False when the ring is full, as the real one.
    fn push(&mut self, slot: usize, record: Record<'static>) -> bool {
        let slot = &mut self.slots[slot];
        let slowest = *slot.committed.iter().min().unwrap();
        let has_room = (slot.records.len() - slowest + 1) * RECORD_BYTES <= self.capacity;
        if has_room {
            slot.records.push(record);
        }
        has_room
    }
}

impl FakeSlot {
    fn read(&mut self, stage: Stage, most: usize, mut take: impl FnMut(usize, Record<'_>)) {
        let read = &mut self.read[number(stage)];
        for record in self.records.iter().skip(*read).take(most) {
            *read += 1;
            take(*read, record.clone());
        }
    }
}

impl Rings for FakeRings {
    type Position = usize;

    fn refresh(&mut self) {}

    fn sources(&self) -> usize {
        self.slots.len()
    }

    fn origin(&mut self, slot: usize) -> Origin {
        Origin { worker: u32::try_from(slot).ok(), pid: None }
    }

    fn look(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.head = slot.records.len();
    }

    fn next_wall_ns(&mut self, slot: usize) -> Option<u64> {
        let slot = &self.slots[slot];
        slot.records[..slot.head].get(slot.read[number(Stage::Log)]).map(Record::wall_ns)
    }

    fn read(&mut self, slot: usize, most: usize, take: impl FnMut(usize, Record<'_>)) {
        self.slots[slot].read(Stage::Log, most, take);
    }

    fn read_kept(&mut self, slot: usize, most: usize, mut take: impl FnMut(usize, Kept<'_>)) {
        self.slots[slot].read(Stage::Otlp, most, |position, record: Record<'_>| {
            take(position, Kept::Record(record));
        });
    }

    fn read_to(&mut self, slot: usize, stage: Stage) -> usize {
        self.slots[slot].read[number(stage)]
    }

    fn skip_to(&mut self, slot: usize, stage: Stage, position: usize) {
        let read = &mut self.slots[slot].read[number(stage)];
        *read = position.max(*read);
    }

    fn commit(&mut self, slot: usize, stage: Stage, position: usize) {
        let committed = &mut self.slots[slot].committed[number(stage)];
        assert!(*committed < position, "a cursor never goes back");
        *committed = position;
        let read = &mut self.slots[slot].read[number(stage)];
        *read = position.max(*read);
    }

    fn unread(&mut self, slot: usize, stage: Stage) -> u64 {
        let slot = &self.slots[slot];
        u64::try_from((slot.records.len() - slot.read[number(stage)]) * RECORD_BYTES).unwrap()
    }

    fn uncommitted(&mut self, slot: usize, stage: Stage) -> u64 {
        let slot = &self.slots[slot];
        u64::try_from((slot.records.len() - slot.committed[number(stage)]) * RECORD_BYTES).unwrap()
    }

    fn capacity(&mut self, _: usize) -> u64 {
        u64::try_from(self.capacity).unwrap()
    }

    fn running(&mut self, _: bool) -> HashSet<SpanId> {
        HashSet::new()
    }

    fn samples(&mut self, _: &mut Profiles) {}
}

fn reader(slots: usize, capacity: usize, stdout: OwnedFd) -> Reader<FakeRings> {
    with_traces(slots, capacity, stdout, None)
}

fn with_traces(
    slots: usize,
    capacity: usize,
    stdout: OwnedFd,
    traces: Option<Traces>,
) -> Reader<FakeRings> {
    let lines = lines(stdout);
    Reader::new(FakeRings::new(slots, capacity), lines, traces, Profiles::new(0, None))
}

fn lines(stdout: OwnedFd) -> Lines<usize> {
    Lines::new(
        Encoder::new(Format::Logfmt, "shop"),
        LineFilter::default(),
        Origin::default(),
        Output::start(stdout, |_| ()).unwrap(),
    )
}

fn record(id: usize, time: u64) -> Record<'static> {
    let start_wall_ns = time;
    let request_id = id.to_string();
    Record::Request(RequestRecord {
        start_wall_ns,
        request_id: request_id.into(),
        duration_ns: 0,
        ..request()
    })
}

fn until(
    reader: &mut Reader<FakeRings>,
    what: &str,
    condition: impl Fn(&mut Reader<FakeRings>) -> bool,
) {
    let started = Instant::now();
    while !condition(reader) {
        reader.pass();
        assert!(started.elapsed() < Duration::from_secs(10), "waited for: {what}");
        std::thread::yield_now();
    }
}

/// Reads everything until the writer is gone, on its own thread.
#[expect(clippy::disallowed_methods, reason = "a test never forks")]
fn collect(read: OwnedFd) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        text
    })
}

fn ids(text: &str) -> Vec<usize> {
    let id = |line: &str| line.split(" request_id=").nth(1)?.split(' ').next()?.parse().ok();
    text.lines().filter_map(id).collect()
}

#[test]
fn one_record_one_line_and_the_cursor_follows_the_write() {
    let (read, write) = pipe().unwrap();
    let text = collect(read);
    let mut reader = reader(2, 1_000, write);
    for id in 0..500 {
        assert!(reader.rings.push(id % 2, record(id, 1_000)));
    }
    until(&mut reader, "all are written and committed", |reader| {
        reader.rings.slots.iter().all(|slot| slot.committed == [250, 250])
    });
    assert!(reader.has_written_all());
    assert_eq!((reader.lines.written(), reader.lines.lost()), (500, 0));
    drop(reader);
    let text = text.join().unwrap();
    assert!(text.lines().all(|line| line.len() < 4_096));
    let mut found = ids(&text);
    found.sort_unstable();
    assert_eq!(found, (0..500).collect::<Vec<_>>());
}

#[test]
fn slots_are_merged_by_time_and_each_keeps_its_own_order() {
    let (read, write) = pipe().unwrap();
    let text = collect(read);
    let mut reader = reader(2, 1_000, write);
    // A clock that stepped back: slot 0 keeps its order, whatever the times say.
    for (slot, id, time) in [(0, 0, 50), (0, 1, 10), (0, 2, 90), (1, 3, 20), (1, 4, 60), (1, 5, 95)]
    {
        reader.rings.push(slot, record(id, time));
    }
    until(&mut reader, "all are written", Reader::has_written_all);
    drop(reader);
    assert_eq!(ids(&text.join().unwrap()), [3, 0, 1, 4, 2, 5]);
}

#[test]
fn a_clock_that_runs_ahead_holds_up_nobody() {
    let (_read, write) = pipe().unwrap();
    let mut reader = reader(2, 10_000, write);
    for id in 0..10 {
        reader.rings.push(0, record(id, u64::MAX));
    }
    for id in 10..2_000 {
        reader.rings.push(1, record(id, 1_000));
    }
    reader.pass();
    let read = [0, 1].map(|slot| reader.rings.slots[slot].read[number(Stage::Log)]);
    assert_eq!(read, [10, PER_RING.1]);
}

#[test]
fn records_without_a_line_move_the_cursor_too() {
    let (_read, write) = pipe().unwrap();
    let mut reader = reader(1, 1_000, write);
    let silent = EventRecord {
        wall_ns: 1,
        level: Level::Debug,
        target: "shop".into(),
        message: "m".into(),
        trace: request().trace,
        span: request().span,
        request_id: String::new(),
        fields: vec![],
    };
    reader.rings.push(0, Record::Event(silent));
    until(&mut reader, "the cursor goes on", |reader| reader.rings.slots[0].committed == [1, 1]);
    assert_eq!(reader.lines.written(), 0);
}

#[test]
fn what_is_left_at_the_end_is_counted() {
    let (_read, write) = pipe().unwrap();
    let mut reader = reader(2, 10_000, write);
    for id in 0..6_000 {
        reader.rings.push(id % 2, record(id, 1));
        reader.rings.push(
            id % 2,
            Record::Request(RequestRecord {
                path: "/health".into(),
                sampling: Sampling::Ratio,
                ..request()
            }),
        );
    }
    reader.pass();
    reader.pass();
    let left = reader.give_up_lines();
    reader.pass();
    assert_eq!(reader.lines.written() + left, 6_000);
    assert_eq!(reader.lines.lost(), left);
}

#[test]
fn the_cursor_stays_in_front_of_a_span_that_is_under_way() {
    let lookup = |name: &str| (name == "OTEL_TRACES_EXPORTER").then(|| "otlp".to_owned());
    let traces = Traces::new(crate::OtlpSettings::from_env(&lookup).unwrap().unwrap());
    let mut open = open::Open::default();
    open.read(10, None);
    open.read(20, traces.record(None, record(1, 1), &mut Profiles::new(0, None)));
    open.read(30, None);
    assert_eq!(open.settled(), Some(10));
    assert_eq!(open.settled(), None);
    // What drops the span does not matter: acknowledged, refused, too old, or the queue is gone.
    drop(traces);
    assert_eq!(open.settled(), Some(30));
    assert_eq!(open.release(), None);
}

//! A worker that dies at *every* instruction: a child runs one operation under a debugger, a step at a time, and after each
//! step that changed its slot file a copy of the file is what a `kill -9` would have left there. From each copy a successor
//! takes over, and counts must be exact. It forks, so it is its own `main` with one thread.
//!
//! While the writer stands at a step, a scrape must agree too. Whoever comes after the death dies too, at every instruction of
//! a burial. `SAOLA_LONG=1` looks at every change, else at most 24 of each operation, and steps through the half million
//! instructions of a take-over.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::panic,
    clippy::float_cmp,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::mem_forget,
    reason = "a test with its own main"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use saola_observability::metrics::{CounterVec, Gauge, GaugeMode, Histogram};
use saola_observability::reader::{Reader, ValueRead};
use saola_observability::rings::{Reading, Rings};
use saola_observability::{
    Begin, Choice, Death, End, Entry, Epoch, Event, Level, LostReason, Method, Outcome, Protocol,
    Record, RingName, RunDir, Sampling, Shape, Slot, SlotFiles, SpanId, Stage, TraceId,
};

static BY: CounterVec<1> = CounterVec::new("test_by_total", "Counts.", ["a"]);
static VALUES: Histogram = Histogram::new("test_values", "Numbers.", &[1.0, 2.0]);
static LAST: Gauge = Gauge::new("test_last", "The last one.").mode(GaugeMode::Last);

/// What the child does between its two stops, and what it did before.
struct Operation {
    name: &'static str,
    /// The thread that is stepped.
    by: By,
    before: fn(&'static Slot),
    run: fn(&'static Slot),
}

#[derive(PartialEq)]
enum By {
    /// The one that owns the slot.
    Owner,
    /// One of its other threads, which write cells and a ring of their own.
    Another,
}

const OPERATIONS: [Operation; 10] = [
    Operation {
        name: "begin",
        by: By::Owner,
        before: warm,
        run: |slot| std::mem::forget(slot.in_flight().begin(&begin(9))),
    },
    Operation {
        name: "end",
        by: By::Owner,
        before: |slot| {
            warm(slot);
            HELD.set(Some(slot.in_flight().begin(&begin(9))));
        },
        run: |_| {
            if let Some(request) = HELD.take() {
                request.end(&end());
            }
        },
    },
    Operation { name: "observe", by: By::Owner, before: warm, run: |_| VALUES.observe(1.5) },
    Operation { name: "new series", by: By::Owner, before: warm, run: |_| BY.with(["new"]).inc() },
    Operation { name: "set last", by: By::Owner, before: warm, run: |_| LAST.set(8.0) },
    Operation {
        name: "event",
        by: By::Owner,
        before: warm,
        run: |slot| slot.records().event(&EVENT),
    },
    Operation {
        name: "another thread's event",
        by: By::Another,
        before: warm,
        run: |slot| slot.records().event(&EVENT),
    },
    Operation {
        name: "another thread's first observe",
        by: By::Another,
        before: warm,
        run: |_| VALUES.observe(1.5),
    },
    Operation {
        name: "another thread's observe",
        by: By::Another,
        before: |slot| {
            warm(slot);
            std::thread::scope(|scope| scope.spawn(|| VALUES.observe(0.5)).join().unwrap());
        },
        run: |_| VALUES.observe(1.5),
    },
    Operation {
        name: "first request",
        by: By::Owner,
        before: |_| (),
        run: |slot| slot.in_flight().begin(&begin(9)).end(&end()),
    },
];

thread_local! {
    static HELD: std::cell::Cell<Option<saola_observability::Request>> = const { std::cell::Cell::new(None) };
}

fn main() {
    let is_all = std::env::var("SAOLA_LONG").is_ok_and(|value| value == "1");
    let most = if is_all { usize::MAX } else { 24 };
    for operation in &OPERATIONS {
        let copies = World::new().copies_of(operation.name, |files| {
            let own = || {
                let slot = Slot::attach(files).unwrap();
                (operation.before)(slot);
                slot
            };
            let slot = match operation.by {
                By::Owner => own(),
                By::Another => std::thread::scope(|scope| scope.spawn(own).join().unwrap()),
            };
            raise(Signal::SIGSTOP).unwrap();
            (operation.run)(slot);
        });
        check_all(operation.name, thinned(&copies, most));
        if operation.name == "end" {
            a_burial_ends_half_way(&copies, most);
            if is_all {
                a_successor_dies_too(&copies, most);
            }
        }
    }
    let states = a_reader_meets_a_file_that_is_being_made();
    the_next_start_meets_a_half_made_file(thinned(&states, most));
    let count = OPERATIONS.len() + 3 + usize::from(is_all);
    println!("\ntest result: ok. {count} passed; 0 failed");
}

fn check_all<'c>(name: &str, copies: impl Iterator<Item = &'c Copy>) {
    let mut count = 0;
    for (at, copy) in copies.enumerate() {
        check(&format!("{name} at change {at}"), copy);
        count += 1;
    }
    println!("test {name} ... ok ({count} files)");
}

/// At most so many of the states, the first and the last among them.
fn thinned(copies: &[Copy], most: usize) -> impl Iterator<Item = &Copy> {
    let step = copies.len().div_ceil(most).max(1);
    let last = copies.len() - 1;
    let kept = copies.iter().enumerate().filter(move |(at, _)| at % step == 0 || *at == last);
    kept.map(|(_, copy)| copy)
}

/// The owner died in the middle of ending a request, and whoever takes the slot over dies at each of its own changes.
fn a_successor_dies_too(ends: &[Copy], most: usize) {
    // In the middle: committed, and half of it carried out.
    let middle = &ends[ends.len() * 4 / 5];
    let world = World::new();
    middle.write_to(&File::options().write(true).open(world.slot_path()).unwrap());
    let copies = world.copies_of("take-over", |files| {
        raise(Signal::SIGSTOP).unwrap();
        Slot::attach(files).unwrap();
    });
    check_all("take-over", thinned(&copies, most));
}

/// The supervisor replays and buries what died in the middle of ending a request, and is killed at each change that it makes
/// to the slot. Who begins again finds the end of the request and its record once.
fn a_burial_ends_half_way(ends: &[Copy], most: usize) {
    let middle = &ends[ends.len() * 4 / 5];
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let run = folder.path().join("run");
    let path = slot_path(&run);
    let death = Death { pid: 1, signal: Some(9), exit_code: None, reason: LostReason::Crash };
    let child = fork(|| {
        ptrace::traceme().unwrap();
        let (_run_dir, mut epoch) = supervise(&run);
        drop(epoch.open_worker(0, 1).unwrap());
        middle.write_to(&File::options().write(true).open(&path).unwrap());
        raise(Signal::SIGSTOP).unwrap();
        epoch.bury(0, &death);
        raise(Signal::SIGSTOP).unwrap();
    });
    wait_for_stop(child);
    let copies = steps_of(child, &path, "burial", || ());
    check_all("burial", thinned(&copies, most));
}

/// The supervisor makes a slot's file, and at each change of it somebody reads: never an error, never a bad slot.
fn a_reader_meets_a_file_that_is_being_made() -> Vec<Copy> {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let run = folder.path().join("run");
    let path = slot_path(&run);
    let child = fork(|| {
        ptrace::traceme().unwrap();
        let (_run_dir, mut epoch) = supervise(&run);
        raise(Signal::SIGSTOP).unwrap();
        epoch.open_worker(0, 1).unwrap();
        raise(Signal::SIGSTOP).unwrap();
    });
    wait_for_stop(child);
    let has_bytes = |file: &File| file.metadata().unwrap().len() > 0;
    let state = || File::open(&path).ok().filter(has_bytes).map(|file| Copy::of(&file));
    let mut states = Vec::new();
    while step(child, "header creation") {
        if let Some(now) = state()
            && states.last() != Some(&now)
        {
            counts(&run, "header creation");
            states.push(now);
        }
    }
    end_of(child);
    assert!(states.len() > 10, "{} states", states.len());
    println!("test header creation ... ok ({} states)", states.len());
    states
}

/// A supervisor died while it made a slot's file, and another one takes the run directory: it serves, and what was half made
/// goes with its epoch.
fn the_next_start_meets_a_half_made_file<'c>(states: impl Iterator<Item = &'c Copy>) {
    let mut count = 0;
    for state in states {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let run = folder.path().join("run");
        let dead = fork(|| {
            supervise(&run);
            raise(Signal::SIGKILL).unwrap();
        });
        waitpid(dead, None).unwrap();
        let file = File::options().write(true).create_new(true).open(slot_path(&run)).unwrap();
        file.set_len(64 << 20).unwrap();
        state.write_to(&file);
        let (_run_dir, mut epoch) = supervise(&run);
        let finished = epoch.finish_leftovers();
        assert_eq!((finished.left, finished.lost.count()), (0, 0), "state {count}");
        assert!(!run.join("epoch-000001").exists(), "state {count}");
        let slot = Slot::attach(epoch.open_worker(0, 1).unwrap()).unwrap();
        slot.in_flight().begin(&begin(3)).end(&end());
        assert_eq!(counts(&run, "next start").finished, 1.0, "state {count}");
        epoch.remove();
        count += 1;
    }
    println!("test the next start ... ok ({count} files)");
}

/// Some of everything, so that the operation meets what exists.
fn warm(slot: &'static Slot) {
    BY.with(["known"]).inc();
    VALUES.observe(0.5);
    LAST.set(7.0);
    slot.in_flight().begin(&begin(1)).end(&end());
}

struct World {
    folder: tempfile::TempDir,
    _run_dir: RunDir,
    epoch: Epoch,
    files: Option<SlotFiles>,
}

fn shape() -> Shape {
    Shape { in_flight_entries: 16, ring_bytes: 128 << 10, samples: false }
}

fn slot_path(run: &Path) -> PathBuf {
    run.join("epoch-000001").join("slot-0000")
}

fn supervise(run: &Path) -> (RunDir, Epoch) {
    let choice = Choice {
        given: Some(run.to_owned()),
        slots_at_peak: 1,
        shape: shape(),
        ..Choice::default()
    };
    let mut run_dir = RunDir::choose(&choice).unwrap().dir;
    run_dir.lock("0").unwrap();
    let epoch = Epoch::create(&run_dir, shape()).unwrap();
    epoch.publish().unwrap();
    (run_dir, epoch)
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let (run_dir, mut epoch) = supervise(&folder.path().join("run"));
        let files = Some(epoch.open_worker(0, 1).unwrap());
        Self { folder, _run_dir: run_dir, epoch, files }
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn slot_path(&self) -> PathBuf {
        slot_path(&self.run())
    }

    /// Every state of the slot file that a death of `life` could leave, from the SIGSTOP that it raises to its end. Each is
    /// scraped too, while the writer stands there.
    fn copies_of(mut self, name: &str, life: impl FnOnce(SlotFiles)) -> Vec<Copy> {
        let files = self.files.take().unwrap();
        let child = fork(|| {
            ptrace::traceme().unwrap();
            life(files);
            raise(Signal::SIGSTOP).unwrap();
        });
        wait_for_stop(child);
        let copies = steps_of(child, &self.slot_path(), name, || self.scrape(name));
        self.epoch.remove();
        copies
    }

    /// What a scraper sees of a writer that was stopped anywhere (T5): it waits for nobody, and all numbers agree.
    fn scrape(&self, name: &str) {
        let now = counts(&self.run(), name);
        let open = now.started - now.finished - now.lost;
        assert!((0.0..=2.0).contains(&open), "{name}: {now:?}");
    }
}

fn fork(body: impl FnOnce()) -> Pid {
    #[expect(unsafe_code, reason = "the test of a death needs a life")]
    // SAFETY: fork(2) asks for one thread: this process has one.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            body();
            loop {
                nix::unistd::pause();
            }
        }
    }
}

/// Every state of a slot file from here to the next stop of the child, which is then ended.
fn steps_of(child: Pid, path: &Path, name: &str, each: impl Fn()) -> Vec<Copy> {
    let file = File::open(path).unwrap();
    let mut copies = vec![Copy::of(&file)];
    while step(child, name) {
        if copies.last().is_some_and(|last| !last.is(&file)) {
            copies.push(Copy::of(&file));
            each();
        }
    }
    end_of(child);
    assert!(copies.len() > 1, "{name} changes nothing");
    copies
}

/// One instruction; `false` when the child has stopped itself.
fn step(child: Pid, name: &str) -> bool {
    ptrace::step(child, None).unwrap();
    match waitpid(child, None).unwrap() {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => true,
        WaitStatus::Stopped(_, Signal::SIGSTOP) => false,
        other => panic!("{name}: {other:?}"),
    }
}

fn end_of(child: Pid) {
    ptrace::kill(child).unwrap();
    waitpid(child, None).unwrap();
}

fn wait_for_stop(child: Pid) {
    match waitpid(child, None).unwrap() {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
        other => panic!("{other:?}"),
    }
}

/// The parts of a file that an operation reaches: header, table and the first records of the owner's ring; those of the shared
/// ring; keys; values.
#[derive(PartialEq)]
struct Copy([Vec<u8>; 4]);

const PARTS: [(u64, usize); 4] =
    [(0, 12 << 10), ((8 + 128) << 10, 1 << 10), (16 << 20, 4 << 10), (32 << 20, 2 << 10)];

impl Copy {
    fn of(file: &File) -> Self {
        Self(PARTS.map(|(at, length)| {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, at).unwrap();
            bytes
        }))
    }

    /// Says whether the file has not changed since.
    fn is(&self, file: &File) -> bool {
        let now = Self::of(file);
        self.0 == now.0
    }

    fn write_to(&self, file: &File) {
        for ((at, _), bytes) in PARTS.iter().zip(&self.0) {
            file.write_all_at(bytes, *at).unwrap();
        }
    }
}

/// Buries the worker that left this file, reads all counts, and lets a successor begin where it ended.
fn check(what: &str, copy: &Copy) {
    let mut world = World::new();
    let run = world.run();
    copy.write_to(&File::options().write(true).open(world.slot_path()).unwrap());
    let death = Death { pid: 1, signal: Some(9), exit_code: None, reason: LostReason::Crash };
    let buried = world.epoch.bury(0, &death);
    let first = counts(&run, what);
    assert_eq!(first.started, first.finished + first.lost, "{what}: {first:?}");
    assert!((first.lost - buried.lost.len() as f64).abs() < 0.5, "{what}");
    assert!((first.records - first.finished).abs() < 0.5, "{what}: {first:?}");
    assert!((buried.served as f64 - first.finished).abs() < 0.5, "{what}: {first:?} {buried:?}");
    // A successor takes over and nothing moves by that; what it counts is added.
    if let Some(files) = world.files.take() {
        let slot = Slot::attach(files).unwrap();
        let second = counts(&run, what);
        assert_eq!(first, second, "{what}: taking over changed a count");
        BY.with(["known"]).inc();
        VALUES.observe(0.5);
        slot.in_flight().begin(&begin(3)).end(&end());
        std::thread::scope(|scope| {
            let foreign = scope.spawn(|| {
                slot.records().event(&EVENT);
                VALUES.observe(1.5);
            });
            foreign.join().unwrap();
        });
        let third = counts(&run, what);
        assert_eq!(third.finished, second.finished + 1.0, "{what}");
        assert_eq!(third.events, second.events + 1.0, "{what}");
        assert_eq!(third.values, second.values + 2.0, "{what}");
        assert_eq!(third.sum, second.sum + 2.0, "{what}");
    }
    world.epoch.remove();
}

#[derive(PartialEq, Debug)]
struct Counts {
    started: f64,
    finished: f64,
    lost: f64,
    records: f64,
    events: f64,
    values: f64,
    sum: f64,
    last: f64,
}

fn counts(run: &Path, what: &str) -> Counts {
    let mut reader = Reader::open(run).unwrap();
    let families = reader.read().unwrap();
    let sum = |name: &str| {
        let family = families.list().iter().find(|family| family.name == name);
        assert!(family.is_none_or(|family| family.is_known), "{what}: the slot is bad");
        let series = family.into_iter().flat_map(|family| &family.series);
        series.map(|series| series.value.as_f64()).sum::<f64>()
    };
    let values = families.list().iter().find(|family| family.name == "test_values");
    let value = values.and_then(|family| family.series.first()).map(|series| series.value.clone());
    let (buckets, total) = match value {
        Some(ValueRead::Histogram(buckets, total)) => (buckets, total),
        _ => (vec![0; 3], 0.0),
    };
    // Each 0.5 is in the first bucket, each 1.5 in the second: the sum must say the same.
    let expected = buckets[0] as f64 * 0.5 + buckets[1] as f64 * 1.5;
    assert!((expected - total).abs() < 1e-9, "{what}: {buckets:?} {total}");
    let last = sum("test_last");
    assert!(last == 0.0 || last == 7.0 || last == 8.0, "{what}: {last}");
    let (records, events) = records(run, what);
    Counts {
        started: sum("http_server_requests_started_total"),
        finished: sum("http_server_request_duration_seconds"),
        lost: sum("http_server_requests_lost_total"),
        records,
        events,
        values: sum("test_values"),
        sum: total,
        last,
    }
}

/// Whole requests and events in the rings.
fn records(run: &Path, what: &str) -> (f64, f64) {
    let mut rings = Rings::open(run).unwrap();
    let (mut requests, mut events) = (0.0, 0.0);
    for slot in rings.slots() {
        for ring in [RingName::Owner, RingName::Shared] {
            let start = slot.start(ring, Stage::Log);
            slot.read(ring, start, |_, entry| {
                let [request, event] = whole(entry, what);
                requests += request;
                events += event;
                Reading::On
            });
        }
    }
    (requests, events)
}

/// Whether an entry is a request, whether it is an event; fails if a part of it is not there.
fn whole(entry: Entry<'_>, what: &str) -> [f64; 2] {
    let (is, text, expected) = match entry {
        Entry::Record(Record::Request(request)) => ([1.0, 0.0], request.path, "/some/path"),
        Entry::Record(Record::Lost(lost)) => ([0.0, 0.0], lost.request.path, "/some/path"),
        Entry::Record(Record::Event(event)) => ([0.0, 1.0], event.message.into(), EVENT.message),
        other => panic!("{what}: {other:?}"),
    };
    assert_eq!(text, expected, "{what}");
    is
}

const EVENT: Event<'static> = Event {
    wall_ns: 1,
    level: Level::Info,
    target: "steps",
    message: "something happened",
    trace: TraceId::NONE,
    span: SpanId::NONE,
    request_id: "",
    fields: &[],
};

fn begin(number: u8) -> Begin<'static> {
    Begin {
        method: Method::Get,
        protocol: Protocol::Http11,
        start_ns: 1_000,
        start_wall_ns: 2_000,
        trace: TraceId([number; 16]),
        span: SpanId([number; 8]),
        parent: SpanId::NONE,
        remote_parent: false,
        sampled: true,
        client: None,
        client_port: 0,
        request_id: b"request",
        path: "/some/path",
    }
}

fn end() -> End<'static> {
    End {
        end_ns: 2_000_000,
        outcome: Outcome::Ok,
        status: Some(200),
        request_bytes: 3,
        response_bytes: 5,
        sampling: Sampling::Ratio,
        exception: None,
        path: "/some/path",
        method_text: "",
        user_agent: b"",
        server_address: b"",
        is_https: false,
        server_port: 80,
        tracestate: "",
        request_id: b"request",
    }
}

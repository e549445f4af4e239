//! Curves: how the cost of an update grows with the number of label sets, and that of a scrape with slots and series. Beside
//! each update stands what the machine does at least, and what the other crates do. `ratios` says whether goals are met.
//!
//! `cargo bench -p saola-observability --bench slot_files`, with a filter behind `--`: `scrape/warm`, `counter`, …
#![expect(
    clippy::unwrap_used,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "a program that measures"
)]

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;
use saola_observability::exposition::{self, Format};
use saola_observability::metrics::{CounterHandle, CounterVec, HistogramHandle, HistogramVec};
use saola_observability::reader::Reader;
use saola_observability::{Choice, Death, Epoch, LostReason, RunDir, Shape, Slot, SlotState};

const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
static COUNTER: CounterVec<3> = CounterVec::new("bench_total", "Counts.", ["a", "b", "c"]);
static HISTOGRAM: HistogramVec<3> =
    HistogramVec::new("bench_seconds", "Times.", ["a", "b", "c"], &BOUNDS);

/// Label sets of one family: in the last step a slot refuses more.
const SETS: [usize; 4] = [1, 10, 100, 1_000];
const SLOTS: [u32; 4] = [1, 4, 16, 64];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    // Scrapes first: their workers are forked, and a process has one slot.
    scrapes(&mut criterion);
    let server = Server::new();
    let mut epoch = server.epoch;
    let slot = Slot::attach(epoch.open_worker(0, 1).unwrap()).unwrap();
    slot.set_state(SlotState::Ready);
    counters(&mut criterion);
    histograms(&mut criterion);
    epoch.remove();
    criterion.final_summary();
}

fn labels(sets: usize) -> Vec<[String; 3]> {
    let set = |at: usize| [format!("method{}", at % 5), format!("/a/route/{at}"), "200".to_owned()];
    (0..sets).map(set).collect()
}

fn counters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("counter");
    let opts = prometheus::Opts::new("x", "X.");
    let theirs = prometheus::IntCounterVec::new(opts, &["a", "b", "c"]).unwrap();
    for sets in SETS {
        let cells: Vec<AtomicU64> = (0..sets).map(|_| AtomicU64::new(0)).collect();
        let labels = labels(sets);
        let with = |[a, b, c]: &[String; 3]| COUNTER.with([a, b, c]);
        let handles: Vec<CounterHandle> = labels.iter().map(with).collect();
        let their_with = |[a, b, c]: &[String; 3]| theirs.with_label_values(&[a, b, c]);
        let their_handles: Vec<_> = labels.iter().map(their_with).collect();
        each(&mut group, "load + store", &cells, |cell| {
            cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
        });
        each(&mut group, "lock xadd", &cells, |cell| _ = cell.fetch_add(1, Relaxed));
        each(&mut group, "inc", &handles, |counter| counter.inc());
        each(&mut group, "prometheus inc", &their_handles, prometheus::IntCounter::inc);
        each(&mut group, "with + inc", &labels, |labels| with(labels).inc());
        each(&mut group, "prometheus with + inc", &labels, |labels| their_with(labels).inc());
    }
}

fn histograms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("histogram");
    let opts = prometheus::HistogramOpts::new("y", "Y.").buckets(BOUNDS.to_vec());
    let theirs = prometheus::HistogramVec::new(opts, &["a", "b", "c"]).unwrap();
    for sets in SETS {
        let labels = labels(sets);
        let values = || BOUNDS.iter().map(|bound| bound * 0.9).cycle();
        let with = |[a, b, c]: &[String; 3]| HISTOGRAM.with([a, b, c]);
        let handles: Vec<(HistogramHandle, f64)> = labels.iter().map(with).zip(values()).collect();
        let their_with = |[a, b, c]: &[String; 3]| theirs.with_label_values(&[a, b, c]);
        let their_handles: Vec<_> = labels.iter().map(their_with).zip(values()).collect();
        each(&mut group, "observe", &handles, |(one, value)| one.observe(*value));
        each(&mut group, "prometheus observe", &their_handles, |(one, value)| one.observe(*value));
    }
}

/// One operation on each of the items in turn: what is measured is all of them.
fn each<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    items: &[T],
    mut turn: impl FnMut(&T),
) {
    group.throughput(Throughput::Elements(items.len() as u64));
    group.bench_with_input(BenchmarkId::new(name, items.len()), items, |bencher, items| {
        bencher.iter(|| {
            for item in items {
                turn(black_box(item));
            }
        });
    });
}

fn scrapes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scrape");
    for sets in [10, 100, 1_000] {
        let mut server = Server::new();
        for slot in 0..SLOTS[3] {
            server.one_life(slot, sets);
            if !SLOTS.contains(&(slot + 1)) {
                continue;
            }
            let run = server.run_dir.path();
            // A histogram of 11 bounds makes 14 lines, a counter one.
            group.throughput(Throughput::Elements(15 * sets as u64));
            let id = |name| BenchmarkId::new(name, format!("{} slots, {sets} sets", slot + 1));
            let mut reader = Reader::open(run).unwrap();
            let mut text = Vec::new();
            group.bench_function(id("warm"), |bencher| {
                bencher.iter(|| {
                    exposition::text_into(reader.read().unwrap(), Format::Text, &mut text);
                    black_box(&text);
                });
            });
            group.bench_function(id("cold"), |bencher| bencher.iter(|| black_box(cold(run))));
        }
        server.epoch.remove();
    }
}

/// By a reader that has seen none of the series before.
fn cold(run: &Path) -> Vec<u8> {
    exposition::text(Reader::open(run).unwrap().read().unwrap(), Format::Text)
}

struct Server {
    _folder: tempfile::TempDir,
    run_dir: RunDir,
    epoch: Epoch,
}

impl Server {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("saola-bench").tempdir_in("/dev/shm").unwrap();
        // Of the rings nothing is measured here.
        let shape = Shape { in_flight_entries: 16, ring_bytes: 128 << 10, samples: false };
        let choice = Choice {
            given: Some(folder.path().join("run")),
            slots_at_peak: 1,
            shape,
            ..Choice::default()
        };
        let mut run_dir = RunDir::choose(&choice).unwrap().dir;
        run_dir.lock("bench").unwrap();
        let epoch = Epoch::create(&run_dir, shape).unwrap();
        epoch.publish().unwrap();
        Self { _folder: folder, run_dir, epoch }
    }

    /// A worker that uses each label set once and ends.
    fn one_life(&mut self, number: u32, sets: usize) {
        let files = self.epoch.open_worker(number, 1).unwrap();
        #[expect(unsafe_code, reason = "a slot is attached once in the life of a process")]
        // SAFETY: fork(2) asks for one thread: nothing has started another one yet.
        let child = match unsafe { nix::unistd::fork() }.unwrap() {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                let is_done = std::panic::catch_unwind(|| {
                    Slot::attach(files).unwrap().set_state(SlotState::Ready);
                    for [a, b, c] in &labels(sets) {
                        COUNTER.with([a, b, c]).inc();
                        HISTOGRAM.with([a, b, c]).observe(0.3);
                    }
                });
                std::process::exit(i32::from(is_done.is_err()))
            }
        };
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        let (pid, reason) = (child.as_raw().unsigned_abs(), LostReason::Drain);
        self.epoch.bury(number, &Death { pid, signal: None, exit_code: Some(0), reason });
    }
}

//! Workers that agree and workers that do not: series in another order, another definition of one name, files of another
//! format, gauges of every mode. Each worker is a process of its own; it forks, so it is its own `main` with one thread.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::float_cmp,
    reason = "a test with its own main"
)]

use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use saola_observability::metrics::{Counter, CounterVec, Gauge, GaugeMode, Histogram};
use saola_observability::reader::{Conflict, Reader, ValueRead};
use saola_observability::record::OwnedValue;
use saola_observability::rings::{Reading, Rings};
use saola_observability::scraper::Scraper;
use saola_observability::{
    Choice, Death, Entry, Epoch, LostReason, Record, RingName, RunDir, Shape, Slot, SlotState,
    Stage,
};

static A: CounterVec<1> = CounterVec::new("test_a_total", "A.", ["x"]);
static B: Counter = Counter::new("test_b_total", "B.");
static ONE: Counter = Counter::new("test_same_total", "One definition.");
static OTHER: Counter = Counter::new("test_same_total", "Another definition.");
static FLOAT: Histogram = Histogram::new("test_same", "A histogram.", &[1.0]);
static GAUGE: Gauge = Gauge::new("test_same", "A gauge.");
static SUM: Gauge = Gauge::new("test_added", "A sum.");
static MAX: Gauge = Gauge::new("test_max", "The greatest.").mode(GaugeMode::LiveMax);
static MIN: Gauge = Gauge::new("test_min", "The least.").mode(GaugeMode::LiveMin);
static LAST: Gauge = Gauge::new("test_last", "The last.").mode(GaugeMode::Last);
static EACH: Gauge = Gauge::new("test_each", "Each.").mode(GaugeMode::PerWorker);
static ALL: [&Gauge; 5] = [&SUM, &MAX, &MIN, &LAST, &EACH];

fn main() {
    let tests: [(&str, fn()); 7] = [
        ("the_order_of_registration_does_not_matter", the_order_does_not_matter),
        ("the_definition_of_the_lowest_slot_wins", the_lowest_slot_wins),
        ("two_statics_of_one_name_are_one_metric_or_none", two_statics_of_one_name),
        ("files_of_another_format_are_not_scraped", files_of_another_format),
        ("a_file_that_is_not_of_this_epoch_leaves_a_gap", a_file_that_is_not_of_this_epoch),
        ("sums_over_slots_and_threads_are_exact_and_wrap", sums_are_exact_and_wrap),
        ("gauges_agree_with_a_model", gauges_agree_with_a_model),
    ];
    for (name, test) in tests {
        let child = fork(test);
        let passed = waitpid(child, None).unwrap() == WaitStatus::Exited(child, 0);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        assert!(passed);
    }
    println!("\ntest result: ok. {} passed; 0 failed", tests.len());
}

fn the_order_does_not_matter() {
    let mut server = Server::new();
    server.life(0, || {
        A.with(["one"]).inc();
        A.with(["two"]).inc();
        B.inc();
    });
    server.life(1, || {
        B.add(10);
        A.with(["two"]).add(10);
        A.with(["one"]).add(100);
    });
    let text = server.text();
    for line in
        ["test_a_total{x=\"one\"} 101\n", "test_a_total{x=\"two\"} 11\n", "test_b_total 11\n"]
    {
        assert!(text.contains(line), "{line}{text}");
    }
}

fn the_lowest_slot_wins() {
    let mut server = Server::new();
    server.life(1, || FLOAT.observe(0.5));
    let mut early = Reader::open(&server.run).unwrap();
    let kind = |reader: &mut Reader| {
        let families = reader.read().unwrap();
        let family = families.list().iter().find(|family| family.name == "test_same").unwrap();
        (family.series.len(), matches!(family.series[0].value, ValueRead::Histogram(..)))
    };
    assert_eq!(kind(&mut early), (1, true));
    server.life(0, || GAUGE.set(7.0));
    server.life(2, || FLOAT.observe(0.5));
    // A reader that has known the histogram before agrees with one that opens now.
    let mut late = Reader::open(&server.run).unwrap();
    for reader in [&mut early, &mut late] {
        assert_eq!(kind(reader), (1, false));
        let conflicts: Vec<Conflict> = reader.families().conflicts().to_vec();
        let of = |slot: &str| Conflict {
            family: "test_same".to_owned(),
            kept: "slot-0000".to_owned(),
            left_out: slot.to_owned(),
        };
        assert_eq!(conflicts, [of("slot-0001"), of("slot-0002")]);
    }
    let text = server.text();
    assert!(text.contains("saola_metrics_series_dropped_total{reason=\"conflict\"} 2\n"), "{text}");
    server.text();
    assert_eq!(server.warnings(), ["test_same slot-0000 slot-0001"], "warned once, of both files");
}

fn two_statics_of_one_name() {
    let mut server = Server::new();
    server.life(0, || {
        ONE.inc();
        OTHER.add(100);
    });
    let text = server.text();
    assert!(text.contains("test_same_total 1\n"), "{text}");
    assert!(text.contains("saola_metrics_series_dropped_total{reason=\"conflict\"} 1\n"), "{text}");
}

fn files_of_another_format() {
    let mut server = Server::new();
    server.life(0, || B.inc());
    let answer = || server.scraper.answer("GET", None, None).status;
    assert_eq!(answer(), 200);
    for name in ["supervisor", "observer", "slot-0000"] {
        let path = server.run.join("epoch-000001").join(name);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&2_u16.to_ne_bytes(), 8).unwrap(); // the major
    }
    assert_eq!(Scraper::new(server.run.clone()).answer("GET", None, None).status, 503);
}

/// One of two slots is of another boot, format or kind, empty, or not made yet: a scrape shows no counter, never one slot's
/// part of the sum. A reader from before and one that opens now agree.
fn a_file_that_is_not_of_this_epoch() {
    type Change = fn(&mut [u8]);
    let changes: [(&str, Change); 7] = [
        ("another boot", |header| header[0x10] ^= 1),
        ("another epoch", |header| header[0x20] ^= 1),
        ("another slot", |header| header[0x28] ^= 2),
        ("another major", |header| header[0x08] ^= 2),
        ("a longer header", |header| header[0x0D] ^= 1),
        ("another magic", |header| header[..8].copy_from_slice(b"SOMETHNG")),
        ("no magic yet", |header| header[..8].fill(0)),
    ];
    for (what, change) in changes {
        let child = fork(|| {
            let mut server = Server::new();
            server.life(0, || B.add(10));
            server.life(1, || B.add(10));
            let mut early = Reader::open(&server.run).unwrap();
            assert_eq!(sum_of_b(&mut early), Some(20.0));
            let path = server.run.join("epoch-000001/slot-0001");
            let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
            let mut header = [0; 0xA0];
            file.read_exact_at(&mut header, 0).unwrap();
            change(&mut header);
            seal(&mut header);
            file.write_all_at(&header, 0).unwrap();
            assert_eq!(sum_of_b(&mut Reader::open(&server.run).unwrap()), None, "{what}");
            // The early one has the old header checked; it may show the whole sum, or nothing.
            let early = sum_of_b(&mut early);
            assert!(early.is_none_or(|sum| sum >= 20.0), "{what}: {early:?}");
        });
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0), "{what}");
    }
}

/// Makes the checksum agree with a header that was changed: what is found is the change, not that there was one.
fn seal(header: &mut [u8; 0xA0]) {
    let mut hasher = crc32fast::Hasher::new();
    for part in [0x08..0x30, 0x38..0x40, 0x40..0xA0] {
        hasher.update(&header[part]);
    }
    header[0x30..0x38].copy_from_slice(&u64::from(hasher.finalize()).to_ne_bytes());
}

/// `None` while it is not shown.
fn sum_of_b(reader: &mut Reader) -> Option<f64> {
    let families = reader.read().unwrap();
    let family =
        families.list().iter().find(|family| family.name == "test_b_total" && family.is_known)?;
    Some(family.series.iter().map(|series| series.value.as_f64()).sum())
}

fn sums_are_exact_and_wrap() {
    let mut server = Server::new();
    server.life(0, || A.with(["exact"]).add(1 << 53));
    server.life(1, || {
        A.with(["exact"]).inc();
        std::thread::scope(|scope| scope.spawn(|| A.with(["exact"]).add(1 << 60)).join().unwrap());
    });
    server.life(0, || A.with(["wraps"]).add(u64::MAX));
    assert!(server.text().contains("test_a_total{x=\"wraps\"} 18446744073709551615\n"));
    server.life(1, || A.with(["wraps"]).add(3));
    let text = server.text();
    assert!(text.contains("test_a_total{x=\"exact\"} 1161928703861587969\n"), "{text}");
    assert!(text.contains("test_a_total{x=\"wraps\"} 2\n"), "{text}");
}

/// Workers set gauges and die at random; after each step every mode says what a model of it says.
fn gauges_agree_with_a_model() {
    const VALUES: [f64; 7] = [1.0, -2.5, 0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let mut server = Server::new();
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound).unwrap()
    };
    let mut workers: Vec<Option<(Pid, Option<f64>)>> = vec![None; 4];
    // A worker finds the gauges of its slot at 0, if any worker before it has used them.
    let mut at_birth = [None; 4];
    let mut last = None;
    for turn in 0..120 {
        let slot = next(4);
        match workers[slot].take() {
            Some((pid, _)) => server.end(slot, pid),
            None if next(5) == 0 => {
                workers[slot] = Some((server.begin(slot, None), at_birth[slot]));
            }
            None => {
                let value = VALUES[next(7)];
                (last, at_birth[slot]) = (Some(value), Some(0.0));
                workers[slot] = Some((server.begin(slot, Some(value)), Some(value)));
            }
        }
        let live: Vec<(usize, f64)> = workers
            .iter()
            .enumerate()
            .filter_map(|(slot, worker)| Some((slot, (*worker)?.1?)))
            .collect();
        let values = || live.iter().map(|(_, value)| *value);
        let expected = [
            ("test_added", values().reduce(|a, b| a + b)),
            ("test_max", values().reduce(f64::max)),
            ("test_min", values().reduce(f64::min)),
            ("test_last", last),
        ];
        let mut reader = Reader::open(&server.run).unwrap();
        let families = reader.read().unwrap();
        for (name, expected) in expected {
            let family = families.list().iter().find(|family| family.name == name);
            let found =
                family.and_then(|family| family.series.first()).map(|one| one.value.clone());
            let found = match found {
                Some(ValueRead::F64(value)) => Some(value),
                _ => None,
            };
            assert!(is_same(found, expected), "turn {turn}: {name} {found:?}, not {expected:?}");
        }
        let each = families.list().iter().find(|family| family.name == "test_each");
        for (slot, value) in &live {
            let label = format!("worker=\"{slot}\"");
            let series = each.unwrap().series.iter().find(|series| series.labels == label).unwrap();
            assert!(is_same(Some(series.value.as_f64()), Some(*value)), "turn {turn}: {label}");
        }
    }
}

fn is_same(left: Option<f64>, right: Option<f64>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => left == right || left.is_nan() && right.is_nan(),
        (left, right) => left.is_none() && right.is_none(),
    }
}

struct Server {
    _folder: tempfile::TempDir,
    run: PathBuf,
    _run_dir: RunDir,
    epoch: Epoch,
    scraper: Scraper,
}

impl Server {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let run = folder.path().join("run");
        let shape = Shape { in_flight_entries: 16, ring_bytes: 128 << 10, samples: false };
        let choice =
            Choice { given: Some(run.clone()), slots_at_peak: 4, shape, ..Choice::default() };
        let mut run_dir = RunDir::choose(&choice).unwrap().dir;
        run_dir.lock("0").unwrap();
        let epoch = Epoch::create(&run_dir, shape).unwrap();
        epoch.publish().unwrap();
        let scraper = Scraper::new(run.clone());
        Self { _folder: folder, run, _run_dir: run_dir, epoch, scraper }
    }

    fn text(&self) -> String {
        let answer = self.scraper.answer("GET", None, None);
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    /// A worker that does one thing and ends.
    fn life(&mut self, slot: u32, work: impl FnOnce()) {
        let files = self.epoch.open_worker(slot, 1).unwrap();
        let child = fork(|| {
            Slot::attach(files).unwrap().set_state(SlotState::Ready);
            work();
        });
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        self.bury(slot, child);
    }

    /// A worker that has set all gauges, and lives.
    fn begin(&mut self, slot: usize, value: Option<f64>) -> Pid {
        let (mut ready, mut tell) = std::io::pipe().unwrap();
        let files = self.epoch.open_worker(u32::try_from(slot).unwrap(), 1).unwrap();
        let child = fork(move || {
            nix::unistd::alarm::set(20); // it outlives a test that fails, but not for long
            Slot::attach(files).unwrap().set_state(SlotState::Ready);
            for gauge in ALL {
                if let Some(value) = value {
                    gauge.set(value);
                }
            }
            tell.write_all(b"!").unwrap();
            loop {
                nix::unistd::pause();
            }
        });
        ready.read_exact(&mut [0]).unwrap();
        child
    }

    fn end(&mut self, slot: usize, child: Pid) {
        kill(child, Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
        self.bury(u32::try_from(slot).unwrap(), child);
    }

    fn bury(&mut self, slot: u32, child: Pid) {
        let (pid, reason) = (child.as_raw().unsigned_abs(), LostReason::Drain);
        self.epoch.bury(slot, &Death { pid, signal: None, exit_code: Some(0), reason });
    }

    /// Metric and files of each warning in the rings.
    fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut rings = Rings::open(&self.run).unwrap();
        for slot in rings.slots() {
            let start = slot.start(RingName::Owner, Stage::Log);
            slot.read(RingName::Owner, start, |_, entry| {
                if let Entry::Record(Record::Event(event)) = entry {
                    let texts = event.fields.iter().filter_map(|(_, value)| match value {
                        OwnedValue::Str(text) => Some(text.as_str()),
                        _ => None,
                    });
                    found.push(texts.collect::<Vec<_>>().join(" "));
                }
                Reading::On
            });
        }
        found
    }
}

fn fork(body: impl FnOnce()) -> Pid {
    #[expect(unsafe_code, reason = "a slot is attached once in the life of a process")]
    // SAFETY: fork(2) asks for one thread: this process has one.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let body = std::panic::AssertUnwindSafe(body);
            std::process::exit(i32::from(std::panic::catch_unwind(body).is_err()))
        }
    }
}

//! Bytes that nobody wrote: random flips and noise in every part of every kind of file, through everything that reads. Nothing
//! panics, reads outside or shows a series that was never made. It forks, so it is its own `main` with one thread.
//!
//! `SAOLA_FLIPS` says how many (default 100,000 in 11,000 files; with `SAOLA_LONG=1` ten times as many of both), `SAOLA_SEED`
//! where the numbers begin.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::mem_forget,
    reason = "a test with its own main"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;
use saola_observability::metrics::{CounterVec, Histogram};
use saola_observability::reader::Reader;
use saola_observability::rings::{Reading, Rings};
use saola_observability::samples::Sample;
use saola_observability::scraper::Scraper;
use saola_observability::{
    Begin, Choice, Death, Epoch, Event, Level, LostReason, Method, Protocol, RingName, RunDir,
    Shape, Slot, SlotFiles, SlotState, SpanId, Stage, TraceId,
};

static MANY: CounterVec<1> = CounterVec::new("test_many_total", "Many.", ["a"]);
static VALUES: Histogram = Histogram::new("test_values", "Numbers.", &[1.0, 2.0]).exemplars();

const SHAPE: Shape = Shape { in_flight_entries: 16, ring_bytes: 128 << 10, samples: true };

/// A part of a file: its name, where it begins, how much of it is in use.
type Part = (&'static str, u64, u64);

const PARTS: [Part; 14] = [
    ("slot-0000", 0, 4_096),         // header
    ("slot-0000", 0, 512),           // identity, sections, owner, publication, drops
    ("slot-0000", 4_096, 4_096),     // table of requests
    ("slot-0000", 8_192, 4_096),     // owner ring
    ("slot-0000", 139_264, 4_096),   // shared ring
    ("slot-0000", 172_032, 8_192),   // samples
    ("slot-0000", 16 << 20, 8_192),  // keys
    ("slot-0000", 32 << 20, 4_096),  // values
    ("supervisor", 0, 4_096),        // header
    ("supervisor", 4_096, 4_096),    // ring
    ("supervisor", 16 << 20, 4_096), // keys
    ("observer", 0, 4_096),          // header
    ("observer", 16 << 20, 4_096),   // keys
    ("observer", 32 << 20, 4_096),   // values
];

fn main() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let is_long = number("SAOLA_LONG") == Some(1);
    let flips = number("SAOLA_FLIPS").unwrap_or(if is_long { 1_000_000 } else { 100_000 });
    let seed = number("SAOLA_SEED").unwrap_or(0x9E37_79B9_7F4A_7C15);
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let (epoch, _run_dir) = supervise(&folder.path().join("run"));
    let copy = copy_of_a_server(folder.path(), epoch);
    let mut noise = Noise { state: seed, copy: copy.clone() };

    println!("SAOLA_SEED={seed}");
    let (mut flipped, mut turns) = (0, 0);
    while flipped < flips {
        let undo = noise.write();
        let _refused = read_all(&copy, turns);
        flipped += undo.flipped();
        turns += 1;
        undo.carry_out();
    }
    println!("test readers_survive_flips ... ok ({flipped} bytes in {turns} files)");

    let lives = turns / 100;
    for turn in 0..lives {
        let undo = noise.write();
        let survived = in_child(|| succeed(&folder.path().join(format!("life-{turn}")), &copy));
        assert!(survived, "SAOLA_SEED={seed}: no successor survives turn {turn}");
        fs::remove_dir_all(folder.path().join(format!("life-{turn}"))).unwrap();
        undo.carry_out();
    }
    println!("test successors_survive_flips ... ok ({lives} lives)");
    println!("\ntest result: ok. 2 passed; 0 failed");
}

fn supervise(run: &Path) -> (Epoch, RunDir) {
    let choice = Choice {
        given: Some(PathBuf::from(run)),
        slots_at_peak: 1,
        shape: SHAPE,
        ..Choice::default()
    };
    let mut run_dir = RunDir::choose(&choice).unwrap().dir;
    run_dir.lock("0").unwrap();
    let epoch = Epoch::create(&run_dir, SHAPE).unwrap();
    epoch.publish().unwrap();
    (epoch, run_dir)
}

/// A server's directory with some of everything in it, copied: no owner lives there, so that a read costs no look at
/// `/proc` and 100,000 of them take seconds.
fn copy_of_a_server(folder: &Path, mut epoch: Epoch) -> PathBuf {
    let files = epoch.open_worker(0, 1).unwrap();
    assert!(in_child(move || fill(files)));
    let copy = folder.join("copy");
    fs::create_dir_all(copy.join("epoch-000001")).unwrap();
    std::os::unix::fs::symlink("epoch-000001", copy.join("current")).unwrap();
    for name in ["supervisor", "observer", "slot-0000"] {
        let name = Path::new("epoch-000001").join(name);
        fs::copy(folder.join("run").join(&name), copy.join(&name)).unwrap();
    }
    epoch.remove();
    copy
}

fn fill(files: SlotFiles) {
    let slot = Slot::attach(files).unwrap();
    slot.set_state(SlotState::Ready);
    for number in 0..40_u32 {
        MANY.with([format!("v{number}")]).inc();
        VALUES.observe_with_exemplar(f64::from(number), TraceId([1; 16]), SpanId([1; 8]));
        slot.records().event(&EVENT);
        let frames = [u64::from(number); 64];
        slot.push_sample(&Sample { frames, ..SAMPLE });
    }
    std::thread::scope(|scope| scope.spawn(|| slot.records().event(&EVENT)).join().unwrap());
    for number in 0..4 {
        std::mem::forget(slot.in_flight().begin(&Begin { start_ns: number, ..BEGIN }));
    }
}

const EVENT: Event<'static> = Event {
    wall_ns: 1,
    level: Level::Info,
    target: "t",
    message: "m",
    trace: TraceId::NONE,
    span: SpanId::NONE,
    request_id: "",
    fields: &[],
};

const SAMPLE: Sample = Sample {
    time_ns: 1,
    span: SpanId([1; 8]),
    trace: TraceId([1; 16]),
    route: 64,
    weight: 1,
    thread: 1,
    image: 1,
    depth: 3,
    is_cut: false,
    frames: [7; 64],
};

const BEGIN: Begin<'static> = Begin {
    method: Method::Get,
    protocol: Protocol::Http11,
    start_ns: 1,
    start_wall_ns: 1,
    trace: TraceId([1; 16]),
    span: SpanId([1; 8]),
    parent: SpanId::NONE,
    remote_parent: false,
    sampled: false,
    client: None,
    client_port: 0,
    request_id: b"r",
    path: "/p",
};

/// Everything that reads a run directory. None where a reader refuses it altogether.
fn read_all(run: &Path, turn: u64) -> Option<()> {
    let mut reader = Reader::open(run).ok()?;
    for family in reader.read().ok()?.list() {
        for series in family.series.iter().filter(|_| family.name.starts_with("test_")) {
            let value = series.labels.strip_prefix("a=\"").and_then(|rest| rest.strip_suffix('"'));
            let is_ours = match (family.name.as_str(), value) {
                ("test_many_total", Some("other")) => true,
                ("test_many_total", Some(value)) => {
                    value.strip_prefix('v').is_some_and(|n| n.parse().is_ok_and(|n: u32| n < 40))
                }
                ("test_values", None) => series.labels.is_empty(),
                _ => false,
            };
            assert!(is_ours, "turn {turn}: nobody's series {}{{{}}}", family.name, series.labels);
        }
    }
    let mut rings = Rings::open(run).ok()?;
    for slot in rings.slots() {
        let _ = (slot.in_flight(), slot.seen(), slot.is_live());
        for ring in [RingName::Owner, RingName::Shared] {
            slot.read(ring, slot.start(ring, Stage::Log), |_, _| Reading::On);
            slot.read_as_guest(ring, slot.oldest(ring), |_, _| Reading::On);
        }
        for position in slot.samples().take(64) {
            let _ = slot.sample(position);
        }
    }
    if turn.is_multiple_of(16) {
        assert!(
            [200, 500, 503]
                .contains(&Scraper::new(run.to_owned()).answer("GET", None, None).status)
        );
        #[cfg(feature = "prometheus")]
        collect(reader);
    }
    Some(())
}

/// The registry of the `prometheus` crate, which has rules of its own.
#[cfg(feature = "prometheus")]
fn collect(reader: Reader) {
    let registry = prometheus::Registry::new();
    let collector = saola_observability::prometheus::ServerCollector::new(reader).unwrap();
    registry.register(Box::new(collector)).unwrap();
    let mut text = String::new();
    prometheus::TextEncoder::new().encode_utf8(&registry.gather(), &mut text).unwrap();
}

/// A new server finds the damaged epoch: it buries what died there, or says that it cannot read it.
fn succeed(run: &Path, copy: &Path) {
    let (mut epoch, _run_dir) = supervise(run);
    let files = epoch.open_worker(0, 1).unwrap();
    let slot = run.join("epoch-000001/slot-0000");
    let (from, to) = (
        File::open(copy.join("epoch-000001/slot-0000")).unwrap(),
        File::options().write(true).open(slot).unwrap(),
    );
    for (at, length) in [(0, 4_096 + 16 * 256 + 4_096), (16 << 20, 16 << 10), (32 << 20, 16 << 10)]
    {
        let mut bytes = vec![0; length];
        from.read_exact_at(&mut bytes, at).unwrap();
        to.write_all_at(&bytes, at).unwrap();
    }
    let death = Death { pid: 1, signal: None, exit_code: None, reason: LostReason::Crash };
    epoch.bury(0, &death);
    if Slot::attach(files).is_ok() {
        MANY.with(["v1"]).inc();
        MANY.with(["v39 and more"]).inc();
        VALUES.observe(1.0);
    }
    epoch.remove();
}

struct Noise {
    state: u64,
    copy: PathBuf,
}

struct Undo {
    file: File,
    at: u64,
    bytes: Vec<u8>,
}

impl Noise {
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// A few flipped bytes of a part, or one time in ten a whole part of noise.
    fn write(&mut self) -> Undo {
        let (name, start, length) = PARTS[usize::try_from(self.next() % 14).unwrap()];
        let is_whole = self.next().is_multiple_of(10);
        let count = if is_whole { length } else { 1 + self.next() % 15 };
        let at = if is_whole { start } else { start + self.next() % (length - count) };
        let path = self.copy.join("epoch-000001").join(name);
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut bytes = vec![0; usize::try_from(count).unwrap()];
        file.read_exact_at(&mut bytes, at).unwrap();
        let noise: Vec<u8> = bytes.iter().map(|byte| byte ^ self.next().to_le_bytes()[3]).collect();
        file.write_all_at(&noise, at).unwrap();
        Undo { file, at, bytes }
    }
}

impl Undo {
    /// Flipped bytes; noise all over a part is one file, not thousands of flips.
    fn flipped(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap().min(15)
    }

    fn carry_out(self) {
        self.file.write_all_at(&self.bytes, self.at).unwrap();
    }
}

fn in_child(body: impl FnOnce()) -> bool {
    #[expect(unsafe_code, reason = "a slot is attached once in the life of a process")]
    // SAFETY: fork(2) asks for one thread: this process has one.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => {
            matches!(waitpid(child, None).unwrap(), WaitStatus::Exited(_, 0))
        }
        ForkResult::Child => {
            let body = std::panic::AssertUnwindSafe(body);
            std::process::exit(i32::from(std::panic::catch_unwind(body).is_err()))
        }
    }
}

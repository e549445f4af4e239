//! Ends a worker at random instants, hundreds of times and in every way that ends a process: SIGKILL, SIGTERM, SIGSEGV,
//! SIGABRT, its own abort, the kernel for its memory. After each death nothing is lost and nothing has fallen. It forks, so it
//! is its own `main` with one thread. `SAOLA_CRASH_ROUNDS` says how many deaths (default 100, with `SAOLA_LONG=1` 1,000).
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::panic,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a test with its own main"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use saola_observability::metrics::{Counter, CounterVec, Gauge, Histogram, Metric, register};
use saola_observability::reader::{Families, Reader, ValueRead};
use saola_observability::rings::{Reading, Rings};
use saola_observability::{
    Begin, Choice, Death, End, Entry, Epoch, LostReason, Method, Outcome, Protocol, Record,
    Request, RingName, RunDir, Sampling, Shape, Slot, SlotState, SpanId, Stage, TraceId, clock,
};

static WORK: Counter = Counter::new("test_work_total", "Turns of the worker.");
static WORK_BY: CounterVec<2> =
    CounterVec::new("test_work_by_total", "Turns by label.", ["a", "b"]);
/// Each whole number has a bucket of its own, so that the buckets say what the sum must be.
static VALUES: Histogram = Histogram::new("test_values", "Whole numbers.", &[1.0, 2.0, 3.0, 4.0]);
static OPEN: Gauge = Gauge::new("test_open", "Something alive.");

fn main() {
    let is_long = std::env::var("SAOLA_LONG").is_ok_and(|value| value == "1");
    let usual = if is_long { 1_000 } else { 100 };
    let given = std::env::var("SAOLA_CRASH_ROUNDS").ok();
    let rounds = given.and_then(|text| text.parse().ok()).unwrap_or(usual);
    let folder = tempfile::tempdir().unwrap();
    let choice =
        Choice { given: Some(folder.path().join("run")), slots_at_peak: 2, ..Choice::default() };
    let mut run_dir = RunDir::choose(&choice).unwrap().dir;
    run_dir.lock("0.0.0").unwrap();
    let mut epoch = Epoch::create(&run_dir, Shape::default()).unwrap();
    epoch.publish().unwrap();
    epoch.remove_leftovers();
    let mut check = Check::new(run_dir.path());
    let small = Small::new();
    for round in 0..rounds {
        let end = END[usize::try_from(round).unwrap() % END.len()];
        one_life(&mut epoch, round, end, small.as_ref());
        check.after(round);
    }
    drop(small);
    scrapes_of_a_life(&mut epoch, run_dir.path());
    check.after(rounds);
    let sum = check.finish();
    epoch.remove();
    run_dir.release();
    assert!(!folder.path().join("run").exists());
    println!(
        "test crash ... ok ({rounds} deaths, {sum} requests)\n\ntest result: ok. 1 passed; 0 failed"
    );
}

/// While requests begin and end, no scrape has more of them finished or lost than started, and what is between is in flight
/// or has begun since the reading did (F42): what is finished is read first, what is started last.
fn scrapes_of_a_life(epoch: &mut Epoch, run: &Path) {
    let child = begin_life(epoch, u64::MAX, None);
    let mut reader = Reader::open(run).unwrap();
    let mut sums = || {
        let families = reader.read().unwrap();
        let sum = |name: &str| {
            let family = families.list().iter().find(|family| family.name == name);
            family.map_or(0.0, |family| family.series.iter().map(|one| one.value.as_f64()).sum())
        };
        let started: f64 = sum("http_server_requests_started_total");
        let ended: f64 = sum("http_server_request_duration_seconds");
        (started, ended + sum("http_server_requests_lost_total"))
    };
    let (mut scrapes, mut before) = (0, sums());
    let first = before.0;
    while scrapes < 1_000 || before.0 < first + 10_000.0 {
        let now = sums();
        assert!(now.0 >= now.1, "scrape {scrapes}: {now:?}");
        // What runs is at most eight, at any time: all others that had begun when the reading did have ended by now.
        let begun_since = now.0 - before.0;
        assert!(now.0 - now.1 <= 8.0 + begun_since, "scrape {scrapes}: {before:?} {now:?}");
        assert!(now.0 >= before.0 && now.1 >= before.1, "{before:?} {now:?}");
        (scrapes, before) = (scrapes + 1, now);
    }
    kill(child, Signal::SIGKILL).unwrap();
    waitpid(child, None).unwrap();
    let reason = LostReason::Crash;
    epoch.bury(0, &Death { pid: pid(child), signal: Some(9), exit_code: None, reason });
}

/// How a life ends.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum How {
    /// By a signal, at any instruction.
    By(Signal),
    /// By its own hand, between two turns.
    Abort,
    /// By the kernel, when its group has no memory left.
    Memory,
}

const END: [How; 10] = [
    How::By(Signal::SIGKILL),
    How::By(Signal::SIGTERM),
    How::By(Signal::SIGKILL),
    How::By(Signal::SIGSEGV),
    How::By(Signal::SIGKILL),
    How::By(Signal::SIGABRT),
    How::Abort,
    How::By(Signal::SIGKILL),
    How::By(Signal::SIGBUS),
    How::Memory,
];

/// A control group with little memory, of either version.
struct Small(PathBuf);

impl Small {
    fn new() -> Option<Self> {
        let name = format!("saola-crash-{}", std::process::id());
        for (root, limit) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let group = Path::new(root).join(&name);
            if std::fs::create_dir(&group).is_ok() {
                let group = Self(group); // removed again, if it knows no limit
                if std::fs::write(group.0.join(limit), "48M").is_ok() {
                    return Some(group);
                }
            }
        }
        println!("SKIPPED: no memory group can be made here: no worker dies of its memory");
        None
    }

    fn enter(&self) {
        std::fs::write(self.0.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // The last of its processes was reaped, but the kernel may not have let go of it yet.
        let start = std::time::Instant::now();
        while std::fs::remove_dir(&self.0).is_err() && start.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
    }
}

/// Forks a worker that ends by itself after so many turns, or grows in a small group.
fn begin_life(epoch: &mut Epoch, turns: u64, grows: Option<&Small>) -> Pid {
    let files = epoch.open_worker(0, 1).unwrap();
    #[expect(unsafe_code, reason = "the test of a death needs a life")]
    // SAFETY: fork(2) asks for one thread, or a child that is async-signal-safe: this process has one thread.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap(); // some ends leave a file
            nix::unistd::alarm::set(60); // it outlives a test that fails, but not for long
            if let Some(small) = grows {
                small.enter();
            }
            let slot = Slot::attach(files).unwrap();
            slot.set_state(SlotState::Ready);
            work(slot, turns, grows.is_some())
        }
    }
}

/// Lets a worker work for a moment, lets it end and reports what died.
fn one_life(epoch: &mut Epoch, round: u64, end: How, small: Option<&Small>) {
    // Somewhere between its first instructions and thousands of requests.
    let wait = 200 + (round * 7_919) % 6_000;
    let turns = if end == How::Abort { wait } else { u64::MAX };
    let child = begin_life(epoch, turns, small.filter(|_| end == How::Memory));
    let expected = match end {
        How::By(signal) => signal,
        How::Abort => Signal::SIGABRT,
        How::Memory => Signal::SIGKILL,
    };
    let is_killed = matches!(end, How::By(_)) || (end == How::Memory && small.is_none());
    if is_killed {
        std::thread::sleep(Duration::from_micros(wait));
    }
    let status = loop {
        match waitpid(child, is_killed.then_some(WaitPidFlag::WNOHANG)).unwrap() {
            // Again and again: std takes the first SIGSEGV that somebody sends for a fault that will be met once more.
            WaitStatus::StillAlive => kill(child, expected).unwrap(),
            status => break status,
        }
        std::thread::yield_now();
    };
    assert!(
        matches!(status, WaitStatus::Signaled(_, signal, _) if signal == expected),
        "{end:?}: {status:?}"
    );
    let signal = Some(expected as i32);
    let death = Death { pid: pid(child), signal, exit_code: None, reason: LostReason::Crash };
    let buried = epoch.bury(0, &death);
    assert!(buried.lost.len() <= 8 && buried.unknown == 0, "{buried:?}");
}

fn pid(child: Pid) -> u32 {
    child.as_raw().unsigned_abs()
}

/// Requests that begin and end out of order, and metrics of every kind, as fast as it goes.
fn work(slot: &'static Slot, turns: u64, grows: bool) -> ! {
    let metrics: [&'static dyn Metric; 4] = [&WORK, &WORK_BY, &VALUES, &OPEN];
    register(&metrics);
    let mut open: Vec<Request> = Vec::new();
    let mut turn: u64 = u64::from(std::process::id()) * 1_000_003;
    let mut memory: Vec<Vec<u8>> = Vec::new();
    for _ in 0..turns {
        if grows {
            memory.push(vec![1; 16 << 10]);
        }
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = usize::try_from(turn >> 60).unwrap();
        if open.len() < 8 && pick < 9 {
            let mut request = slot.in_flight().begin(&begin(turn));
            request.set_route(["/a", "/b", "/c/{id}"][pick % 3]);
            open.push(request);
        } else if !open.is_empty() {
            let index = pick % open.len();
            open.swap_remove(index).end(&end(200 + u16::try_from(pick).unwrap()));
        }
        WORK.inc();
        WORK_BY.with([["x", "y", "z"][pick % 3], "1"]).inc();
        VALUES.observe(f64::from(u16::try_from(pick % 5 + 1).unwrap()));
        OPEN.set(1.0);
    }
    std::process::abort()
}

fn begin(turn: u64) -> Begin<'static> {
    Begin {
        method: Method::Get,
        protocol: Protocol::Http11,
        start_ns: clock::monotonic_ns(),
        start_wall_ns: clock::wall_ns(),
        trace: TraceId([turn.to_ne_bytes(), [7; 8]].concat().try_into().unwrap()),
        span: SpanId(turn.to_ne_bytes()),
        parent: SpanId::NONE,
        remote_parent: false,
        sampled: true,
        client: None,
        client_port: 0,
        request_id: b"request",
        path: "/some/path",
    }
}

fn end(status: u16) -> End<'static> {
    End {
        end_ns: clock::monotonic_ns(),
        outcome: Outcome::Ok,
        status: Some(status),
        request_bytes: 3,
        response_bytes: 5,
        sampling: Sampling::Ratio,
        exception: status.is_multiple_of(5).then_some("panic"),
        path: "/some/path",
        method_text: "",
        user_agent: b"crash",
        server_address: b"localhost",
        is_https: false,
        server_port: 80,
        tracestate: "",
        request_id: b"request",
    }
}

/// The sum of a histogram is that of the values in its buckets, and each turn has counted once in each metric, but for the
/// last turn of each life.
fn check_values(families: &Families, round: u64) {
    let of = |name: &str| {
        let family = families.list().iter().find(|family| family.name == name);
        family.map_or(0.0, |family| family.series.iter().map(|one| one.value.as_f64()).sum::<f64>())
    };
    let (work, by) = (of("test_work_total"), of("test_work_by_total"));
    let family = families.list().iter().find(|family| family.name == "test_values");
    let Some(ValueRead::Histogram(buckets, sum)) = family.map(|family| &family.series[0].value)
    else {
        return; // the first life may have ended before it began
    };
    let values = (1..).zip(buckets).map(|(value, count)| value * count).sum::<u64>();
    assert!((sum - values as f64).abs() < 0.5, "round {round}: {buckets:?} and {sum}");
    let observed = buckets.iter().sum::<u64>() as f64;
    let lives = (round + 1) as f64;
    assert!(
        work >= by && by >= observed && observed >= work - lives,
        "round {round}: {work} {by} {observed}"
    );
}

/// What was true after the last death must stay true.
struct Check {
    reader: Reader,
    rings: Rings,
    last: Vec<(String, f64)>,
    records: f64,
    lost: f64,
}

impl Check {
    fn new(run_dir: &Path) -> Self {
        Self {
            reader: Reader::open(run_dir).unwrap(),
            rings: Rings::open(run_dir).unwrap(),
            last: Vec::new(),
            records: 0.0,
            lost: 0.0,
        }
    }

    fn after(&mut self, round: u64) {
        let families = self.reader.read().unwrap();
        let mut now = Vec::new();
        for family in families
            .list()
            .iter()
            .filter(|family| family.name.ends_with("_total") || !family.bounds.is_empty())
        {
            assert!(family.is_known, "round {round}: a slot is bad");
            for series in &family.series {
                now.push((format!("{}{{{}}}", family.name, series.labels), series.value.as_f64()));
            }
        }
        for (name, before) in &self.last {
            if name.starts_with("process_") {
                continue; // of living processes only
            }
            let value = now.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
            assert!(
                value.is_some_and(|value| value >= *before),
                "round {round}: {name} fell from {before} to {value:?}"
            );
        }
        let sum = |name: &str| {
            now.iter()
                .filter(|(other, _)| other.starts_with(name))
                .map(|(_, value)| value)
                .sum::<f64>()
        };
        let (started, finished) = (
            sum("http_server_requests_started_total"),
            sum("http_server_request_duration_seconds"),
        );
        let lost = sum("http_server_requests_lost_total");
        assert!(
            (started - finished - lost).abs() < 0.5,
            "round {round}: {started} started, {finished} finished, {lost} lost"
        );
        let open = families.list().iter().find(|family| family.name == "test_open");
        let is_gone = |value: &ValueRead| *value == ValueRead::Absent;
        assert!(open.is_none_or(|open| open.series.iter().all(|series| is_gone(&series.value))));
        check_values(families, round);
        self.last = now;
        self.read_records();
        // Dropped records are counted; all others were read, each once.
        let dropped = self.sum("saola_records_dropped_total");
        assert!(
            (self.records + dropped - finished).abs() < 0.5,
            "round {round}: {} records",
            self.records
        );
        assert!((self.lost - lost).abs() < 0.5, "round {round}");
    }

    fn read_records(&mut self) {
        self.rings.refresh().unwrap();
        let (mut records, mut lost) = (0.0, 0.0);
        for slot in self.rings.slots() {
            let start = slot.start(RingName::Owner, Stage::Log);
            let stop = slot.read(RingName::Owner, start, |_, entry| {
                match entry {
                    Entry::Record(Record::Request(request)) => {
                        assert_eq!((&*request.path, &*request.user_agent), ("/some/path", "crash"));
                        records += 1.0;
                    }
                    Entry::Record(Record::Lost(request)) => {
                        assert_eq!(request.request.span.0, request.request.trace.0[..8]);
                        lost += 1.0;
                    }
                    other => panic!("{other:?}"),
                }
                Reading::On
            });
            slot.commit(RingName::Owner, Stage::Log, stop);
            slot.commit(RingName::Owner, Stage::Otlp, stop);
        }
        self.records += records;
        self.lost += lost;
    }

    fn sum(&self, name: &str) -> f64 {
        self.last.iter().filter(|(other, _)| other.starts_with(name)).map(|(_, value)| value).sum()
    }

    fn finish(&self) -> f64 {
        let finished = self.sum("http_server_request_duration_seconds");
        assert!(finished > 0.0, "the workers did no work");
        finished
    }
}

//! Kills a worker at random instants, hundreds of times, and checks after each death that nothing was lost and nothing
//! fell. It forks, so it is its own `main` with one thread. `SAOLA_CRASH_ROUNDS` says how many deaths (default 100).
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::panic,
    reason = "a test with its own main"
)]

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};
use saola_observability::metrics::{Counter, CounterVec, Gauge, Histogram, Metric, register};
use saola_observability::reader::{Reader, ValueRead};
use saola_observability::rings::{Reading, Rings};
use saola_observability::{
    Begin, Choice, Death, End, Entry, Epoch, LostReason, Method, Outcome, Protocol, Record,
    Request, RingName, RunDir, Sampling, Shape, Slot, SlotState, SpanId, Stage, TraceId, clock,
};

static WORK: Counter = Counter::new("test_work_total", "Turns of the worker.");
static WORK_BY: CounterVec<2> =
    CounterVec::new("test_work_by_total", "Turns by label.", ["a", "b"]);
static VALUES: Histogram = Histogram::new("test_values", "Whole numbers.", &[1.0, 2.0, 4.0]);
static OPEN: Gauge = Gauge::new("test_open", "Something alive.");

fn main() {
    let rounds =
        std::env::var("SAOLA_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let folder = tempfile::tempdir().unwrap();
    let choice = Choice {
        given: Some(folder.path().join("run")),
        runtime_directory: None,
        xdg_runtime_dir: None,
        name: String::new(),
        slots_at_peak: 2,
        shape: Shape::default(),
    };
    let mut run_dir = RunDir::choose(&choice).unwrap().dir;
    run_dir.lock("0.0.0").unwrap();
    let mut epoch = Epoch::create(&run_dir, Shape::default()).unwrap();
    epoch.publish().unwrap();
    epoch.remove_leftovers();
    let mut check = Check::new(run_dir.path());
    for round in 0..rounds {
        one_life(&mut epoch, round);
        check.after(round);
    }
    let sum = check.finish();
    epoch.remove();
    run_dir.release();
    assert!(!folder.path().join("run").exists());
    println!(
        "test crash ... ok ({rounds} deaths, {sum} requests)\n\ntest result: ok. 1 passed; 0 failed"
    );
}

/// Forks a worker, lets it work for a moment, kills it and reports what died.
fn one_life(epoch: &mut Epoch, round: u64) {
    let files = epoch.open_worker(0, 1).unwrap();
    #[expect(unsafe_code, reason = "the test of a death needs a life")]
    // SAFETY: fork(2) asks for one thread, or a child that is async-signal-safe: this process has one thread.
    let child = match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let slot = Slot::attach(files).unwrap();
            slot.set_state(SlotState::Ready);
            work(slot)
        }
    };
    drop(files);
    // Somewhere between its first instructions and thousands of requests.
    let wait = Duration::from_micros(200 + (round * 7_919) % 6_000);
    std::thread::sleep(wait);
    kill(child, Signal::SIGKILL).unwrap();
    waitpid(child, None).unwrap();
    let death =
        Death { pid: pid(child), signal: Some(9), exit_code: None, reason: LostReason::Crash };
    let buried = epoch.bury(0, &death);
    assert!(buried.lost.len() <= 8 && buried.unknown == 0, "{buried:?}");
}

fn pid(child: Pid) -> u32 {
    child.as_raw().unsigned_abs()
}

/// Requests that begin and end out of order, and metrics of every kind, as fast as it goes.
fn work(slot: &'static Slot) -> ! {
    let metrics: [&'static dyn Metric; 4] = [&WORK, &WORK_BY, &VALUES, &OPEN];
    register(&metrics);
    let mut open: Vec<Request> = Vec::new();
    let mut turn: u64 = u64::from(std::process::id()) * 1_000_003;
    loop {
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
        VALUES.observe(f64::from(u16::try_from(pick % 6).unwrap()));
        OPEN.set(1.0);
    }
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
        request_id: "request",
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
        server_address: "localhost",
        is_https: false,
        server_port: 80,
        tracestate: "",
        request_id: "request",
    }
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
                        assert_eq!(
                            (request.path.as_str(), request.user_agent.as_str()),
                            ("/some/path", "crash")
                        );
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

//! A slot file with some of everything, as this version writes it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use saola_observability::metrics::{Counter, CounterVec, Gauge, GaugeMode, Histogram};
use saola_observability::samples::Sample;
use saola_observability::{
    Begin, Choice, End, Epoch, Event, Level, Method, Outcome, Protocol, Request, RunDir, Sampling,
    Shape, Slot, SlotState, SpanId, TraceId, Value,
};

static WORK: Counter = Counter::new("test_work_total", "Work.");
static BY: CounterVec<2> = CounterVec::new("test_by_total", "By label.", ["a", "b"]);
static LAST: Gauge = Gauge::new("test_last", "The last.").mode(GaugeMode::Last);
static VALUES: Histogram = Histogram::new("test_values", "Numbers.", &[1.0, 2.0]);
static TRACED: Histogram = Histogram::new("test_traced", "Numbers.", &[1.0]).exemplars();

pub(crate) const TRACE: [u8; 16] = *b"a trace of bytes";
pub(crate) const SPAN: [u8; 8] = *b"the span";

/// A run directory of one worker, this process; one of its requests runs on.
pub(crate) struct Written {
    folder: tempfile::TempDir,
    epoch: Epoch,
    running: Request,
    _run_dir: RunDir,
}

impl Written {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let run = folder.path().join("run");
        let shape = Shape { in_flight_entries: 16, ring_bytes: 128 << 10, samples: true };
        let choice = Choice { given: Some(run), slots_at_peak: 1, shape, ..Choice::default() };
        let mut run_dir = RunDir::choose(&choice).unwrap().dir;
        run_dir.lock("0").unwrap();
        let mut epoch = Epoch::create(&run_dir, shape).unwrap();
        epoch.publish().unwrap();
        let slot = Slot::attach(epoch.open_worker(0, 3).unwrap()).unwrap();
        slot.set_state(SlotState::Ready);
        let running = work(slot);
        Self { folder, epoch, running, _run_dir: run_dir }
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> PathBuf {
        self.folder.path().join("run/current")
    }

    pub(crate) fn end(self) {
        self.running.end(&END);
        self.epoch.remove();
    }
}

/// Some of everything; one request runs on.
fn work(slot: &'static Slot) -> Request {
    WORK.add(42);
    BY.with(["x", "y \"z\""]).add(7);
    LAST.set(1.5);
    LAST.set(2.5);
    for value in [0.5, 1.5, 1.5] {
        VALUES.observe(value);
    }
    TRACED.observe_with_exemplar(5.0, TraceId(TRACE), SpanId(SPAN));
    let mut first = slot.in_flight().begin(&BEGIN);
    first.set_route("/items/{id}");
    first.end(&END);
    std::thread::scope(|scope| scope.spawn(|| slot.records().event(&EVENT)).join().unwrap());
    let mut frames = [0; 64];
    frames[..2].copy_from_slice(&[11, 22]);
    let sample = Sample {
        time_ns: 5,
        span: SpanId(SPAN),
        trace: TraceId(TRACE),
        route: 9,
        weight: 2,
        thread: 77,
        image: 13,
        depth: 2,
        is_cut: true,
        frames,
    };
    assert!(slot.push_sample(&sample));
    let mut running = slot.in_flight().begin(&BEGIN);
    running.set_route("/items/{id}");
    running
}

const BEGIN: Begin<'static> = Begin {
    method: Method::Get,
    protocol: Protocol::Http11,
    start_ns: 1_000,
    start_wall_ns: 2_000,
    trace: TraceId(TRACE),
    span: SpanId(SPAN),
    parent: SpanId::NONE,
    remote_parent: true,
    sampled: true,
    client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    client_port: 40_000,
    request_id: b"request",
    path: "/items/7",
};

const END: End<'static> = End {
    end_ns: 500_000,
    outcome: Outcome::Ok,
    status: Some(200),
    request_bytes: 3,
    response_bytes: 5,
    sampling: Sampling::Slow,
    exception: None,
    path: "/items/7",
    method_text: "",
    user_agent: b"page",
    server_address: b"localhost",
    is_https: true,
    server_port: 443,
    tracestate: "a=b",
    request_id: b"request",
};

const EVENT: Event<'static> = Event {
    wall_ns: 6,
    level: Level::Warn,
    target: "t",
    message: "m",
    trace: TraceId(TRACE),
    span: SpanId(SPAN),
    request_id: "request",
    fields: &[("k", Value::Str("v")), ("n", Value::I64(-1))],
};

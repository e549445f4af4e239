//! The hot paths make no system call: a worker gives up all of them, and whichever it makes then is its end. The kernel counts
//! so, not a debugger, and misses none. It forks, so it is its own `main` with one thread.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test with its own main"
)]

#[path = "calls/filter.rs"]
mod filter;

use std::path::Path;

use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use saola_observability::metrics::{
    Counter, CounterVec, Gauge, GaugeMode, Histogram, Metric, register,
};
use saola_observability::reader::Reader;
use saola_observability::rings::Rings;
use saola_observability::{
    Begin, Choice, End, Epoch, Event, Level, Method, Outcome, Protocol, RunDir, Sampling, Shape,
    Slot, SlotState, Span, SpanId, SpanKind, SpanStatus, TraceId,
};

use crate::filter::filter;

static PLAIN: Counter = Counter::new("test_plain_total", "Plain.");
static LABELLED: CounterVec<3> =
    CounterVec::new("test_labelled_total", "Labelled.", ["a", "b", "c"]);
static GAUGE: Gauge = Gauge::new("test_gauge", "A gauge.");
static LAST: Gauge = Gauge::new("test_last", "The last.").mode(GaugeMode::Last);
static VALUES: Histogram = Histogram::new("test_values", "Values.", &[0.1, 1.0]).exemplars();

/// More than the ring has room for: what is dropped costs no call either.
const TURNS: u32 = 10_000;

fn main() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let run = folder.path().join("run");
    let (mut epoch, _run_dir) = supervise(&run);

    // Somebody sleeps until a request ends: the first one wakes him, and that is the last call.
    let rings = Rings::open(&run).unwrap();
    let alarm = rings.alarm().unwrap();
    let files = epoch.open_worker(0, 1).unwrap();
    let worker = fork(|| {
        let slot = Slot::attach(files).unwrap();
        slot.set_state(SlotState::Ready);
        let metrics: [&'static dyn Metric; 5] = [&PLAIN, &LABELLED, &GAUGE, &LAST, &VALUES];
        register(&metrics);
        turn(slot); // known from here on
        give_up_calls();
        (1..TURNS).for_each(|_| turn(slot));
    });
    assert!(alarm.wait(std::time::Duration::from_mins(1)), "the worker rings");
    assert_eq!(waitpid(worker, None).unwrap(), WaitStatus::Exited(worker, 0));
    let mut reader = Reader::open(&run).unwrap();
    let families = reader.read().unwrap().list();
    for name in ["test_labelled_total", "http_server_request_duration_seconds", "test_values"] {
        let family = families.iter().find(|family| family.name == name).unwrap();
        let sum: f64 = family.series.iter().map(|series| series.value.as_f64()).sum();
        assert!((sum - f64::from(TURNS)).abs() < 0.5, "{name}: {sum}");
    }
    println!("test {TURNS}_requests_make_no_system_call ... ok");

    let talker = fork(|| {
        setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
        give_up_calls();
        let _pid = nix::unistd::getppid();
    });
    let end = waitpid(talker, None).unwrap();
    assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{end:?}");
    println!("test one_call_would_have_been_the_end ... ok\n\ntest result: ok. 2 passed; 0 failed");
    epoch.remove();
}

/// Everything that a worker counts and records for one request.
fn turn(slot: &'static Slot) {
    let mut request = slot.in_flight().begin(&BEGIN);
    request.set_route("/a/{id}");
    PLAIN.inc();
    LABELLED.with(["GET", "/a/route", "200"]).inc();
    GAUGE.set(1.0);
    LAST.set(1.0);
    VALUES.observe_with_exemplar(0.2, TraceId([1; 16]), SpanId([1; 8]));
    slot.records().event(&EVENT);
    slot.records().span(&SPAN);
    request.end(&END);
}

/// From here on every system call ends this process, but for the one that ends it anyway and for the clock's, which is one
/// only on machines whose clock cannot be read without the kernel.
fn give_up_calls() {
    let kept = [libc::SYS_exit_group, libc::SYS_clock_gettime];
    filter(&kept, libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_PROCESS);
}

fn supervise(run: &Path) -> (Epoch, RunDir) {
    let choice = Choice { given: Some(run.to_owned()), slots_at_peak: 1, ..Choice::default() };
    let mut run_dir = RunDir::choose(&choice).unwrap().dir;
    run_dir.lock("0").unwrap();
    let epoch = Epoch::create(&run_dir, Shape::default()).unwrap();
    epoch.publish().unwrap();
    (epoch, run_dir)
}

fn fork(body: impl FnOnce()) -> Pid {
    #[expect(unsafe_code, reason = "a slot is attached once in the life of a process")]
    // SAFETY: fork(2) asks for one thread: this process has one.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            body();
            #[expect(unsafe_code, reason = "an orderly exit makes calls that were given up")]
            // SAFETY: _exit(2) asks for nothing; what it leaves undone is the kernel's to clear.
            unsafe {
                libc::_exit(0)
            }
        }
    }
}

const BEGIN: Begin<'static> = Begin {
    method: Method::Get,
    protocol: Protocol::Http11,
    start_ns: 1_000,
    start_wall_ns: 2_000,
    trace: TraceId([1; 16]),
    span: SpanId([2; 8]),
    parent: SpanId::NONE,
    remote_parent: false,
    sampled: true,
    client: None,
    client_port: 0,
    request_id: b"request",
    path: "/a/1",
};

const END: End<'static> = End {
    end_ns: 2_000_000,
    outcome: Outcome::Panic,
    status: Some(500),
    request_bytes: 3,
    response_bytes: 5,
    sampling: Sampling::Error,
    exception: Some("panic"),
    path: "/a/1",
    method_text: "",
    user_agent: b"agent",
    server_address: b"localhost",
    is_https: false,
    server_port: 80,
    tracestate: "",
    request_id: b"request",
};

const EVENT: Event<'static> = Event {
    wall_ns: 1,
    level: Level::Info,
    target: "calls",
    message: "something happened",
    trace: TraceId([1; 16]),
    span: SpanId([2; 8]),
    request_id: "request",
    fields: &[],
};

const SPAN: Span<'static> = Span {
    start_ns: 1,
    duration_ns: 1,
    trace: TraceId([1; 16]),
    span: SpanId([3; 8]),
    parent: SpanId([2; 8]),
    request: SpanId([2; 8]),
    kind: SpanKind::Internal,
    status: SpanStatus::Unset,
    status_text: "",
    name: "work",
    attributes: &[],
};

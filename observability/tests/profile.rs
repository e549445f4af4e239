//! The profiler's samples: for whom they are taken, how many there are, and that nothing of it reaches a child.
//!
//! One process with a `main` of its own, because a profiler belongs to a process. `SAOLA_LONG=1` samples for 20 s.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test with its own main")]

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, fork};
use saola_observability::rings::Rings;
use saola_observability::samples::{Found, Sample};
use saola_observability::{
    Begin, Choice, Epoch, Method, Protocol, RunDir, Shape, Slot, SpanId, TraceId, profile,
};

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let choice =
        Choice { given: Some(folder.path().join("run")), slots_at_peak: 1, ..Choice::default() };
    let mut run_dir = RunDir::choose(&choice).unwrap().dir;
    run_dir.lock("0").unwrap();
    let mut epoch = Epoch::create(&run_dir, Shape::default()).unwrap();
    let files = epoch.open_worker(0, 1).unwrap();
    epoch.publish().unwrap();
    let slot = Slot::attach(files).unwrap();
    let mut ring = Ring::open(run_dir.path());

    profile::start(slot, profile::MOST_HZ).unwrap();
    profile::watch_thread();
    a_sample_is_of_the_request_that_ran(slot, &mut ring);
    in_and_out_is_never_half_seen(slot, &mut ring);
    samples_stand_for_all_the_cpu_time(&mut ring);
    threads_are_sampled_for_the_request_that_they_work_for(slot, &mut ring);
    a_signal_that_no_timer_sent_is_no_sample(&mut ring);
    a_child_is_not_sampled(&mut ring);
    whatever_a_program_does_is_survived(slot, &mut ring);
    profile::stop();
    after_the_end_there_are_no_samples_and_late_signals_are_harmless(&mut ring);
    epoch.remove();
    println!("\ntest result: ok. 8 passed; 0 failed");
}

/// 32 requests interleave on one thread, every fourth burns CPU; a panic goes through one of them now and then.
fn a_sample_is_of_the_request_that_ran(slot: &'static Slot, ring: &mut Ring) {
    be_silent_about_the_wanted();
    let running: Vec<_> = (1..=32).map(|number| slot.in_flight().begin(&begin(number))).collect();
    let labels: Vec<_> = running.iter().map(|request| request.label().unwrap()).collect();
    let (mut inside, mut known, mut wrong) = (0, 0, 0);
    while inside < enough() {
        for (label, number) in labels.iter().zip(1_u64..) {
            let _polled = label.enter();
            let _caught = catch_unwind(AssertUnwindSafe(|| {
                let _nested = label.enter();
                if number % 4 == 0 {
                    heavy()
                } else {
                    light()
                };
                assert!(number % 16 != 0, "{WANTED}");
            }));
        }
        for sample in ring.read() {
            let number = u64::from_be_bytes(sample.span.0);
            if number == 0 {
                continue;
            }
            inside += sample.weight;
            let kind = innermost(&sample);
            known += if kind.is_some() { sample.weight } else { 0 };
            assert_eq!(sample.trace, trace(number), "the trace of another request");
            let is_right = match kind {
                Some(Kind::Heavy) => number.is_multiple_of(4),
                Some(Kind::Light) => !number.is_multiple_of(4),
                None => true,
            };
            wrong += if is_right { 0 } else { sample.weight };
        }
    }
    drop(std::panic::take_hook());
    assert!(known * 2 > inside, "only {known} of {inside} stacks could be followed");
    assert!(wrong * 100 <= inside, "{wrong} of {inside} samples are of the wrong request");
    let counted: u32 = {
        let mut rings = Rings::open(&ring.run_dir).unwrap();
        rings
            .slots()
            .iter_mut()
            .flat_map(saola_observability::rings::Slot::in_flight)
            .map(|entry| entry.cpu_samples)
            .sum()
    };
    assert!(counted > 0, "the requests know of their samples");
    println!(
        "test a_sample_is_of_the_request_that_ran ... ok ({inside} inside, {known} known, {wrong} wrong)"
    );
}

/// Ten million times in and out: at whatever instant a signal comes, it sees one request or another, never half of each.
fn in_and_out_is_never_half_seen(slot: &'static Slot, ring: &mut Ring) {
    const ROUNDS: u64 = 10_000_000;
    let numbers = 101..=116;
    let running: Vec<_> =
        numbers.clone().map(|number| slot.in_flight().begin(&begin(number))).collect();
    let labels: Vec<_> = running.iter().map(|request| request.label().unwrap()).collect();
    let (mut rounds, mut seen) = (0, 0);
    while rounds < ROUNDS || seen < enough() / 5 {
        for _ in 0..10_000 {
            for label in &labels {
                let _polled = label.enter();
                rounds += 1;
            }
        }
        for sample in ring.read() {
            let number = u64::from_be_bytes(sample.span.0);
            if numbers.contains(&number) {
                assert_eq!(sample.trace, trace(number), "the trace of another request");
                seen += 1;
            } else {
                assert_eq!((sample.span, sample.trace), (SpanId::NONE, TraceId::NONE));
            }
        }
    }
    println!("test in_and_out_is_never_half_seen ... ok ({rounds} rounds, {seen} samples)");
}

/// The weights, each a period, are the thread's CPU time.
fn samples_stand_for_all_the_cpu_time(ring: &mut Ring) {
    ring.read();
    let before = cpu_time();
    let mut ticks = 0;
    while cpu_time() < before + Duration::from_secs(2) {
        heavy();
        ticks += ring.read().iter().map(|sample| u64::from(sample.weight)).sum::<u64>();
    }
    let burnt = cpu_time().saturating_sub(before).as_secs_f64();
    let sampled = Duration::from_millis(4).as_secs_f64() * f64::from(u32::try_from(ticks).unwrap());
    assert!((sampled / burnt - 1.0).abs() < 0.05, "{sampled} s sampled of {burnt} s");
    println!("test samples_stand_for_all_the_cpu_time ... ok ({:.3})", sampled / burnt);
}

fn threads_are_sampled_for_the_request_that_they_work_for(slot: &'static Slot, ring: &mut Ring) {
    ring.read();
    let request = slot.in_flight().begin(&begin(77));
    let label = request.label().unwrap().to_own();
    // It ends first: what the thread works under is its own.
    drop(request);
    let thread = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            profile::watch_thread();
            let _entered = label.enter();
            burn_for(Duration::from_millis(200));
            nix::unistd::gettid().as_raw()
        });
        worker.join().unwrap()
    });
    let thread = u32::try_from(thread).unwrap();
    let samples = ring.read();
    let of_thread: Vec<_> = samples.iter().filter(|sample| sample.thread == thread).collect();
    let right = of_thread.iter().filter(|sample| sample.span == span(77)).count();
    assert!(right * 10 >= of_thread.len() * 9 && right > 10, "{right} of {}", of_thread.len());
    println!("test threads_are_sampled_for_the_request_that_they_work_for ... ok");
}

fn a_signal_that_no_timer_sent_is_no_sample(ring: &mut Ring) {
    ring.read();
    for _ in 0..1_000 {
        raise(Signal::SIGPROF).unwrap();
    }
    let samples = ring.read().len();
    assert!(samples < 100, "{samples}");
    println!("test a_signal_that_no_timer_sent_is_no_sample ... ok");
}

fn a_child_is_not_sampled(ring: &mut Ring) {
    ring.read();
    for _ in 0..20 {
        #[expect(unsafe_code, clippy::disallowed_methods, reason = "the test forks")]
        // SAFETY: this process has one thread now.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                burn_for(Duration::from_millis(20));
                #[expect(clippy::disallowed_methods, reason = "a child of a test")]
                std::process::exit(0)
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            }
        }
    }
    let own = u32::try_from(nix::unistd::gettid().as_raw()).unwrap();
    assert!(ring.read().iter().all(|sample| sample.thread == own));
    println!("test a_child_is_not_sampled ... ok");
}

/// Allocations, panics, stack walks, threads and children under the highest rate: nothing crashes and nothing hangs.
fn whatever_a_program_does_is_survived(slot: &'static Slot, ring: &mut Ring) {
    be_silent_about_the_wanted();
    let end = std::time::Instant::now() + soak();
    let (mut turns, mut samples) = (0_u64, 0);
    while std::time::Instant::now() < end {
        let request = slot.in_flight().begin(&begin(turns + 1));
        let label = request.label().unwrap();
        let _polled = label.enter();
        let heap: Vec<String> = (0..50).map(|number| "x".repeat(number * 37)).collect();
        let stack = std::backtrace::Backtrace::force_capture().to_string();
        let caught = catch_unwind(|| assert!(black_box(heap.len() + stack.len()) == 0, "{WANTED}"));
        assert!(caught.is_err());
        if turns.is_multiple_of(10) {
            let own = label.to_own();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    profile::watch_thread();
                    let _entered = own.enter();
                    burn_for(Duration::from_millis(5));
                });
                let child = std::process::Command::new("true").status().unwrap();
                assert!(child.success(), "a child starts with a clean slate");
            });
        }
        samples += ring.read().len();
        turns += 1;
    }
    drop(std::panic::take_hook());
    assert!(samples > 20, "{samples} samples in {turns} turns");
    println!("test whatever_a_program_does_is_survived ... ok ({samples} samples, {turns} turns)");
}

/// What the panics say that a test wants.
const WANTED: &str = "wanted";

/// Until the hook is taken away again.
fn be_silent_about_the_wanted() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() != Some(WANTED) {
            others(panic);
        }
    }));
}

/// How long everything is thrown at the profiler.
fn soak() -> Duration {
    let is_long = std::env::vars().any(|(name, _)| name == "SAOLA_LONG");
    if is_long { Duration::from_mins(10) } else { Duration::from_secs(2) }
}

fn after_the_end_there_are_no_samples_and_late_signals_are_harmless(ring: &mut Ring) {
    ring.read();
    raise(Signal::SIGPROF).unwrap();
    burn_for(Duration::from_millis(100));
    assert_eq!(ring.read().len(), 0);
    println!("test after_the_end_there_are_no_samples_and_late_signals_are_harmless ... ok");
}

/// The sample ring of the slot, read on.
struct Ring {
    run_dir: std::path::PathBuf,
    rings: Rings,
    next: u64,
}

impl Ring {
    fn open(run_dir: &std::path::Path) -> Self {
        Self { run_dir: run_dir.to_owned(), rings: Rings::open(run_dir).unwrap(), next: 0 }
    }

    fn read(&mut self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for slot in self.rings.slots().iter().filter(|slot| !slot.samples().is_empty()) {
            let range = slot.samples();
            assert!(range.start <= self.next, "the test reads often enough");
            for position in self.next..range.end {
                match slot.sample(position) {
                    Found::Sample(sample) => samples.push(*sample),
                    other => assert_eq!(other, Found::Unfinished, "at {position}"),
                }
            }
            self.next = range.end;
        }
        samples
    }
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Kind {
    Heavy,
    Light,
}

/// The innermost of the two functions on the stack: that whose start is the closest below a program counter.
fn innermost(sample: &Sample) -> Option<Kind> {
    let starts = [(start(heavy), Kind::Heavy), (start(light), Kind::Light)];
    let frames = sample.frames.iter().take(usize::from(sample.depth));
    frames.map(|pc| usize::try_from(*pc).unwrap()).find_map(|pc| {
        let below = starts.iter().filter(|(start, _)| (1..96).contains(&pc.wrapping_sub(*start)));
        below.max_by_key(|(start, _)| *start).map(|(_, kind)| *kind)
    })
}

#[expect(clippy::as_conversions, reason = "the address of a function")]
fn start(function: fn() -> u64) -> usize {
    function as *const () as usize
}

#[inline(never)]
fn heavy() -> u64 {
    black_box(burn(100_000)) + 1
}

#[inline(never)]
fn light() -> u64 {
    black_box(burn(2_000)) + 2
}

#[inline(never)]
fn burn(rounds: u64) -> u64 {
    (0..rounds).fold(1, |sum, round| black_box(sum.wrapping_mul(31) ^ round))
}

fn burn_for(time: Duration) {
    let before = cpu_time();
    while cpu_time() < before + time {
        light();
    }
}

fn cpu_time() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
}

/// Weighted samples inside requests to look at.
fn enough() -> u32 {
    let is_long = std::env::vars().any(|(name, _)| name == "SAOLA_LONG");
    if is_long { 5_000 } else { 300 }
}

fn span(number: u64) -> SpanId {
    SpanId(number.to_be_bytes())
}

/// A relation between trace and span: a sample that has half of one request and half of another breaks it.
fn trace(number: u64) -> TraceId {
    let mut bytes = [7; 16];
    bytes[8..].copy_from_slice(&(number * 0x9e37_79b9).to_be_bytes());
    TraceId(bytes)
}

fn begin(number: u64) -> Begin<'static> {
    Begin {
        method: Method::Get,
        protocol: Protocol::Http11,
        start_ns: 1,
        start_wall_ns: 1,
        trace: trace(number),
        span: span(number),
        parent: SpanId::NONE,
        remote_parent: false,
        sampled: true,
        client: None,
        client_port: 0,
        request_id: b"",
        path: "/",
    }
}

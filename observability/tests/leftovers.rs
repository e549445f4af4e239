//! A supervisor died, and a new one takes the run directory: what the dead one's workers and rings still hold is told
//! before their epoch is deleted (F10). It forks, so it is its own `main` with one thread.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::float_cmp,
    reason = "a test with its own main"
)]

use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use saola_observability::reader::Reader;
use saola_observability::rings::{Reading, Rings, leftovers};
use saola_observability::{
    Begin, Buried, Choice, End, Entry, Epoch, LostReason, Method, Outcome, Protocol, Record,
    RingName, RunDir, Sampling, Shape, Slot, SlotState, SpanId, Stage, TraceId, clock,
};

fn main() {
    let tests: [(&str, fn()); 2] = [
        ("a_leftover_epoch_is_finished_and_then_deleted", a_leftover_epoch_is_finished),
        ("a_foreign_epoch_is_deleted_at_once", a_foreign_epoch_is_deleted_at_once),
    ];
    let count = tests.len();
    for (name, test) in tests {
        let child = fork(test);
        let passed = matches!(waitpid(child, None).unwrap(), WaitStatus::Exited(_, 0));
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        assert!(passed);
    }
    println!("\ntest result: ok. {count} passed; 0 failed");
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

fn a_leftover_epoch_is_finished() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let run = folder.path().join("run");
    let worker = orphan(&run);

    let (epoch, run_dir) = supervise(&run);
    assert_eq!(epoch.number(), 2);
    let first = epoch.finish_leftovers();
    assert_eq!((first.lost.count(), first.left), (0, 1), "its worker lives");

    kill(worker, Signal::SIGKILL).unwrap();
    let lost = lost_with_the_worker(&epoch);
    let ids: Vec<_> = lost.lost.iter().map(|entry| entry.request_id.as_str()).collect();
    assert_eq!((ids, lost.unknown), (vec!["open 0", "open 1", "open 2"], 0));
    assert_eq!(epoch.finish_leftovers().lost.count(), 0, "told twice");

    assert_eq!(leftovers(&run), [1]);
    let mut old = Rings::open_epoch(&run, 1).unwrap();
    assert_eq!(requests(&mut old, "finished"), 5);
    assert_eq!(epoch.finish_leftovers().left, 0);
    assert!(!run.join("epoch-000001").exists());
    assert_eq!(leftovers(&run), [0_u64; 0]);
    assert!(old.refresh().is_err());

    let mut new = Rings::open(&run).unwrap();
    assert_eq!(requests(&mut new, "open"), 3, "the lost ones are recorded");
    assert_eq!(lost_by_supervisor(&run), 3.0);
    epoch.remove();
    run_dir.release();
    assert!(!run.exists());
}

fn lost_with_the_worker(epoch: &Epoch) -> Buried {
    let start = Instant::now();
    loop {
        let now = epoch.finish_leftovers();
        assert_eq!(now.left, 1, "nobody has read its rings");
        if now.lost.count() > 0 {
            return now.lost;
        }
        assert!(start.elapsed().as_secs() < 10, "the worker does not die");
    }
}

fn a_foreign_epoch_is_deleted_at_once() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let run = folder.path().join("run");
    kill(orphan(&run), Signal::SIGKILL).unwrap();
    for name in ["supervisor", "observer", "slot-0000"] {
        let path = run.join("epoch-000001").join(name);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&u16::MAX.to_ne_bytes(), 8).unwrap(); // the major
    }
    let (epoch, _run_dir) = supervise(&run);
    let finished = epoch.finish_leftovers();
    assert_eq!((finished.left, finished.lost.count()), (0, 0));
    assert!(!run.join("epoch-000001").exists());
}

/// A worker with three running requests and five finished ones, whose supervisor is dead.
fn orphan(run: &Path) -> Pid {
    let (mut answer, mut tell) = std::io::pipe().unwrap();
    let supervisor = fork(|| {
        let (mut epoch, run_dir) = supervise(run);
        let files = epoch.open_worker(0, 1).unwrap();
        fork(move || {
            nix::unistd::alarm::set(20); // it outlives a test that fails, but not for long
            drop(run_dir); // else the lock would live as long as the worker
            let slot = Slot::attach(files).unwrap();
            slot.set_state(SlotState::Ready);
            for number in 0..5 {
                let id = format!("finished {number}");
                slot.in_flight().begin(&begin(&id, number)).end(&end(&id));
            }
            let ids = ["open 0", "open 1", "open 2"];
            let _open = [0, 1, 2].map(|number| slot.in_flight().begin(&begin(ids[number], 9)));
            tell.write_all(&std::process::id().to_ne_bytes()).unwrap();
            loop {
                nix::unistd::pause();
            }
        });
        let mut pid = [0; 4];
        answer.read_exact(&mut pid).unwrap();
        std::fs::write(run.join("pid"), pid).unwrap();
        kill(nix::unistd::getpid(), Signal::SIGKILL).unwrap();
    });
    waitpid(supervisor, None).unwrap();
    let pid = std::fs::read(run.join("pid")).unwrap();
    std::fs::remove_file(run.join("pid")).unwrap();
    Pid::from_raw(i32::from_ne_bytes(pid.try_into().unwrap()))
}

fn supervise(run: &Path) -> (Epoch, RunDir) {
    let shape = Shape { in_flight_entries: 16, ring_bytes: 128 << 10, samples: false };
    let choice =
        Choice { given: Some(PathBuf::from(run)), slots_at_peak: 1, shape, ..Choice::default() };
    let mut run_dir = RunDir::choose(&choice).unwrap().dir;
    run_dir.lock("1.2.3+abc").unwrap();
    let epoch = Epoch::create(&run_dir, shape).unwrap();
    epoch.publish().unwrap();
    (epoch, run_dir)
}

/// Reads and commits everything; how many request ids begin so.
fn requests(rings: &mut Rings, prefix: &str) -> usize {
    let mut count = 0;
    for slot in rings.slots() {
        for name in [RingName::Owner, RingName::Shared] {
            for stage in [Stage::Log, Stage::Otlp] {
                let start = slot.start(name, stage);
                let position = slot.read(name, start, |_, entry| {
                    count +=
                        usize::from(stage == Stage::Log && request_id(&entry).starts_with(prefix));
                    Reading::On
                });
                slot.commit(name, stage, position);
            }
        }
    }
    count
}

fn request_id<'a>(entry: &'a Entry<'_>) -> &'a str {
    match entry {
        Entry::Record(Record::Request(record)) => &record.request_id,
        Entry::Record(Record::Lost(lost)) => {
            assert_eq!(lost.reason, LostReason::Supervisor);
            &lost.request.request_id
        }
        _ => "",
    }
}

fn lost_by_supervisor(run: &Path) -> f64 {
    let mut reader = Reader::open(run).unwrap();
    let families = reader.read().unwrap().list();
    let build = families.iter().find(|family| family.name == "saola_build_info").unwrap();
    assert_eq!(build.series[0].labels, r#"version="1.2.3+abc",revision="abc""#);
    let lost = families.iter().find(|family| family.name == "http_server_requests_lost_total");
    let series = lost.unwrap().series.iter();
    let ours = series.filter(|series| series.labels.contains(r#"reason="supervisor""#));
    ours.map(|series| series.value.as_f64()).sum()
}

fn begin(id: &str, start_ns: u64) -> Begin<'_> {
    Begin {
        method: Method::Get,
        protocol: Protocol::Http11,
        start_ns,
        start_wall_ns: clock::wall_ns(),
        trace: TraceId::NONE,
        span: SpanId::NONE,
        parent: SpanId::NONE,
        remote_parent: false,
        sampled: false,
        client: None,
        client_port: 0,
        request_id: id.as_bytes(),
        path: "/",
    }
}

fn end(id: &str) -> End<'_> {
    End {
        end_ns: clock::monotonic_ns(),
        outcome: Outcome::Ok,
        status: Some(200),
        request_bytes: 0,
        response_bytes: 2,
        sampling: Sampling::Dropped,
        exception: None,
        path: "/",
        method_text: "",
        user_agent: b"",
        server_address: b"",
        is_https: false,
        server_port: 0,
        tracestate: "",
        request_id: id.as_bytes(),
    }
}

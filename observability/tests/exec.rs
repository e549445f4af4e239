//! A supervisor execs another image of itself while its worker serves: the new image goes on with the run directory and the
//! epoch, and nobody else could take them in between. It forks and execs, so it is its own `main` with one thread.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::float_cmp,
    reason = "a test with its own main"
)]

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use saola_observability::metrics::Counter;
use saola_observability::reader::Reader;
use saola_observability::{
    Choice, Death, Epoch, LostReason, RunDir, RunDirError, Shape, Slot, SlotError, SlotState,
};

static WORK: Counter = Counter::new("test_work_total", "Work.");

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, image, run, lock, worker] = arguments.as_slice()
        && image == "the-second-image"
    {
        return second_image(Path::new(run), lock.parse().unwrap(), worker.parse().unwrap());
    }
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let run = folder.path().join("run");
    let supervisor = fork(|| first_image(&run));
    assert_eq!(waitpid(supervisor, None).unwrap(), WaitStatus::Exited(supervisor, 0));
    assert!(!run.exists(), "the second image has ended in order");
    println!("test an_epoch_goes_on_over_an_exec ... ok\n\ntest result: ok. 1 passed; 0 failed");
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

const SHAPE: Shape = Shape { in_flight_entries: 16, ring_bytes: 128 << 10, samples: false };

fn choose(run: &Path) -> RunDir {
    let choice = Choice {
        given: Some(PathBuf::from(run)),
        slots_at_peak: 2,
        shape: SHAPE,
        ..Choice::default()
    };
    RunDir::choose(&choice).unwrap().dir
}

fn first_image(run: &Path) {
    let mut run_dir = choose(run);
    assert!(run_dir.lock_descriptor().is_none());
    run_dir.lock("1.0.0").unwrap();
    let mut epoch = Epoch::create(&run_dir, SHAPE).unwrap();
    epoch.publish().unwrap();
    WORK.inc(); // the supervisor's own
    let (mut ready, mut tell) = std::io::pipe().unwrap();
    let files = epoch.open_worker(1, 1).unwrap(); // slot 0 was never used
    let worker = fork(|| {
        nix::unistd::alarm::set(20); // it outlives a test that fails, but not for long
        let kept = files.descriptors().map(|kept| kept.as_raw_fd());
        close_all_but(&[kept[0], kept[1], tell.as_fd().as_raw_fd()]);
        let slot = Slot::attach(files).unwrap();
        slot.set_state(SlotState::Ready);
        WORK.add(10);
        tell.write_all(b"!").unwrap();
        loop {
            nix::unistd::pause();
        }
    });
    ready.read_exact(&mut [0]).unwrap();

    let lock = run_dir.lock_descriptor().unwrap();
    fcntl(lock, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let image = CString::new(std::env::current_exe().unwrap().to_str().unwrap()).unwrap();
    let arguments = [
        image.clone(),
        c"the-second-image".to_owned(),
        CString::new(run.to_str().unwrap()).unwrap(),
        CString::new(lock.as_raw_fd().to_string()).unwrap(),
        CString::new(worker.to_string()).unwrap(),
    ];
    assert!(nix::unistd::execv(&image, &arguments).is_ok(), "exec returned");
}

fn second_image(run: &Path, lock: i32, worker: i32) {
    #[expect(unsafe_code, reason = "a descriptor that was inherited is a number")]
    // SAFETY: `from_raw_fd` asks for an open descriptor with no other owner: the first image left it open for us alone.
    let lock = unsafe { OwnedFd::from_raw_fd(lock) };
    let other = choose(run).lock("1.5.0");
    assert!(matches!(other, Err(RunDirError::InUse { .. })), "the lock was lost: {other:?}");
    let wrong = std::fs::File::open(run.join("current").join("observer")).unwrap();
    let refused = RunDir::adopt(run, wrong.into(), "2.0.0");
    assert!(matches!(refused, Err(RunDirError::NotSafe { .. })), "{refused:?}");

    let run_dir = RunDir::adopt(run, lock, "2.0.0").unwrap();
    let held = run_dir.lock_descriptor().unwrap();
    assert_eq!(fcntl(held, FcntlArg::F_GETFD), Ok(FdFlag::FD_CLOEXEC.bits()));
    a_deleted_slot_is_refused(&run_dir, run);
    let mut epoch = Epoch::adopt(&run_dir, SHAPE).unwrap();
    assert_eq!(epoch.number(), 1);
    WORK.inc();
    assert_eq!(sum(run), (12.0, "2.0.0".to_owned()), "1 before, 10 of the worker, 1 after");
    let seen = epoch.seen(1).unwrap();
    assert_eq!((seen.state, seen.pid, seen.births), (SlotState::Ready, worker.unsigned_abs(), 1));
    assert!(epoch.damaged().is_none() && epoch.seen(0).is_none());

    // The worker is still our child, and its slot is given out again after its death.
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    waitpid(Pid::from_raw(worker), None).unwrap();
    let reason = LostReason::Crash;
    let death = Death { pid: seen.pid, signal: Some(9), exit_code: None, reason };
    assert_eq!(epoch.bury(1, &death).count(), 0);
    for slot in [0, 1] {
        let files = epoch.open_worker(slot, 2).unwrap();
        let worker = fork(|| {
            Slot::attach(files).unwrap();
            WORK.add(100);
        });
        assert_eq!(waitpid(worker, None).unwrap(), WaitStatus::Exited(worker, 0));
    }
    assert_eq!(sum(run).0, 212.0);
    epoch.remove();
    run_dir.release();
}

fn a_deleted_slot_is_refused(run_dir: &RunDir, run: &Path) {
    let (slot, away) = (run.join("epoch-000001/slot-0001"), run.join("slot-0001"));
    std::fs::rename(&slot, &away).unwrap();
    let refused = fork(|| {
        let refused = Epoch::adopt(run_dir, SHAPE).err();
        assert!(matches!(refused, Some(SlotError::Bad { number: 0, .. })), "{refused:?}");
    });
    assert_eq!(waitpid(refused, None).unwrap(), WaitStatus::Exited(refused, 0));
    std::fs::rename(&away, &slot).unwrap();
}

/// The sum of the counter over all processes, and the version that the supervisor says.
fn sum(run: &Path) -> (f64, String) {
    let mut reader = Reader::open(run).unwrap();
    let families = reader.read().unwrap();
    let family = |name: &str| families.list().iter().find(|family| family.name == name).unwrap();
    let work = family("test_work_total");
    assert!(work.is_known, "a slot is bad");
    let version = family("saola_build_info").series[0].label_pairs()[0].1.clone();
    (work.series.iter().map(|series| series.value.as_f64()).sum(), version)
}

/// What a child of the supervisor does: its copies of descriptors would keep the supervisor's locks alive.
fn close_all_but(kept: &[i32]) {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let open: Vec<i32> =
        open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in open.into_iter().filter(|number| *number > 2 && !kept.contains(number)) {
        let _ = nix::unistd::close(number);
    }
}

//! What workers cost over their lives: restarts (F86) and memory (F87).

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};
use saola_observability::{Death, Epoch, LostReason, Slot, SlotState};

use crate::scrapes;
use crate::table::Bound::AtMost;
use crate::table::Goal;

const RESTARTS: usize = 200;
/// Series of the worker whose memory is looked at.
const SERIES: usize = 1_000;

pub(crate) struct Round {
    slot_bytes: f64,
    attached_bytes: f64,
    bytes_a_series: f64,
    scrape: f64,
    files: f64,
    bytes: f64,
}

pub(crate) const GOALS: [Goal<Round>; 6] = [
    Goal {
        id: "F86",
        what: "files after 200 restarts : before",
        bound: AtMost(1.0),
        ratio: |round| round.files,
        possible: None,
    },
    Goal {
        id: "F86",
        what: "bytes of the run directory after 200 restarts : before",
        bound: AtMost(1.0),
        ratio: |round| round.bytes,
        possible: None,
    },
    Goal {
        id: "F86",
        what: "warm scrape after 200 restarts : before",
        bound: AtMost(1.1),
        ratio: |round| round.scrape,
        possible: None,
    },
    Goal {
        id: "F87",
        what: "MiB of a worker's slot file",
        bound: AtMost(2.0),
        ratio: |round| round.slot_bytes / 1_048_576.0,
        possible: None,
    },
    Goal {
        id: "F87",
        what: "private KiB of a worker that has attached",
        bound: AtMost(64.0),
        ratio: |round| round.attached_bytes / 1_024.0,
        possible: None,
    },
    Goal {
        id: "F87",
        what: "private bytes a series",
        bound: AtMost(64.0),
        ratio: |round| round.bytes_a_series,
        possible: None,
    },
];

/// `slot` has never had a worker.
pub(crate) fn measure(epoch: &mut Epoch, run_dir: &Path, slot: u32) -> Round {
    let file = run_dir.join(format!("current/slot-{slot:04}"));
    let (attached_bytes, bytes_a_series) = memory(epoch, slot);
    let slot_bytes = {
        // The first worker of this slot made 1,000 series; without them it has its first steps of keys and values.
        one_life(epoch, slot + 1, || ());
        allocated(&run_dir.join(format!("current/slot-{:04}", slot + 1)))
    };
    one_life(epoch, slot, scrapes::fill);
    let before = (files(run_dir), scrapes::warm_ns(run_dir));
    for _ in 0..RESTARTS {
        one_life(epoch, slot, scrapes::fill);
    }
    let after = (files(run_dir), scrapes::warm_ns(run_dir));
    assert!(file.exists());
    Round {
        slot_bytes,
        attached_bytes,
        bytes_a_series,
        files: after.0.0 / before.0.0,
        bytes: after.0.1 / before.0.1,
        scrape: after.1 / before.1,
    }
}

/// A worker that attaches, works and ends, and is buried.
pub(crate) fn one_life(epoch: &mut Epoch, number: u32, work: impl FnOnce()) {
    let files = epoch.open_worker(number, 1).unwrap();
    let child = fork(|| {
        let slot = Slot::attach(files).unwrap();
        slot.set_state(SlotState::Ready);
        work();
    });
    waitpid(child, None).unwrap();
    let reason = LostReason::Drain;
    let pid = child.as_raw().unsigned_abs();
    epoch.bury(number, &Death { pid, signal: None, exit_code: Some(0), reason });
}

/// Private bytes of a worker that has attached, and of each series that it then uses.
fn memory(epoch: &mut Epoch, number: u32) -> (f64, f64) {
    let (mut answer, mut tell) = std::io::pipe().unwrap();
    one_life(epoch, number, || ());
    let files = epoch.open_worker(number, 1).unwrap();
    let child = fork(move || {
        let first = heap_bytes();
        let slot = Slot::attach(files).unwrap();
        slot.set_state(SlotState::Ready);
        let second = heap_bytes();
        for at in 0..SERIES {
            crate::MANY.with([&format!("value-{at}")]).inc();
        }
        let third = heap_bytes();
        for bytes in [second - first, third - second] {
            tell.write_all(&bytes.to_ne_bytes()).unwrap();
        }
    });
    let mut read = || {
        let mut bytes = [0; 8];
        answer.read_exact(&mut bytes).unwrap();
        f64::from_ne_bytes(bytes)
    };
    let (attached, series) = (read(), read());
    waitpid(child, None).unwrap();
    (attached, series / SERIES as f64)
}

/// Bytes that the allocator has given out.
fn heap_bytes() -> f64 {
    #[expect(unsafe_code, reason = "glibc knows it, and nobody else")]
    // SAFETY: mallinfo2(3) has no precondition.
    let info = unsafe { nix::libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as f64
}

fn files(run_dir: &Path) -> (f64, f64) {
    let entries = std::fs::read_dir(run_dir.join("current")).unwrap();
    let sizes: Vec<f64> = entries.map(|entry| allocated(&entry.unwrap().path())).collect();
    (sizes.len() as f64, sizes.iter().sum())
}

/// Bytes that a file really takes.
fn allocated(path: &Path) -> f64 {
    (path.metadata().unwrap().blocks() * 512) as f64
}

fn fork(body: impl FnOnce()) -> Pid {
    #[expect(unsafe_code, reason = "a slot is attached once in the life of a process")]
    // SAFETY: fork(2) asks for one thread: those of the measurements have been joined.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_ok();
            std::process::exit(i32::from(!passed))
        }
    }
}

//! The standard `process_*` metrics of one process, read from `/proc`.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};
use rustc_hash::FxHashMap;

use crate::clock::monotonic_ns;
use crate::names;
use crate::reader::family::Shown;

/// What is read of one process. A fact that may not be read is none.
pub(crate) struct Facts {
    pub(crate) cpu_seconds: Option<f64>,
    start_time_seconds: Option<f64>,
    threads: Option<f64>,
    pub(crate) resident_bytes: Option<f64>,
    private_bytes: Option<f64>,
    open_fds: Option<f64>,
    max_fds: Option<f64>,
}

/// One of the families.
pub(crate) struct OfProcess {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) shown: Shown,
    pub(crate) value: fn(&Facts) -> Option<f64>,
}

pub(crate) const METRICS: [OfProcess; 7] = [
    OfProcess {
        name: names::PROCESS_CPU,
        help: "Total user and system CPU time spent, in seconds.",
        shown: Shown::Counter,
        value: |facts| facts.cpu_seconds,
    },
    OfProcess {
        name: names::PROCESS_RESIDENT_MEMORY,
        help: "Resident memory size, in bytes.",
        shown: Shown::Gauge,
        value: |facts| facts.resident_bytes,
    },
    OfProcess {
        name: names::PROCESS_PRIVATE_MEMORY,
        help: "Memory that no other process shares, in bytes.",
        shown: Shown::Gauge,
        value: |facts| facts.private_bytes,
    },
    OfProcess {
        name: names::PROCESS_OPEN_FDS,
        help: "Open file descriptors.",
        shown: Shown::Gauge,
        value: |facts| facts.open_fds,
    },
    OfProcess {
        name: names::PROCESS_MAX_FDS,
        help: "File descriptors that may be open.",
        shown: Shown::Gauge,
        value: |facts| facts.max_fds,
    },
    OfProcess {
        name: names::PROCESS_START_TIME,
        help: "Start time of the process since the Unix epoch, in seconds.",
        shown: Shown::Gauge,
        value: |facts| facts.start_time_seconds,
    },
    OfProcess {
        name: names::PROCESS_THREADS,
        help: "Threads of the process.",
        shown: Shown::Gauge,
        value: |facts| facts.threads,
    },
];

/// Private memory of each process, with the monotonic time when it was read. The kernel walks all pages of a process for
/// it: more than the rest of a scrape costs, so it is read once a second at most.
#[derive(Default)]
pub(crate) struct PrivateMemory(FxHashMap<u32, (u64, Option<f64>)>);

impl PrivateMemory {
    fn bytes(&mut self, pid: u32) -> Option<f64> {
        let now = monotonic_ns();
        if let Some((at, bytes)) = self.0.get(&pid)
            && now.saturating_sub(*at) < 1_000_000_000
        {
            return *bytes;
        }
        let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let kilobytes = |name| line_value(&memory, name).map(|kilobytes: f64| kilobytes * 1024.0);
        let private = ["Private_Clean:", "Private_Dirty:", "Swap:"].map(kilobytes);
        let bytes = private.into_iter().sum();
        self.0.retain(|_, (at, _)| now.saturating_sub(*at) < 60_000_000_000); // of processes that are gone
        self.0.insert(pid, (now, bytes));
        bytes
    }
}

/// Reads the facts of a living process; `None` if it is gone.
pub(crate) fn read(pid: u32, private: &mut PrivateMemory) -> Option<Facts> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?; // the name may contain spaces and brackets
    let fields: Vec<f64> =
        rest.split(' ').skip(1).map(|field| field.trim().parse().unwrap_or(0.0)).collect();
    let field = |number: usize| fields.get(number.checked_sub(4)?).copied();
    let ticks = constant(SysconfVar::CLK_TCK)?;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    Some(Facts {
        cpu_seconds: Some((field(14)? + field(15)?) / ticks),
        start_time_seconds: boot_time_seconds().map(|boot| boot + field(22).unwrap_or(0.0) / ticks),
        threads: field(20),
        resident_bytes: field(24)
            .zip(constant(SysconfVar::PAGE_SIZE))
            .map(|(pages, size)| pages * size),
        private_bytes: private.bytes(pid),
        open_fds: count_entries(&format!("/proc/{pid}/fd")),
        max_fds: line_value(&limits, "Max open files"),
    })
}

fn constant(variable: SysconfVar) -> Option<f64> {
    let value = sysconf(variable).ok()??;
    i32::try_from(value).ok().map(f64::from)
}

fn boot_time_seconds() -> Option<f64> {
    line_value(&fs::read_to_string("/proc/stat").ok()?, "btime")
}

/// The first number behind a name at the beginning of a line.
fn line_value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn count_entries(path: &str) -> Option<f64> {
    let count = fs::read_dir(path).ok()?.count();
    u32::try_from(count).ok().map(f64::from)
}

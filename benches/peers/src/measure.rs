//! The instruments: CPU time and memory of a process tree, the load generator, and what else the machine does.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::Serialize;

use crate::Options;
use crate::targets::find;

/// CPU time of the processes of a tree, nanoseconds by pid.
#[derive(Clone, Eq, PartialEq, Debug, Default)]
pub(crate) struct TreeTime {
    by_pid: BTreeMap<u32, u64>,
    workers: BTreeMap<u32, u64>,
}

/// What a tree used between two looks.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(crate) struct Used {
    pub(crate) all_ns: u64,
    pub(crate) workers_ns: u64,
    /// The share of the busiest worker.
    pub(crate) busiest: f64,
    /// Processes came or went: some CPU time may be missing.
    pub(crate) has_changed: bool,
}

impl TreeTime {
    /// Reads the first field of each thread's `schedstat`: nanoseconds on a CPU (proc(5)).
    pub(crate) fn of(root: u32) -> Self {
        let mut time = Self::default();
        for pid in descendants(root) {
            let nanoseconds = cpu_ns(pid);
            time.by_pid.insert(pid, nanoseconds);
            if title(pid).starts_with("saola: worker") {
                time.workers.insert(pid, nanoseconds);
            }
        }
        time
    }

    pub(crate) fn since(&self, before: &Self) -> Used {
        let used = |now: &BTreeMap<u32, u64>, then: &BTreeMap<u32, u64>| -> Vec<u64> {
            let spent = |(pid, ns): (&u32, &u64)| ns.saturating_sub(*then.get(pid).unwrap_or(&0));
            now.iter().map(spent).collect()
        };
        let workers = used(&self.workers, &before.workers);
        let workers_ns: u64 = workers.iter().sum();
        Used {
            all_ns: used(&self.by_pid, &before.by_pid).iter().sum(),
            workers_ns,
            busiest: ratio(workers.into_iter().max().unwrap_or(0), workers_ns),
            has_changed: !self.by_pid.keys().eq(before.by_pid.keys()),
        }
    }
}

fn cpu_ns(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let of_thread = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(of_thread).sum()
}

/// A process and all below it.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let text = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name may hold spaces and parentheses: the fields begin behind the last one.
        let parent = text
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(parent) = tree.get(at).copied() {
        tree.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    tree
}

fn title(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// Memory of a tree in KiB: private, of files, and shared (where slot files are).
#[derive(Copy, Clone, Default, Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) anonymous: u64,
    pub(crate) file: u64,
    pub(crate) shared: u64,
}

impl Memory {
    pub(crate) fn of(root: u32) -> Self {
        let mut sum = Self::default();
        for pid in descendants(root) {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let value = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
                    .unwrap_or(0)
            };
            sum.anonymous += value("Pss_Anon:");
            sum.file += value("Pss_File:");
            sum.shared += value("Pss_Shmem:");
        }
        sum
    }
}

/// What the load generator saw.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(crate) struct Loaded {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// CPU nanoseconds of all children that have ended, which are generators.
pub(crate) fn generators_ns() -> anyhow::Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let times = [usage.user_time(), usage.system_time()];
    Ok(times.iter().map(|time| u64::try_from(time.num_microseconds()).unwrap_or(0)).sum::<u64>()
        * 1_000)
}

/// Why nothing can be measured here.
pub(crate) fn missing_generator() -> Option<String> {
    find("wrk").is_none().then(|| "no load generator: apt-get install wrk".to_owned())
}

/// Loads a server.
pub(crate) fn load(address: SocketAddr, options: &Options, seconds: u32) -> anyhow::Result<Loaded> {
    let (connections, threads) = (options.connections, options.generator_threads());
    let output = Command::new(find("wrk").context("wrk is not there")?)
        .args([format!("-t{threads}"), format!("-c{connections}")])
        .args(["--latency".to_owned(), format!("-d{seconds}s")])
        .arg(format!("http://{address}/"))
        .output()
        .context("cannot run wrk")?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Reads what wrk prints; any request that failed fails the round.
fn parse(text: &str) -> anyhow::Result<Loaded> {
    for bad in ["Socket errors", "Non-2xx"] {
        if let Some(line) = text.lines().find(|line| line.contains(bad)) {
            bail!("requests failed: {}", line.trim());
        }
    }
    let word = |line: &str, at: usize| line.split_ascii_whitespace().nth(at).map(str::to_owned);
    let requests = text.lines().find(|line| line.contains(" requests in "));
    let requests = requests.and_then(|line| word(line, 0)?.parse().ok()).filter(|count| *count > 0);
    let per_second = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let quantile = |name: &str| {
        let line = text.lines().find(|line| line.trim().starts_with(name));
        line.and_then(|line| microseconds(&word(line, 1)?)).context("no latency in wrk's report")
    };
    Ok(Loaded {
        requests: requests.with_context(|| format!("no request was answered: {text}"))?,
        per_second: per_second.and_then(|rest| rest.trim().parse().ok()).context("no rate")?,
        p50_us: quantile("50%")?,
        p99_us: quantile("99%")?,
    })
}

fn microseconds(text: &str) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1_000.0,
        "s" => 1_000_000.0,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

/// Busy time of all CPUs since boot, nanoseconds (proc(5), `/proc/stat`: hundredths of a second).
pub(crate) fn machine_busy_ns() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = text
        .lines()
        .next()
        .map(|line| {
            line.split_ascii_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect()
        })
        .unwrap_or_default();
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    (fields.iter().take(8).sum::<u64>().saturating_sub(idle)) * 10_000_000
}

pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_tree_that_burns_is_measured() {
        let mut child = Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 5"])
            .spawn()
            .unwrap();
        let before = TreeTime::of(child.id());
        let end = Instant::now() + Duration::from_secs(10);
        let mut last = 0;
        loop {
            let used = TreeTime::of(child.id()).since(&before).all_ns;
            if used > 0 && used == last {
                break;
            }
            assert!(Instant::now() < end);
            last = used;
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(last > 10_000_000, "{last} ns");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_generators_report_is_read() {
        let text = "Running 2s test @ http://127.0.0.1:1/\n  Latency Distribution\n     50%  350.00us\n     75%  1.00ms\n     90%  1.20ms\n     99%    2.55ms\n  123456 requests in 2.10s, 15.00MB read\nRequests/sec:  58788.57\n";
        let loaded = parse(text).unwrap();
        assert_eq!((loaded.requests, loaded.p50_us, loaded.p99_us), (123_456, 350.0, 2_550.0));
        assert!(parse(&text.replace("123456", "0")).is_err());
        assert!(parse(&format!("{text}  Non-2xx or 3xx responses: 3\n")).is_err());
        assert!(
            parse(&format!("{text}  Socket errors: connect 0, read 9, write 0, timeout 0\n"))
                .is_err()
        );
    }
}

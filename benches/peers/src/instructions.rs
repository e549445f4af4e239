//! Instructions in user space for a request, counted by callgrind: the difference of a long and a short run, so that
//! start and exit cancel out. They repeat within a fraction of a percent, because nothing in them is random.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::sink::Sink;
use crate::targets::find;

/// Instructions for a request; the client's part, or that of writing its record, is the same in all rows of a program.
#[derive(Debug, Serialize)]
pub(crate) struct Counted {
    pub(crate) name: &'static str,
    pub(crate) instructions: f64,
    /// How many that is more than in the row of this name.
    pub(crate) more: Option<(f64, &'static str)>,
}

/// Name, program, mode, and the row to compare with.
const TARGETS: [(&str, &str, &str, &str); 7] = [
    ("bare hyper", "in_process", "hyper", ""),
    ("worker, telemetry off", "in_process", "off", "bare hyper"),
    ("worker, metrics", "in_process", "metrics", "bare hyper"),
    ("worker, everything", "in_process", "full", "bare hyper"),
    ("record written", "observer_alone", "write", ""),
    ("and its line read", "observer_alone", "lines", "record written"),
    ("and its span sent", "observer_alone", "spans", "and its line read"),
];
const SHORT: u32 = 1_000;
const LONG: u32 = 3_000;

/// Counts all targets; the reason if it cannot be done here.
pub(crate) fn count() -> anyhow::Result<Result<Vec<Counted>, String>> {
    let Some(valgrind) = find("valgrind") else {
        return Ok(Err("skipped, program not found (apt-get install valgrind)".to_owned()));
    };
    let sink = Sink::start()?;
    let mut all: Vec<Counted> = Vec::new();
    for (name, program, mode, base) in TARGETS {
        let count = |number: u32| {
            let mut arguments = vec![mode.to_owned(), number.to_string()];
            if mode == "spans" {
                arguments.push(format!("http://{}", sink.address));
            }
            total(&valgrind, program, &arguments)
        };
        let (short, long) = (count(SHORT)?, count(LONG)?);
        let instructions =
            crate::measure::ratio(long.saturating_sub(short), u64::from(LONG - SHORT));
        eprintln!("instructions  {name}  {instructions:.0}");
        let base = all.iter().find(|row| row.name == base);
        let more = base.map(|base| (instructions - base.instructions, base.name));
        all.push(Counted { name, instructions, more });
    }
    Ok(Ok(all))
}

/// Instructions of a whole run.
fn total(valgrind: &Path, program: &str, arguments: &[String]) -> anyhow::Result<u64> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let path = std::env::current_exe()?.with_file_name(program);
    let output = Command::new(valgrind)
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(path)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cannot start valgrind")?;
    if !output.status.success() {
        bail!(
            "{program} {arguments:?} failed under valgrind: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = std::fs::read_to_string(&out)?;
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).context("callgrind wrote no total")
}

//! Instructions in user space for a request, counted by callgrind: the difference of a long and a short run, so that
//! start and exit cancel out. They repeat within a fraction of a percent, because nothing in them is random.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::targets::find;

/// Instructions for a request, the client's part of it included, which is the same in all rows.
#[derive(Debug, Serialize)]
pub(crate) struct Counted {
    pub(crate) name: &'static str,
    pub(crate) instructions: f64,
}

const TARGETS: [(&str, &str); 4] = [
    ("bare hyper", "hyper"),
    ("worker, telemetry off", "off"),
    ("worker, metrics", "metrics"),
    ("worker, everything", "full"),
];
const SHORT: u32 = 1_000;
const LONG: u32 = 3_000;

/// Counts all targets; the reason if it cannot be done here.
pub(crate) fn count() -> anyhow::Result<Result<Vec<Counted>, String>> {
    let Some(valgrind) = find("valgrind") else {
        return Ok(Err("skipped, program not found (apt-get install valgrind)".to_owned()));
    };
    let mut all = Vec::new();
    for (name, target) in TARGETS {
        let (short, long) = (total(&valgrind, target, SHORT)?, total(&valgrind, target, LONG)?);
        let instructions =
            crate::measure::ratio(long.saturating_sub(short), u64::from(LONG - SHORT));
        eprintln!("instructions  {name}  {instructions:.0}");
        all.push(Counted { name, instructions });
    }
    Ok(Ok(all))
}

/// Instructions of a whole run.
fn total(valgrind: &Path, target: &str, requests: u32) -> anyhow::Result<u64> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let program = std::env::current_exe()?.with_file_name("in_process");
    let output = Command::new(valgrind)
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([target, &requests.to_string()])
        .stdin(Stdio::null())
        .output()
        .context("cannot start valgrind")?;
    if !output.status.success() {
        bail!("{target} failed under valgrind: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = std::fs::read_to_string(&out)?;
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).context("callgrind wrote no total")
}

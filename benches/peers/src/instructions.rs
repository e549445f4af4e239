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
    /// How many that is more than in the row of this name, and how many times as many.
    pub(crate) more: Option<(f64, &'static str, f64)>,
}

/// One row.
struct Target {
    name: &'static str,
    program: &'static str,
    mode: &'static str,
    /// The row to compare with.
    base: &'static str,
    /// Only what this function does counts.
    inside: Option<&'static str>,
}

const fn whole(
    name: &'static str,
    program: &'static str,
    mode: &'static str,
    base: &'static str,
) -> Target {
    Target { name, program, mode, base, inside: None }
}

const TARGETS: [Target; 11] = [
    whole("bare hyper", "in_process", "hyper", ""),
    whole("worker, telemetry off", "in_process", "off", "bare hyper"),
    whole("worker, metrics", "in_process", "metrics", "bare hyper"),
    whole("worker, everything", "in_process", "full", "bare hyper"),
    whole("bare hyper, a browser's head", "in_process", "browser-hyper", ""),
    whole(
        "worker, telemetry off, a browser's head",
        "in_process",
        "browser-off",
        "bare hyper, a browser's head",
    ),
    whole("record written", "observer_alone", "write", ""),
    whole("and its line read", "observer_alone", "lines", "record written"),
    whole("and its span sent", "observer_alone", "spans", "and its line read"),
    Target {
        inside: Some("saola_observer::logfmt::Encoder::access"),
        ..whole("of these, the line encoded", "observer_alone", "lines", "")
    },
    Target {
        inside: Some("saola_observer::otlp::Traces::end"),
        ..whole("of these, the span encoded", "observer_alone", "spans", "")
    },
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
    for target in TARGETS {
        let count = |number: u32| {
            let mut arguments = vec![target.mode.to_owned(), number.to_string()];
            if target.mode == "spans" {
                arguments.push(format!("http://{}", sink.address));
            }
            total(&valgrind, &target, &arguments)
        };
        let (short, long) = (count(SHORT)?, count(LONG)?);
        if let Some(function) = target.inside.filter(|_| short == 0) {
            bail!("{function} is no function of {}: renamed, or part of another", target.program);
        }
        let instructions =
            crate::measure::ratio(long.saturating_sub(short), u64::from(LONG - SHORT));
        eprintln!("instructions  {}  {instructions:.0}", target.name);
        let base = all.iter().find(|row| row.name == target.base);
        let more = base.map(|base| {
            (instructions - base.instructions, base.name, instructions / base.instructions)
        });
        all.push(Counted { name: target.name, instructions, more });
    }
    Ok(Ok(all))
}

/// Instructions of a whole run, or of one function in it with all that it calls.
fn total(valgrind: &Path, target: &Target, arguments: &[String]) -> anyhow::Result<u64> {
    let program = target.program;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let path = std::env::current_exe()?.with_file_name(program);
    let toggle = target.inside.map(|function| format!("--toggle-collect={function}"));
    let output = Command::new(valgrind)
        .arg("--tool=callgrind")
        .args(toggle.is_some().then_some("--collect-atstart=no"))
        .args(toggle)
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

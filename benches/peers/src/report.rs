//! The report: tables, goals and every round, so that others can compute the medians again.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;

use crate::goals::{self, Verdict};
use crate::instructions::Counted;
use crate::rounds::{ROUNDS_OF_A_START, SetResult, Spread, TargetResult};
use crate::{Options, chart};

/// Counts, or why there are none.
type Instructions = Result<Vec<Counted>, String>;

/// Writes and prints it; says how the run ended.
pub(crate) fn write(
    options: &Options,
    sets: &[SetResult],
    instructions: Option<&Instructions>,
) -> anyhow::Result<ExitCode> {
    if sets.iter().all(|set| set.targets.len() < 2) && instructions.is_none() {
        eprintln!("nothing could be measured");
        return Ok(ExitCode::from(4));
    }
    let noisy = noisy(sets);
    let (markdown, keeps_floors) = markdown(options, sets, instructions, noisy.as_deref())?;
    let folder = folder(options, noisy.is_some())?;
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("RESULTS.md"), &markdown)?;
    let counted = instructions.and_then(|instructions| instructions.as_ref().ok());
    let all = serde_json::json!({ "sets": sets, "instructions": counted });
    std::fs::write(folder.join("results.json"), serde_json::to_string_pretty(&all)?)?;
    let title = format!("CPU per request relative to bare hyper, {}, {}", date(), cpu());
    chart::draw(&folder.join("results.svg"), &title, sets)?;
    println!("{markdown}");
    println!("written to {}", folder.display());
    if let Some(noisy) = noisy {
        eprintln!("{noisy}");
        return Ok(ExitCode::from(3));
    }
    Ok(ExitCode::from(u8::from(!keeps_floors)))
}

/// A control that is not itself says that the run can tell nothing.
fn noisy(sets: &[SetResult]) -> Option<String> {
    sets.iter().find_map(|set| {
        let control = set.control("C")?;
        let is_noisy = !(0.95..=1.05).contains(&control.median);
        is_noisy.then(|| format!("too noisy: A/A CPU ratio {control} in set {}", set.set))
    })
}

/// Only a full, quiet run of a clean tree replaces the committed results.
fn folder(options: &Options, is_noisy: bool) -> anyhow::Result<PathBuf> {
    if let Some(out) = &options.out {
        return Ok(out.clone());
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if options.is_full() && !is_noisy && is_clean() {
        return Ok(here.to_owned());
    }
    println!("this run is quick, partial, noisy or of a changed tree: the committed results stay");
    let target = std::env::current_exe()?;
    Ok(target.parent().and_then(Path::parent).context("a target folder")?.join("peers-report"))
}

fn markdown(
    options: &Options,
    sets: &[SetResult],
    instructions: Option<&Instructions>,
    noisy: Option<&str>,
) -> anyhow::Result<(String, bool)> {
    let mut text = String::from(
        "# Saola beside other servers\n\nMade by `benches/peers/run`; do not edit.\n\n",
    );
    head(&mut text, options)?;
    if let Some(noisy) = noisy {
        writeln!(text, "\n**{noisy}: nothing is claimed.**")?;
    }
    for set in sets {
        table(&mut text, set)?;
    }
    if let Some(instructions) = instructions {
        instruction_table(&mut text, instructions)?;
    }
    let keeps_floors = verdicts(&mut text, sets)?;
    writeln!(text, "\n## How each was started\n")?;
    for target in sets.iter().flat_map(|set| &set.targets) {
        writeln!(text, "* {}: `{}`", target.name, target.command)?;
    }
    Ok((text, keeps_floors))
}

fn head(text: &mut String, options: &Options) -> anyhow::Result<()> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let tree = if is_clean() { "clean" } else { "changed" };
    writeln!(text, "| | |\n|---|---|")?;
    writeln!(text, "| date | {} UTC |", date())?;
    writeln!(text, "| commit | {}, {tree} tree |", said("git", &["rev-parse", "--short", "HEAD"]))?;
    writeln!(text, "| machine | {}, {cores} cores, Linux {} |", cpu(), kernel.trim())?;
    writeln!(text, "| rustc | {} |", said("rustc", &["--version"]))?;
    writeln!(
        text,
        "| run | {} rounds of {} s, started anew every {ROUNDS_OF_A_START}, {} connections, {} workers, generator wrk with {} threads on the same cores |",
        options.rounds,
        options.seconds,
        options.connections,
        options.workers,
        options.generator_threads()
    )?;
    writeln!(
        text,
        "\nT: requests a second, C: CPU per request over all processes, Cw: over the workers alone, each"
    )?;
    writeln!(
        text,
        "relative to the two turns of the first row of its table in the same round: median (least..greatest)."
    )?;
    writeln!(
        text,
        "Marks: `~` processes changed, `s` one worker did most, `!` others used the machine."
    )?;
    Ok(())
}

fn table(text: &mut String, set: &SetResult) -> anyhow::Result<()> {
    let Some(base) = set.targets.first() else { return Ok(()) };
    writeln!(text, "\n## {}\n", set.set)?;
    if let (Some(c), Some(t)) = (set.control("C"), set.control("T")) {
        writeln!(text, "Control, the first row twice: C {c}, T {t}\n")?;
    }
    writeln!(
        text,
        "| target | req/s | T | CPU µs | C | Cw | p50 µs | p99 µs | memory KiB (private, files, shared) | spans/req | marks |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|---|---|---|")?;
    let has_workers = base.rounds.iter().all(|round| round.workers_us > 0.0);
    for target in &set.targets {
        let of = |measure: &str| {
            set.ratios(target.name, base.name, measure)
                .map(Spread::of)
                .map_or_else(String::new, |spread| spread.to_string())
        };
        let median = |value: fn(&crate::rounds::Round) -> f64| {
            Spread::of(target.rounds.iter().map(value).collect()).median
        };
        let memory = target.memory_kib;
        writeln!(
            text,
            "| {} | {:.0} | {} | {:.2} | {} | {} | {:.0} | {:.0} | {}, {}, {} | {:.3} | {} |",
            target.name,
            median(|round| round.per_second),
            of("T"),
            median(|round| round.cpu_us),
            of("C"),
            if has_workers { of("Cw") } else { "-".to_owned() },
            median(|round| round.p50_us),
            median(|round| round.p99_us),
            memory.anonymous,
            memory.file,
            memory.shared,
            median(|round| round.spans),
            marks(target),
        )?;
    }
    for (name, why) in &set.skipped {
        writeln!(text, "| {name} | {why} | | | | | | | | | |")?;
    }
    Ok(())
}

fn instruction_table(text: &mut String, instructions: &Instructions) -> anyhow::Result<()> {
    writeln!(text, "\n## instructions\n")?;
    let counted = match instructions {
        Ok(counted) => counted,
        Err(why) => {
            writeln!(text, "{why}")?;
            return Ok(());
        }
    };
    writeln!(
        text,
        "User-space instructions for a request (callgrind): in a worker on one connection in memory, the client included; and in an observer\n\
         from its record in the ring to the written line, and to the collector's answer.\n"
    )?;
    writeln!(text, "| target | instructions | more than | ratio |\n|---|---|---|---|")?;
    for row in counted {
        let more = row.more.map_or(String::from("|"), |(more, base, ratio)| {
            format!("{more:+.0} {base} | {ratio:.2}")
        });
        writeln!(text, "| {} | {:.0} | {more} |", row.name, row.instructions)?;
    }
    Ok(())
}

fn marks(target: &TargetResult) -> String {
    let mut marks: Vec<char> = target.rounds.iter().flat_map(|round| round.marks.chars()).collect();
    marks.sort_unstable();
    marks.dedup();
    marks.into_iter().collect()
}

fn verdicts(text: &mut String, sets: &[SetResult]) -> anyhow::Result<bool> {
    writeln!(text, "\n## Goals\n\n| goal | | measured | |\n|---|---|---|---|")?;
    let mut keeps_floors = true;
    for goal in goals::all()? {
        let (verdict, spread, keeps) = goal.judge(sets);
        keeps_floors &= keeps || verdict == Verdict::Skipped;
        let measured = spread.map_or_else(|| "-".to_owned(), |spread| spread.to_string());
        let floor = goal.floor.map_or_else(String::new, |floor| format!(", floor {floor}"));
        writeln!(
            text,
            "| {} {} against {} | {} {} {}{floor} | {measured} | {}{} |",
            goal.id,
            goal.of,
            goal.against,
            goal.measure,
            goal.sign(),
            goal.goal,
            verdict.as_str(),
            if keeps { "" } else { ", below the floor" },
        )?;
    }
    Ok(keeps_floors)
}

fn is_clean() -> bool {
    said("git", &["status", "--porcelain"]).is_empty()
}

fn date() -> String {
    said("date", &["-u", "+%Y-%m-%d %H:%M"])
}

fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": ")).map_or("unknown CPU", |(_, name)| name).to_owned()
}

/// What a program says; nothing if it is not there.
fn said(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

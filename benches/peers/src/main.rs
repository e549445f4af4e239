//! Measures Saola beside other servers: all of a set are started, then loaded one after the other, round by round, and
//! every figure is a ratio to another target of the same round.
//!
//! `benches/peers/run` builds and starts it. Exit: 0 all floors kept, 1 a floor missed or a target broken, 2 usage,
//! 3 too noisy to say anything, 4 nothing could be measured.

mod chart;
mod goals;
mod instructions;
mod measure;
mod report;
mod rounds;
mod sink;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// Measures Saola beside other servers, in one run on this machine.
#[derive(Parser, Debug)]
#[command(name = "benches/peers/run")]
pub(crate) struct Options {
    /// Which comparison; repeatable. Default all.
    #[arg(long = "set", value_enum)]
    sets: Vec<Set>,
    /// Only these targets, besides the two controls; repeatable.
    #[arg(long)]
    only: Vec<String>,
    /// Rounds, at least 5.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(5..=100))]
    rounds: u32,
    /// Seconds of load on a target in a round. Many short rounds tell more than a few long ones: a machine that others share
    /// is fast for some seconds and slow for some.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Workers of each server; threads of bare hyper.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: u32,
    /// Threads of the load generator, as many as workers unless given: with one it is the generator that is busy, and servers
    /// mostly wait for it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    generator_threads: Option<u32>,
    /// 5 rounds of 1 s; leaves the committed results alone.
    #[arg(long)]
    quick: bool,
    /// Where the report goes. Default: beside this program, if the run is full, quiet and of a clean tree; else below
    /// the target folder.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Shows the targets, found or missing, and ends.
    #[arg(long)]
    list: bool,
}

impl Options {
    /// With what follows from what was given.
    fn completed(mut self) -> Self {
        if self.sets.is_empty() {
            self.sets = Set::ALL.into();
        }
        if self.quick {
            (self.rounds, self.seconds) = (5, 1);
        }
        self
    }

    pub(crate) fn generator_threads(&self) -> u32 {
        self.generator_threads.unwrap_or(self.workers)
    }

    /// Says whether everything is measured as the committed results were.
    pub(crate) fn is_full(&self) -> bool {
        !self.quick
            && self.only.is_empty()
            && Set::ALL.iter().all(|set| self.sets.contains(set))
            && self.generator_threads.is_none()
    }
}

/// A comparison: its targets are measured in the same rounds.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug, ValueEnum)]
pub(crate) enum Set {
    /// Bare hyper, nginx, and Saola with and without telemetry.
    Peers,
    /// Saola against itself: what each part of the telemetry costs.
    Telemetry,
    /// An axum application on Saola, without telemetry and with all of it.
    Axum,
    /// Instructions for a request, by callgrind.
    Instructions,
}

impl Set {
    /// What a full run measures.
    pub(crate) const ALL: [Self; 4] =
        [Self::Peers, Self::Telemetry, Self::Axum, Self::Instructions];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Telemetry => "telemetry",
            Self::Axum => "axum",
            Self::Instructions => "instructions",
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options.completed()) {
        Ok(verdict) => verdict,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if options.list {
        for target in targets::all() {
            match targets::missing(target) {
                None => println!("{}: found", target.name()),
                Some(missing) => println!("{}: {missing}", target.name()),
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(missing) = measure::missing_generator() {
        eprintln!("{missing}");
        return Ok(ExitCode::from(4));
    }
    let mut results = Vec::new();
    let mut instructions = None;
    for set in &options.sets {
        match set {
            Set::Instructions => instructions = Some(instructions::count()?),
            Set::Peers | Set::Telemetry | Set::Axum => {
                results.push(rounds::measure(*set, options)?)
            }
        }
    }
    report::write(options, &results, instructions.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_of_everything_is_full() {
        let is_full = |arguments: &[&str]| {
            let arguments = ["peers"].iter().chain(arguments);
            Options::try_parse_from(arguments).unwrap().completed().is_full()
        };
        assert!(is_full(&[]));
        let sets = "--set peers --set telemetry --set axum --set instructions";
        assert!(is_full(&sets.split(' ').collect::<Vec<_>>()));
        for part in ["--quick", "--set peers", "--only nginx", "--generator-threads 1"] {
            assert!(!is_full(&part.split(' ').collect::<Vec<_>>()), "{part}");
        }
    }
}

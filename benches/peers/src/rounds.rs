//! The rounds: every target of a set in each, the order reversed every other time, ratios inside the round.

use std::time::Duration;

use serde::Serialize;

use crate::measure::{self, Memory, TreeTime, load, machine_busy_ns, ratio};
use crate::sink::Sink;
use crate::targets::{self, Running, Target};
use crate::{Options, Set};

/// What a set has shown.
#[derive(Debug, Serialize)]
pub(crate) struct SetResult {
    pub(crate) set: &'static str,
    /// The first is the base, the second the base again.
    pub(crate) targets: Vec<TargetResult>,
    pub(crate) skipped: Vec<(String, String)>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TargetResult {
    pub(crate) name: &'static str,
    pub(crate) command: String,
    pub(crate) memory_kib: Memory,
    pub(crate) rounds: Vec<Round>,
}

/// One target in one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    /// CPU time of the whole tree for a request, microseconds.
    pub(crate) cpu_us: f64,
    /// Of the workers alone; 0 where there are none to be told apart.
    pub(crate) workers_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) busiest: f64,
    /// Spans that the collector got for a request.
    pub(crate) spans: f64,
    /// `~` processes changed, `s` one worker did most, `!` others used the machine.
    pub(crate) marks: String,
}

pub(crate) fn measure(set: Set, options: &Options) -> anyhow::Result<SetResult> {
    let sink = Sink::start()?;
    let (found, skipped) = found(set, options);
    let start = || -> anyhow::Result<Vec<Running>> {
        let start_one = |target: &Target| Running::start(*target, options.workers, &sink);
        let running: Vec<Running> = found.iter().map(start_one).collect::<Result<_, _>>()?;
        for server in &running {
            load(server.address, options, 1)?;
        }
        Ok(running)
    };
    let mut running = Vec::new();
    let mut rounds: Vec<Vec<Round>> = found.iter().map(|_| Vec::new()).collect();
    for number in 0..options.rounds {
        if number % ROUNDS_OF_A_START == 0 {
            // The old ones end before the new ones begin.
            running.clear();
            running = start()?;
        }
        for at in order(running.len(), number) {
            let (Some(server), Some(kept)) = (running.get(at), rounds.get_mut(at)) else {
                continue;
            };
            kept.push(quiet_round(server, options, &sink)?);
        }
        tell(set, number, options.rounds, &running, &rounds);
    }
    let targets = running
        .iter()
        .zip(rounds)
        .map(|(server, rounds)| TargetResult {
            name: server.target.name(),
            command: server.command.clone(),
            memory_kib: Memory::of(server.pid()),
            rounds,
        })
        .collect();
    Ok(SetResult { set: set.name(), targets, skipped })
}

/// The targets of a set that were asked for and are there, and why the others are not.
fn found(set: Set, options: &Options) -> (Vec<Target>, Vec<(String, String)>) {
    let is_asked_for = |at: usize, target: Target| {
        let is_control = at < 2;
        is_control
            || options.only.is_empty()
            || options.only.iter().any(|only| only == target.name())
    };
    let (mut found, mut skipped) = (Vec::new(), Vec::new());
    let all = targets::of(set).into_iter().enumerate();
    for (_, target) in all.filter(|(at, target)| is_asked_for(*at, *target)) {
        match targets::missing(target) {
            None => found.push(target),
            Some(missing) => {
                eprintln!("{}: {missing}", target.name());
                skipped.push((target.name().to_owned(), missing));
            }
        }
    }
    (found, skipped)
}

/// Where its memory lies and which worker has which connection is the luck of a server's start, and makes some percent: after
/// so many rounds all are started anew.
pub(crate) const ROUNDS_OF_A_START: u32 = 5;

/// Who is loaded when in a round: the base first and once more in the middle, so that the others stand near one of the two;
/// every other round the other way round.
fn order(targets: usize, round: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..targets).collect();
    if targets > 2 {
        let again = order.remove(1);
        order.insert(targets / 2, again);
    }
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// One round; again, at most three times, when something else used the machine meanwhile.
fn quiet_round(server: &Running, options: &Options, sink: &Sink) -> anyhow::Result<Round> {
    let mut last = one_round(server, options, sink)?;
    for _ in 0..3 {
        if !last.marks.contains('!') {
            break;
        }
        last = one_round(server, options, sink)?;
    }
    Ok(last)
}

fn one_round(server: &Running, options: &Options, sink: &Sink) -> anyhow::Result<Round> {
    let spans = sink.spans();
    let (before, busy) = (TreeTime::of(server.pid()), machine_busy_ns());
    let own = TreeTime::of(std::process::id());
    let generators = measure::generators_ns()?;
    let loaded = load(server.address, options, options.seconds)?;
    let used = TreeTime::of(server.pid()).since(&before);
    let busy = machine_busy_ns().saturating_sub(busy);
    // The generator's own time is in nobody's tree any more.
    let known = used.all_ns
        + TreeTime::of(std::process::id()).since(&own).all_ns
        + measure::generators_ns()?.saturating_sub(generators);
    // Spans of the last second are still on their way.
    if server.target.is_saola() {
        std::thread::sleep(Duration::from_millis(300));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let others =
        ratio(busy.saturating_sub(known), u64::from(options.seconds) * 1_000_000_000 * cores);
    let mut marks = String::new();
    marks.extend(used.has_changed.then_some('~'));
    marks.extend((used.busiest > 0.65 && options.workers == 2).then_some('s'));
    marks.extend((others > 0.15).then_some('!'));
    let per_request = |ns: u64| ratio(ns, loaded.requests) / 1_000.0;
    Ok(Round {
        requests: loaded.requests,
        per_second: loaded.per_second,
        cpu_us: per_request(used.all_ns),
        workers_us: per_request(used.workers_ns),
        p50_us: loaded.p50_us,
        p99_us: loaded.p99_us,
        busiest: used.busiest,
        spans: measure::ratio(sink.spans() - spans, loaded.requests),
        marks,
    })
}

fn tell(set: Set, number: u32, of: u32, running: &[Running], rounds: &[Vec<Round>]) {
    let base = rounds.first().and_then(|rounds| rounds.last()).cloned();
    let Some(base) = base else { return };
    let mut text = format!("{} [{}/{of}]", set.name(), number + 1);
    for (server, rounds) in running.iter().zip(rounds) {
        if let Some(round) = rounds.last() {
            let (t, c) = (round.per_second / base.per_second, round.cpu_us / base.cpu_us);
            text.push_str(&format!("  {} T {t:.2} C {c:.2}{}", server.target.name(), round.marks));
        }
    }
    eprintln!("{text}");
}

impl SetResult {
    /// The ratios of a measure, one for each round; none if a target is not there. What is compared with the base is compared
    /// with the mean of its two turns in the round.
    pub(crate) fn ratios(&self, of: &str, against: &str, measure: &str) -> Option<Vec<f64>> {
        let find = |name: &str| self.targets.iter().find(|target| target.name == name);
        let [base, again, ..] = self.targets.as_slice() else { return None };
        let (of, against) = (find(of)?, find(against)?);
        let is_with_base = against.name == base.name && of.name != again.name;
        let twin = if is_with_base { again } else { against };
        let value = |round: &Round| match measure {
            "T" => round.per_second,
            "Cw" => round.workers_us,
            "L99" => round.p99_us,
            _ => round.cpu_us,
        };
        let rounds = of.rounds.iter().zip(&against.rounds).zip(&twin.rounds);
        let ratio = |((of, against), twin): ((&Round, &Round), &Round)| {
            value(of) / f64::midpoint(value(against), value(twin))
        };
        Some(rounds.map(ratio).collect())
    }

    /// The base against itself.
    pub(crate) fn control(&self, measure: &str) -> Option<Spread> {
        let [base, again, ..] = self.targets.as_slice() else { return None };
        self.ratios(again.name, base.name, measure).map(Spread::of)
    }
}

/// Median, least and greatest.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            at(middle)
        } else {
            f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
        };
        Self { median, least: at(0), greatest: at(values.len().wrapping_sub(1)) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} ({:.3}..{:.3})", self.median, self.least, self.greatest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_has_two_turns_in_a_round() {
        assert_eq!(order(2, 0), [0, 1]);
        assert_eq!(order(7, 0), [0, 2, 3, 1, 4, 5, 6]);
        assert_eq!(order(7, 1), [6, 5, 4, 1, 3, 2, 0]);
    }

    #[test]
    fn the_median_of_few() {
        assert_eq!(
            Spread::of(vec![3.0, 1.0, 2.0]),
            Spread { median: 2.0, least: 1.0, greatest: 3.0 }
        );
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert!(Spread::of(Vec::new()).median.is_nan());
    }
}

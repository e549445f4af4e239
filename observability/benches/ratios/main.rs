//! The figures of slot files as ratios, each formed inside one round, so that they hold on any machine.
//!
//! `cargo bench -p saola-observability --bench ratios`; with `-- --check` it exits with 1 if a goal is missed.
//!
//! Some goals compare with crates whose updates are locked additions, and were set on a machine where one took 15 times as
//! long as a load and a store. Where it takes 4 no code can be 8 times as fast: beside such a goal stands what the bare stores
//! of the operation would reach here, and a goal beyond that is called not possible instead of missed.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

mod clock;
mod hot;
mod lives;
mod requests;
mod scrapes;
mod table;

use std::process::ExitCode;

use saola_observability::metrics::{CounterVec, HistogramVec};
use saola_observability::{Choice, Epoch, RunDir, Shape, Slot};

use crate::requests::Requests;

pub(crate) const BOUNDS: [f64; 11] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
pub(crate) const ROUNDS: usize = 7;

pub(crate) static COUNTER: CounterVec<3> =
    CounterVec::new("bench_total", "Counts.", ["a", "b", "c"]);
pub(crate) static HISTOGRAM: HistogramVec<3> =
    HistogramVec::new("bench_seconds", "Times.", ["a", "b", "c"], &BOUNDS);
pub(crate) static EXEMPLARS: HistogramVec<1> =
    HistogramVec::new("bench_exemplar_seconds", "Times.", ["a"], &BOUNDS).exemplars();
pub(crate) static PLAIN: HistogramVec<1> =
    HistogramVec::new("bench_plain_seconds", "Times.", ["a"], &BOUNDS);
pub(crate) static MANY: CounterVec<1> = CounterVec::new("bench_many_total", "Counts.", ["a"]);

fn main() -> ExitCode {
    let is_given = |wanted| std::env::args().any(|argument| argument == wanted);
    let folder = tempfile::Builder::new().prefix("saola-bench").tempdir_in("/dev/shm").unwrap();
    let choice =
        Choice { given: Some(folder.path().join("run")), slots_at_peak: 8, ..Choice::default() };
    let mut run_dir = RunDir::choose(&choice).unwrap().dir;
    run_dir.lock("bench").unwrap();
    let mut epoch = Epoch::create(&run_dir, Shape::default()).unwrap();
    epoch.publish().unwrap();
    let path = run_dir.path();
    if is_given(hot::ALONE) {
        let slot = Slot::attach(epoch.open_worker(0, 1).unwrap()).unwrap();
        hot::measure(&mut Requests::new(slot, path)).iter().for_each(hot::Round::print);
        epoch.remove();
        return ExitCode::SUCCESS;
    }

    let lives = lives::measure(&mut epoch, path, 1);
    let mut is_met = true;
    let mut scraped = Vec::new();
    let mut filled = 0;
    for slots in [1, 8, 64] {
        for slot in filled..slots {
            lives::one_life(&mut epoch, slot, scrapes::fill);
        }
        filled = slots;
        scraped.push((slots, scrapes::measure(path, usize::try_from(slots).unwrap())));
    }
    let hot = hot::measure_in_processes();

    println!("\n{:<4} {:<64} {:>8} {:>9} {:>9}", "id", "what", "goal", "measured", "possible");
    is_met &= table::print(&hot::GOALS, &hot);
    for (slots, rounds) in &scraped {
        println!("     {slots} slots:");
        is_met &= table::print(&scrapes::GOALS, rounds);
    }
    is_met &= table::print(&lives::GOALS, &[lives]);
    let machine = table::median(hot.iter().map(hot::Round::machine).collect());
    println!(
        "lock xadd : load + store = {machine:.1} on this machine; it was 15 where the goals were set"
    );
    epoch.remove();
    if is_given("--check") && !is_met { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

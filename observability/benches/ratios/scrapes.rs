//! A scrape of many slots (F83-F86).

use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use saola_observability::exposition::{self, Format};
use saola_observability::reader::Reader;

use crate::clock::once;
use crate::table::Bound::{AtLeast, AtMost};
use crate::table::Goal;
use crate::{BOUNDS, COUNTER, HISTOGRAM, ROUNDS};

/// Label sets of one slot; with a counter and a histogram each makes 15 lines.
const SERIES: usize = 700;

/// CPU nanoseconds, but for `wall`.
pub(crate) struct Round {
    limit: f64,
    warm: f64,
    wall: f64,
    cold: f64,
    gathered: f64,
}

pub(crate) const GOALS: [Goal<Round>; 4] = [
    Goal {
        id: "F83",
        what: "warm scrape : reading all cells + copying ready text + itoa",
        bound: AtMost(3.0),
        ratio: |round| round.warm / round.limit,
        possible: None,
    },
    Goal {
        id: "F83",
        what: "prometheus gathering and encoding one process : warm scrape",
        bound: AtLeast(1.0),
        ratio: |round| round.gathered / round.warm,
        possible: None,
    },
    Goal {
        id: "F84",
        what: "cold scrape : the same limit",
        bound: AtMost(30.0),
        ratio: |round| round.cold / round.limit,
        possible: None,
    },
    Goal {
        id: "F85",
        what: "warm scrape, milliseconds on the wall",
        bound: AtMost(50.0),
        ratio: |round| round.wall / 1e6,
        possible: None,
    },
];

/// Gives the slot of this process its series.
pub(crate) fn fill() {
    for at in 0..SERIES {
        let label = format!("value-{at}");
        HISTOGRAM.with(["GET", label.as_str(), "200"]).observe(0.3);
        COUNTER.with(["GET", label.as_str(), "200"]).inc();
    }
}

/// CPU nanoseconds of a scrape by a reader that knows all series.
pub(crate) fn warm_ns(run_dir: &Path) -> f64 {
    let mut reader = Reader::open(run_dir).unwrap();
    let mut text = Vec::new();
    let mut scrape = || exposition::text_into(reader.read().unwrap(), Format::Text, &mut text);
    scrape();
    let rounds = (0..ROUNDS).map(|_| once(|| (0..10).for_each(|_| scrape())) / 10.0);
    crate::table::median(rounds.collect())
}

pub(crate) fn measure(run_dir: &Path, slots: usize) -> Vec<Round> {
    let mut reader = Reader::open(run_dir).unwrap();
    let mut text = Vec::new();
    exposition::text_into(reader.read().unwrap(), Format::Text, &mut text);
    let limit = Limit::of(&text, slots);
    let registry = registry();
    println!("{slots} slots, {} lines in the scrape", limit.heads.len());
    let one = || {
        let start = Instant::now();
        let warm = once(|| {
            for _ in 0..10 {
                let families = reader.read().unwrap();
                exposition::text_into(families, Format::Text, &mut text);
                black_box(&text);
            }
        });
        Round {
            wall: start.elapsed().as_secs_f64() * 1e9 / 10.0,
            warm: warm / 10.0,
            limit: limit.ns(),
            cold: once(|| {
                let mut reader = Reader::open(run_dir).unwrap();
                black_box(exposition::text(reader.read().unwrap(), Format::Text));
            }),
            gathered: once(|| {
                use prometheus::Encoder;
                let mut out = Vec::new();
                prometheus::TextEncoder::new().encode(&registry.gather(), &mut out).unwrap();
                black_box(out);
            }),
        }
    };
    let rounds: Vec<Round> = std::iter::repeat_with(one).take(ROUNDS).collect();
    let middle =
        |part: fn(&Round) -> f64| crate::table::median(rounds.iter().map(part).collect()) / 1e3;
    println!(
        "µs: limit {:.0}  warm {:.0}  cold {:.0}  prometheus {:.0}",
        middle(|round| round.limit),
        middle(|round| round.warm),
        middle(|round| round.cold),
        middle(|round| round.gathered)
    );
    rounds
}

/// The least that a scrape costs: the same numbers from flat arrays, one a slot, behind text that is ready.
struct Limit {
    heads: Vec<String>,
    slots: Vec<Vec<AtomicU64>>,
}

impl Limit {
    fn of(text: &[u8], slots: usize) -> Self {
        let text = std::str::from_utf8(text).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let (heads, numbers): (Vec<String>, Vec<u64>) = lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(head, value)| (format!("{head} "), value.parse().unwrap_or(7)))
            .unzip();
        let of_a_slot = |number: &u64| AtomicU64::new(number / slots as u64);
        let slots = (0..slots).map(|_| numbers.iter().map(of_a_slot).collect()).collect();
        Self { heads, slots }
    }

    fn ns(&self) -> f64 {
        let mut out = Vec::new();
        let spent = once(|| {
            for _ in 0..10 {
                out.clear();
                for (at, head) in black_box(&self.heads).iter().enumerate() {
                    let number: u64 = self.slots.iter().map(|cells| cells[at].load(Relaxed)).sum();
                    out.extend_from_slice(head.as_bytes());
                    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
                    out.push(b'\n');
                }
                black_box(&out);
            }
        });
        spent / 10.0
    }
}

/// As many series in one process of the crate that is measured against.
fn registry() -> prometheus::Registry {
    let registry = prometheus::Registry::new();
    let options = prometheus::HistogramOpts::new("y", "Y.").buckets(BOUNDS.to_vec());
    let theirs = prometheus::HistogramVec::new(options, &["a", "b", "c"]).unwrap();
    registry.register(Box::new(theirs.clone())).unwrap();
    for at in 0..SERIES + crate::hot::SETS {
        theirs.with_label_values(&["GET", &format!("value-{at}"), "200"]).observe(0.3);
    }
    registry
}

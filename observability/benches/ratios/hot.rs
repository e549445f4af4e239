//! The operations of the thread that serves (F77-F82).

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use saola_observability::metrics::{CounterHandle, HistogramHandle, HistogramVec};
use saola_observability::{Detail, SpanId, TraceId};

use crate::clock::each;
use crate::requests::Requests;
use crate::table::Bound::{AtLeast, AtMost};
use crate::table::Goal;
use crate::{BOUNDS, COUNTER, EXEMPLARS, HISTOGRAM, PLAIN, ROUNDS};

/// Label sets of three labels, and how often each is used in a round.
pub(crate) const SETS: usize = 200;
const PASSES: usize = 1_000;
const PROCESSES: usize = 7;
/// The argument of a process that measures for another.
pub(crate) const ALONE: &str = "--alone";

/// CPU nanoseconds of each operation in one round.
#[derive(Default)]
pub(crate) struct Round {
    base: f64,
    xadd: f64,
    inc: f64,
    their_inc: f64,
    /// As `their_inc`, while another thread counts with the same counters.
    their_shared_inc: f64,
    foreign: f64,
    observe: f64,
    their_observe: f64,
    client_observe: f64,
    with: f64,
    their_with: f64,
    their_macro: f64,
    plain: f64,
    exemplar: f64,
    request: f64,
    /// What `request` takes without its record.
    counted: f64,
}

/// Stores that an observation takes at least: count and sum.
const OBSERVE_STORES: f64 = 2.0;

pub(crate) const GOALS: [Goal<Round>; 13] = [
    Goal {
        id: "F77",
        what: "counter inc, resolved : load + store",
        bound: AtMost(1.2),
        ratio: |round| round.inc / round.base,
        possible: None,
    },
    Goal {
        id: "F77",
        what: "prometheus IntCounter inc : counter inc",
        bound: AtLeast(8.0),
        ratio: |round| round.their_inc / round.inc,
        possible: Some(|round| round.their_inc / round.base),
    },
    Goal {
        id: "",
        what: "IntCounter inc, two threads of a process : counter inc",
        bound: AtLeast(8.0),
        ratio: |round| round.their_shared_inc / round.inc,
        possible: Some(|round| round.their_shared_inc / round.base),
    },
    Goal {
        id: "F78",
        what: "inc from a foreign thread : lock xadd",
        bound: AtMost(1.25),
        ratio: |round| round.foreign / round.xadd,
        possible: None,
    },
    Goal {
        id: "F79",
        what: "observe : load + store",
        bound: AtMost(6.0),
        ratio: |round| round.observe / round.base,
        possible: None,
    },
    Goal {
        id: "F79",
        what: "prometheus observe : observe",
        bound: AtLeast(5.0),
        ratio: |round| round.their_observe / round.observe,
        possible: Some(|round| round.their_observe / (OBSERVE_STORES * round.base)),
    },
    Goal {
        id: "F79",
        what: "prometheus-client observe : observe",
        bound: AtLeast(3.0),
        ratio: |round| round.client_observe / round.observe,
        possible: Some(|round| round.client_observe / (OBSERVE_STORES * round.base)),
    },
    Goal {
        id: "F80",
        what: "prometheus with_label_values + inc : with + inc",
        bound: AtLeast(1.0),
        ratio: |round| round.their_with / round.with,
        possible: None,
    },
    Goal {
        id: "F80",
        what: "macro of the metrics crate, labels and inc : with + inc",
        bound: AtLeast(5.0),
        ratio: |round| round.their_macro / round.with,
        possible: None,
    },
    Goal {
        id: "F81",
        what: "(exemplar - none) : load + store",
        bound: AtMost(4.5),
        ratio: |round| (round.exemplar - round.plain) / round.base,
        possible: None,
    },
    Goal {
        id: "F82",
        what: "begin + end with a record of about 240 B : lock xadd",
        bound: AtMost(25.0),
        ratio: |round| round.request / round.xadd,
        possible: None,
    },
    Goal {
        id: "",
        what: "the same, nanoseconds",
        bound: AtMost(150.0),
        ratio: |round| round.request,
        possible: None,
    },
    Goal {
        id: "",
        what: "of these, the record: less begin + end that only count",
        bound: AtMost(150.0),
        ratio: |round| round.request - round.counted,
        possible: None,
    },
];

pub(crate) fn measure(requests: &mut Requests) -> Vec<Round> {
    let labels = labels();
    let memory: Vec<AtomicU64> = (0..SETS * 8).map(|_| AtomicU64::new(0)).collect();
    let cells: Vec<&AtomicU64> = memory.iter().step_by(8).collect();
    let cells: Vec<&AtomicU64> = scattered().map(|at| cells[at]).collect();
    let counters: Vec<CounterHandle> =
        labels.iter().map(|[a, b, c]| COUNTER.with([a, b, c])).collect();
    let histograms: Vec<(HistogramHandle, f64)> = labels
        .iter()
        .zip(values())
        .map(|([a, b, c], value)| (HISTOGRAM.with([a, b, c]), value))
        .collect();
    let others = Others::new(&labels);
    let mut one = || {
        let base = each(PASSES, &cells, |cell| {
            cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
        });
        let (plain, exemplar) = exemplars();
        Round {
            base,
            xadd: each(PASSES, &cells, |cell| _ = cell.fetch_add(1, Relaxed)),
            inc: each(PASSES, &counters, |counter| counter.inc()),
            their_inc: each(PASSES, &others.counters, prometheus::IntCounter::inc),
            their_shared_inc: shared_ns(&others.counters),
            foreign: foreign_ns(&labels),
            observe: each(PASSES, &histograms, |(histogram, value)| histogram.observe(*value)),
            their_observe: each(PASSES, &others.observers, |(theirs, value)| {
                theirs.observe(*value);
            }),
            client_observe: each(PASSES, &others.clients, |(theirs, value)| theirs.observe(*value)),
            with: each(PASSES, &labels, |[a, b, c]| COUNTER.with([a, b, c]).inc()),
            their_with: each(PASSES, &labels, |[a, b, c]| {
                others.family.with_label_values(&[a, b, c]).inc();
            }),
            their_macro: each(PASSES, &labels, |[a, b, c]| {
                let (a, b, c) = (a.clone(), b.clone(), c.clone());
                metrics::counter!("z_total", "a" => a, "b" => b, "c" => c).increment(1);
            }),
            plain,
            exemplar,
            request: requests.measure(Detail::Full, PASSES * SETS / 4),
            counted: requests.measure(Detail::Counts, PASSES * SETS / 4),
        }
    };
    (0..ROUNDS).map(|_| one()).collect()
}

/// What as many processes measure one after the other. Where the kernel puts heap and mappings decides which of our loads
/// seem to meet which of our stores; one process would measure its own luck.
pub(crate) fn measure_in_processes() -> Vec<Round> {
    let measured = (0..PROCESSES).map(|_| {
        let program = std::env::current_exe().unwrap();
        let output = std::process::Command::new(program).arg(ALONE).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rounds: Vec<Round> =
            String::from_utf8(output.stdout).unwrap().lines().map(Round::parse).collect();
        println!("{}", rounds[rounds.len() / 2].nanoseconds());
        rounds
    });
    measured.flatten().collect()
}

impl Round {
    /// One line, for the process that asked.
    pub(crate) fn print(&self) {
        let Self { base, xadd, inc, their_inc, their_shared_inc, foreign, .. } = self;
        let Self { observe, their_observe, client_observe, with, their_with, .. } = self;
        let Self { their_macro, plain, exemplar, request, counted, .. } = self;
        println!(
            "{base} {xadd} {inc} {their_inc} {their_shared_inc} {foreign} {observe} {their_observe} \
             {client_observe} {with} {their_with} {their_macro} {plain} {exemplar} {request} {counted}"
        );
    }

    fn parse(line: &str) -> Self {
        let mut numbers = line.split(' ').map(|number| number.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        // In the order in which they are written here, which is that of the line.
        Self {
            base: next(),
            xadd: next(),
            inc: next(),
            their_inc: next(),
            their_shared_inc: next(),
            foreign: next(),
            observe: next(),
            their_observe: next(),
            client_observe: next(),
            with: next(),
            their_with: next(),
            their_macro: next(),
            plain: next(),
            exemplar: next(),
            request: next(),
            counted: next(),
        }
    }

    fn nanoseconds(&self) -> String {
        let Self { base, xadd, inc, their_inc, their_shared_inc, foreign, observe, .. } = self;
        let Self { their_observe, client_observe, with, plain, exemplar, request, counted, .. } =
            self;
        format!(
            "ns: load+store {base:.2}  xadd {xadd:.2}  inc {inc:.2} ({their_inc:.2}, \
             {their_shared_inc:.2})  foreign {foreign:.2}  observe {observe:.2} ({their_observe:.2}, {client_observe:.2})  with+inc {with:.1}  \
             one {plain:.2}  with exemplar {exemplar:.2}  begin+end {request:.1} ({counted:.1} without record)"
        )
    }

    /// What a crate that adds atomically can be beaten by: its addition against the cheapest one there is.
    pub(crate) fn machine(&self) -> f64 {
        self.xadd / self.base
    }
}

/// An increment in a server that is one process: two threads count with the same counters, each at its own place among them.
fn shared_ns(counters: &[prometheus::IntCounter]) -> f64 {
    let start = Barrier::new(2);
    let (first, second) = counters.split_at(counters.len() / 2);
    let turned: Vec<_> = second.iter().chain(first).cloned().collect();
    let measure = |counters: &[prometheus::IntCounter]| {
        start.wait();
        each(PASSES, counters, prometheus::IntCounter::inc)
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| measure(&turned));
        let one = measure(counters);
        f64::midpoint(one, other.join().unwrap())
    })
}

/// An increment from a thread that does not own the slot, by handles that it has resolved.
fn foreign_ns(labels: &[[String; 3]]) -> f64 {
    let measure = || {
        let counters: Vec<CounterHandle> =
            labels.iter().map(|[a, b, c]| COUNTER.with([a, b, c])).collect();
        each(PASSES, &counters, |counter| counter.inc())
    };
    std::thread::scope(|scope| scope.spawn(measure).join().unwrap())
}

/// Histograms without exemplars and with, of a few label sets: of one alone each observation would wait for the one before.
/// Both are given the trace, so that the difference is the exemplar.
fn exemplars() -> (f64, f64) {
    let sets: Vec<String> = (0..8).map(|set| set.to_string()).collect();
    let of = |family: &'static HistogramVec<1>| -> Vec<(HistogramHandle, f64, TraceId, SpanId)> {
        let handles = sets.iter().cycle().map(|set| family.with([set]));
        handles
            .zip(values())
            .map(|(one, value)| (one, value, TraceId([7; 16]), SpanId([7; 8])))
            .collect()
    };
    let plain = each(PASSES, &of(&PLAIN), |(one, value, trace, span)| {
        black_box((trace, span));
        one.observe(*value);
    });
    let exemplar = each(PASSES, &of(&EXEMPLARS), |(one, value, trace, span)| {
        black_box((trace, span));
        one.observe_with_exemplar(*value, *trace, *span);
    });
    (plain, exemplar)
}

/// The order in which sets are used.
fn scattered() -> impl Iterator<Item = usize> {
    (0..SETS).map(|number| number * 7 % SETS)
}

fn labels() -> Vec<[String; 3]> {
    let text =
        |at: usize| [format!("method{}", at % 5), format!("/a/route/{}", at / 5), "200".to_owned()];
    scattered().map(text).collect()
}

fn values() -> impl Iterator<Item = f64> {
    (0..SETS).map(|number| BOUNDS[number % BOUNDS.len()] * 0.9)
}

/// The same label sets in the crates that are measured against.
struct Others {
    family: prometheus::IntCounterVec,
    counters: Vec<prometheus::IntCounter>,
    observers: Vec<(prometheus::Histogram, f64)>,
    clients: Vec<(prometheus_client::metrics::histogram::Histogram, f64)>,
}

impl Others {
    fn new(labels: &[[String; 3]]) -> Self {
        let names = &["a", "b", "c"];
        let family =
            prometheus::IntCounterVec::new(prometheus::Opts::new("x", "X."), names).unwrap();
        let options = prometheus::HistogramOpts::new("y", "Y.").buckets(BOUNDS.to_vec());
        let histograms = prometheus::HistogramVec::new(options, names).unwrap();
        let registry = metrics_util::registry::Registry::atomic();
        metrics::set_global_recorder(Recorder(registry)).unwrap();
        Self {
            counters: labels.iter().map(|[a, b, c]| family.with_label_values(&[a, b, c])).collect(),
            family,
            observers: labels
                .iter()
                .map(|[a, b, c]| histograms.with_label_values(&[a, b, c]))
                .zip(values())
                .collect(),
            clients: values()
                .map(|value| (prometheus_client::metrics::histogram::Histogram::new(BOUNDS), value))
                .collect(),
        }
    }
}

/// What every exporter of the metrics crate does with a counter: looks it up in the registry of that crate's utilities.
struct Recorder(
    metrics_util::registry::Registry<metrics::Key, metrics_util::registry::AtomicStorage>,
);

impl metrics::Recorder for Recorder {
    fn describe_counter(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn describe_gauge(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn describe_histogram(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        self.0.get_or_create_counter(key, |counter| std::sync::Arc::clone(counter).into())
    }

    fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        self.0.get_or_create_gauge(key, |gauge| std::sync::Arc::clone(gauge).into())
    }

    fn register_histogram(
        &self,
        key: &metrics::Key,
        _: &metrics::Metadata<'_>,
    ) -> metrics::Histogram {
        self.0.get_or_create_histogram(key, |histogram| std::sync::Arc::clone(histogram).into())
    }
}

//! The figures of slot files as ratios, each formed inside one round, so that they hold on any machine.
//!
//! `cargo bench -p saola-observability --bench ratios`; with `-- --check` it exits with 1 if a goal is missed.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a program that measures and prints"
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use nix::time::{ClockId, clock_gettime};
use saola_observability::exposition::{self, Format};
use saola_observability::metrics::{
    CounterHandle, CounterVec, Histogram, HistogramHandle, HistogramVec,
};
use saola_observability::reader::{Families, Reader};
use saola_observability::rings::Rings;
use saola_observability::{
    Begin, Choice, End, Epoch, Kind, Method, Outcome, Protocol, RingName, RunDir, Sampling, Shape,
    Slot, SpanId, Stage, TraceId,
};

const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const ROUNDS: usize = 7;
const SETS: usize = 200;
const TURNS: u32 = 200_000;

static COUNTER: CounterVec<3> = CounterVec::new("bench_total", "Counts.", ["a", "b", "c"]);
static HISTOGRAM: HistogramVec<3> =
    HistogramVec::new("bench_seconds", "Times.", ["a", "b", "c"], &BOUNDS);
static EXEMPLARS: Histogram =
    Histogram::new("bench_exemplar_seconds", "Times.", &BOUNDS).exemplars();
static PLAIN: Histogram = Histogram::new("bench_plain_seconds", "Times.", &BOUNDS);

/// A line of the table: what, against what, and the bound of the ratio.
struct Goal {
    id: &'static str,
    what: &'static str,
    bound: f64,
    is_at_most: bool,
    ratios: Vec<f64>,
}

fn main() -> ExitCode {
    let is_check = std::env::args().any(|argument| argument == "--check");
    let folder = tempfile::Builder::new().prefix("saola-bench").tempdir_in("/dev/shm").unwrap();
    let choice = Choice {
        given: Some(folder.path().join("run")),
        runtime_directory: None,
        xdg_runtime_dir: None,
        name: String::new(),
        slots_at_peak: 8,
        shape: Shape::default(),
    };
    let mut run_dir = RunDir::choose(&choice).unwrap().dir;
    run_dir.lock("bench").unwrap();
    let mut epoch = Epoch::create(&run_dir, Shape::default()).unwrap();
    epoch.publish().unwrap();
    let slot = Slot::attach(epoch.open_worker(0, 1).unwrap()).unwrap();
    let mut goals = hot_path(slot, run_dir.path());
    goals.extend(scrapes(run_dir.path()));
    let mut is_met = true;
    println!("{:<5} {:<68} {:>8} {:>9}", "id", "what", "goal", "measured");
    for goal in &mut goals {
        goal.ratios.sort_by(f64::total_cmp);
        let median = goal.ratios[goal.ratios.len() / 2];
        let is_kept = if goal.is_at_most { median <= goal.bound } else { median >= goal.bound };
        is_met &= is_kept;
        let (sign, verdict) =
            (if goal.is_at_most { "≤" } else { "≥" }, if is_kept { "met" } else { "MISSED" });
        println!(
            "{:<5} {:<68} {sign} {:>6.2} {median:>9.2}  {verdict}",
            goal.id, goal.what, goal.bound
        );
    }
    if is_check && !is_met { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn thread_ns() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64
}

/// CPU nanoseconds of one turn.
fn time(turns: u32, mut turn: impl FnMut(usize)) -> f64 {
    let start = thread_ns();
    for number in 0..turns {
        turn(usize::try_from(number).unwrap());
    }
    (thread_ns() - start) / f64::from(turns)
}

fn labels() -> Vec<[String; 3]> {
    let text =
        |at: usize| [format!("method{}", at % 5), format!("/a/route/{}", at / 5), "200".to_owned()];
    (0..SETS).map(text).collect()
}

fn goal(id: &'static str, what: &'static str, bound: f64, is_at_most: bool) -> Goal {
    Goal { id, what, bound, is_at_most, ratios: Vec::new() }
}

fn hot_path(slot: &'static Slot, run_dir: &std::path::Path) -> Vec<Goal> {
    let mut rings = Rings::open(run_dir).unwrap();
    let mut machine = Vec::new();
    let labels = labels();
    let cells: Vec<AtomicU64> = (0..SETS * 8).map(|_| AtomicU64::new(0)).collect();
    let (counters, histograms) = handles(&labels);
    let (theirs, their_counters, their_observers, client) = others(&labels);
    let mut goals = hot_goals();
    for _ in 0..ROUNDS {
        let base = time(TURNS, |number| {
            let cell = black_box(&cells[at(number) * 8]);
            cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
        });
        let xadd = time(TURNS, |number| {
            black_box(&cells[at(number) * 8]).fetch_add(1, Relaxed);
        });
        let inc = time(TURNS, |number| black_box(&counters[at(number)]).inc());
        let their_inc = time(TURNS, |number| black_box(&their_counters[at(number)]).inc());
        let foreign = foreign_ns(&counters);
        let observe =
            time(TURNS, |number| black_box(&histograms[at(number)]).observe(value(number)));
        let their_observe =
            time(TURNS, |number| black_box(&their_observers[at(number)]).observe(value(number)));
        let client_observe =
            time(TURNS, |number| black_box(&client[at(number)]).observe(value(number)));
        let with = time(TURNS, |number| {
            let [a, b, c] = black_box(&labels[at(number)]);
            COUNTER.with([a, b, c]).inc();
        });
        let their_with = time(TURNS, |number| {
            let [a, b, c] = black_box(&labels[at(number)]);
            theirs.with_label_values(&[a, b, c]).inc();
        });
        let plain = time(TURNS, |number| black_box(&PLAIN).observe(value(number)));
        let exemplar = exemplar_ns();
        let request = request_ns(slot, &mut rings);
        machine.push(xadd / base);
        let round = [
            inc / base,
            their_inc / inc,
            foreign / xadd,
            observe / base,
            their_observe / observe,
            client_observe / observe,
            their_with / with,
            (exemplar - plain) / base,
            request / xadd,
        ];
        for (goal, ratio) in goals.iter_mut().zip(round) {
            goal.ratios.push(ratio);
        }
        println!(
            "ns: load+store {base:.2}  xadd {xadd:.2}  inc {inc:.2}  observe {observe:.2}  with+inc {with:.1}  \
             exemplar +{:.2}  begin+end {request:.0}",
            exemplar - plain
        );
    }
    print_machine(machine);
    goals
}

fn exemplar_ns() -> f64 {
    time(TURNS, |number| {
        let (trace, span) = black_box((TraceId([7; 16]), SpanId([7; 8])));
        black_box(&EXEMPLARS).observe_with_exemplar(value(number), trace, span);
    })
}

#[inline]
fn value(number: usize) -> f64 {
    black_box(BOUNDS[number % 11] * 0.9)
}

/// Begin and end of a request whose record is stored: a full ring would be measured without the record.
fn request_ns(slot: &'static Slot, rings: &mut Rings) -> f64 {
    let request = time(TURNS / 4, |number| {
        if number.is_multiple_of(1_000) {
            empty(rings);
        }
        one_request(slot);
    });
    let dropped: u64 = rings.slots().iter().map(|slot| slot.dropped(Kind::Request)).sum();
    assert_eq!(dropped, 0, "the ring was full");
    request
}

fn print_machine(mut ratios: Vec<f64>) {
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!(
        "this machine: lock xadd : load + store = {median:.1}; what F77 to F79 can be faster than a crate that"
    );
    println!("adds atomically is bounded by it");
}

/// Does what the observer does with its cursors.
fn empty(rings: &mut Rings) {
    for slot in rings.slots() {
        for stage in [Stage::Log, Stage::Otlp] {
            slot.commit(RingName::Owner, stage, slot.head(RingName::Owner));
        }
    }
}

fn handles(labels: &[[String; 3]]) -> (Vec<CounterHandle>, Vec<HistogramHandle>) {
    let counters = labels.iter().map(|[a, b, c]| COUNTER.with([a, b, c]));
    let histograms = labels.iter().map(|[a, b, c]| HISTOGRAM.with([a, b, c]));
    (counters.collect(), histograms.collect())
}

fn hot_goals() -> Vec<Goal> {
    vec![
        goal("F77", "counter inc, resolved : load + store", 1.2, true),
        goal("F77", "prometheus IntCounter inc : counter inc", 8.0, false),
        goal("F78", "inc from a foreign thread : lock xadd", 1.25, true),
        goal("F79", "observe : load + store", 6.0, true),
        goal("F79", "prometheus observe : observe", 5.0, false),
        goal("F79", "prometheus-client observe : observe", 3.0, false),
        goal("F80", "prometheus with_label_values + inc : with + inc", 1.0, false),
        goal("F81", "(exemplar - none) : load + store", 4.5, true),
        goal("F82", "begin + end with a record of about 240 B : lock xadd", 25.0, true),
    ]
}

type Others = (
    prometheus::IntCounterVec,
    Vec<prometheus::IntCounter>,
    Vec<prometheus::Histogram>,
    Vec<prometheus_client::metrics::histogram::Histogram>,
);

/// The same label sets in the crates that are measured against.
fn others(labels: &[[String; 3]]) -> Others {
    let names = &["a", "b", "c"];
    let theirs = prometheus::IntCounterVec::new(prometheus::Opts::new("x", "X."), names).unwrap();
    let options = prometheus::HistogramOpts::new("y", "Y.").buckets(BOUNDS.to_vec());
    let their_histograms = prometheus::HistogramVec::new(options, names).unwrap();
    let their_counters: Vec<_> =
        labels.iter().map(|[a, b, c]| theirs.with_label_values(&[a, b, c])).collect();
    let their_observers: Vec<_> =
        labels.iter().map(|[a, b, c]| their_histograms.with_label_values(&[a, b, c])).collect();
    let client: Vec<_> = labels
        .iter()
        .map(|_| prometheus_client::metrics::histogram::Histogram::new(BOUNDS))
        .collect();
    (theirs, their_counters, their_observers, client)
}

fn at(number: usize) -> usize {
    number.wrapping_mul(7) % SETS
}

/// An increment from a thread that does not own the slot.
fn foreign_ns(counters: &[CounterHandle]) -> f64 {
    std::thread::scope(|scope| {
        let inc = || time(TURNS, |number| black_box(&counters[at(number)]).inc());
        scope.spawn(inc).join().unwrap()
    })
}

fn one_request(slot: &'static Slot) {
    let begin = Begin {
        method: Method::Get,
        protocol: Protocol::Http11,
        start_ns: 1_000,
        start_wall_ns: 1_700_000_000_000_000_000,
        trace: TraceId([7; 16]),
        span: SpanId([8; 8]),
        parent: SpanId::NONE,
        remote_parent: false,
        sampled: true,
        client: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        client_port: 40_000,
        request_id: "0123456789abcdef",
        path: "/api/articles/how-to-train",
    };
    let mut request = slot.in_flight().begin(black_box(&begin));
    request.set_route("/api/articles/{slug}");
    request.end(black_box(&End {
        end_ns: 2_000_000,
        outcome: Outcome::Ok,
        status: Some(200),
        request_bytes: 0,
        response_bytes: 512,
        sampling: Sampling::Ratio,
        exception: None,
        path: "/api/articles/how-to-train",
        method_text: "",
        user_agent: b"Mozilla/5.0 (X11; Linux x86_64)",
        server_address: "localhost",
        server_port: 80,
        tracestate: "",
        request_id: "0123456789abcdef",
    }));
}

/// As many series in one process of the crate that is measured against.
fn registry() -> prometheus::Registry {
    let registry = prometheus::Registry::new();
    let options = prometheus::HistogramOpts::new("y", "Y.").buckets(BOUNDS.to_vec());
    let theirs = prometheus::HistogramVec::new(options, &["a", "b", "c"]).unwrap();
    registry.register(Box::new(theirs.clone())).unwrap();
    for at in 0..SERIES + SETS {
        theirs.with_label_values(&["GET", &format!("value-{at}"), "200"]).observe(0.3);
    }
    registry
}

/// Lines of the scrape that is measured, a slot.
const SERIES: usize = 700;

fn scrape_goals() -> Vec<Goal> {
    vec![
        goal("F83", "warm scrape : reading all cells + copying ready text + itoa", 4.0, true),
        goal("F83", "prometheus gathering and encoding one process : warm scrape", 1.0, false),
        goal("F84", "cold scrape : the same limit", 30.0, true),
    ]
}

fn scrapes(run_dir: &std::path::Path) -> Vec<Goal> {
    for at in 0..SERIES {
        let label = format!("value-{at}");
        HISTOGRAM.with(["GET", label.as_str(), "200"]).observe(0.3);
        COUNTER.with(["GET", label.as_str(), "200"]).inc();
    }
    let mut reader = Reader::open(run_dir).unwrap();
    let mut text = Vec::new();
    exposition::text_into(reader.read().unwrap(), Format::Text, &mut text);
    let ready = String::from_utf8(text.clone()).unwrap();
    let lines: Vec<(String, u64)> = ready
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(head, value)| (format!("{head} "), value.parse().unwrap_or(7)))
        .collect();
    println!("{} lines in the scrape", lines.len());
    let registry = registry();
    let mut goals = scrape_goals();
    for _ in 0..ROUNDS {
        let mut out = Vec::new();
        let cells: Vec<AtomicU64> = lines.iter().map(|(_, value)| AtomicU64::new(*value)).collect();
        let limit = time(10, |_| {
            out.clear();
            for ((head, _), cell) in black_box(&lines).iter().zip(&cells) {
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(itoa::Buffer::new().format(cell.load(Relaxed)).as_bytes());
                out.push(b'\n');
            }
            black_box(&out);
        });
        let warm = time(10, |_| {
            let families: &Families = reader.read().unwrap();
            exposition::text_into(families, Format::Text, &mut text);
            black_box(&text);
        });
        let cold = time(2, |_| {
            let mut reader = Reader::open(run_dir).unwrap();
            black_box(exposition::text(reader.read().unwrap(), Format::Text));
        });
        let gathered = time(2, |_| {
            use prometheus::Encoder;
            let mut out = Vec::new();
            prometheus::TextEncoder::new().encode(&registry.gather(), &mut out).unwrap();
            black_box(out);
        });
        println!(
            "µs: limit {:.0}  warm {:.0}  cold {:.0}  prometheus {:.0}",
            limit / 1e3,
            warm / 1e3,
            cold / 1e3,
            gathered / 1e3
        );
        for (goal, ratio) in goals.iter_mut().zip([warm / limit, gathered / warm, cold / limit]) {
            goal.ratios.push(ratio);
        }
    }
    goals
}

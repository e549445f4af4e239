//! What came back: counted while it comes, summed up at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::json;

use crate::load::mix::KINDS;

/// One request that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) kind: usize,
    /// The status, or why there is none.
    pub(crate) status: Result<u16, String>,
    /// From the instant when it was due.
    pub(crate) latency: Duration,
    pub(crate) is_expected: bool,
}

/// All requests of a run.
pub(crate) struct Report {
    kinds: BTreeMap<usize, Sums>,
    all: Sums,
    sent: u64,
    skipped: u64,
    /// With those that prepared the run and cleaned up after it.
    requests: u64,
    elapsed: Duration,
    failures: BTreeMap<String, u64>,
}

#[derive(Clone)]
struct Sums {
    statuses: BTreeMap<u16, u64>,
    failed: u64,
    unexpected: u64,
    latency: Histogram<u64>,
}

impl Sums {
    fn new() -> Option<Self> {
        // Microseconds up to ten minutes, to three digits.
        let latency = Histogram::new_with_bounds(1, 600_000_000, 3).ok()?;
        Some(Self { statuses: BTreeMap::new(), failed: 0, unexpected: 0, latency })
    }

    fn add(&mut self, ended: &Ended) {
        match &ended.status {
            Ok(status) => *self.statuses.entry(*status).or_default() += 1,
            Err(_) => self.failed += 1,
        }
        self.unexpected += u64::from(!ended.is_expected);
        self.latency
            .saturating_record(u64::try_from(ended.latency.as_micros()).unwrap_or(u64::MAX));
    }

    fn class(&self, hundreds: u16) -> u64 {
        self.statuses.range(hundreds * 100..hundreds * 100 + 100).map(|(_, count)| count).sum()
    }

    fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(quantile))
    }

    fn ended(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.failed
    }
}

impl Report {
    pub(crate) fn new() -> Option<Self> {
        Some(Self {
            kinds: BTreeMap::new(),
            all: Sums::new()?,
            sent: 0,
            skipped: 0,
            requests: 0,
            elapsed: Duration::ZERO,
            failures: BTreeMap::new(),
        })
    }

    pub(crate) fn sent(&mut self) {
        self.sent += 1;
    }

    pub(crate) fn skipped(&mut self) {
        self.skipped += 1;
    }

    /// Counts what is not answered yet as failed.
    pub(crate) fn give_up(&mut self) {
        let unanswered = self.in_flight();
        if unanswered > 0 {
            self.all.failed += unanswered;
            self.all.unexpected += unanswered;
            self.failures.insert("no answer when the run had ended".to_owned(), unanswered);
        }
    }

    pub(crate) fn set_requests(&mut self, requests: u64) {
        self.requests = requests;
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.sent.saturating_sub(self.all.ended())
    }

    pub(crate) fn set_elapsed(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
    }

    pub(crate) fn add(&mut self, ended: &Ended) {
        self.all.add(ended);
        if let Err(why) = &ended.status {
            *self.failures.entry(why.clone()).or_default() += 1;
        }
        if let Some(mut sums) = self.kinds.remove(&ended.kind).or_else(Sums::new) {
            sums.add(ended);
            self.kinds.insert(ended.kind, sums);
        }
    }

    /// Whether every request got one of the statuses that its kind expects.
    pub(crate) fn is_as_expected(&self) -> bool {
        self.all.unexpected == 0
    }

    /// One line about the run so far.
    pub(crate) fn progress(&self, elapsed: Duration) -> String {
        format!(
            "sent={} rate={:.1}/s 2xx={} 4xx={} 5xx={} failed={} skipped={} in_flight={} p50={} p99={}",
            self.sent,
            per_second(self.sent, elapsed),
            self.all.class(2),
            self.all.class(4),
            self.all.class(5),
            self.all.failed,
            self.skipped,
            self.in_flight(),
            milliseconds(self.all.quantile(0.5)),
            milliseconds(self.all.quantile(0.99)),
        )
    }

    /// The summary for people: a row a kind and one for all.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<26} {:>7} {:>7} {:>7} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9}\n",
            "request", "ended", "2xx", "4xx", "5xx", "failed", "p50", "p95", "p99", "max"
        );
        for (kind, sums) in &self.kinds {
            row(&mut text, name(*kind), sums);
        }
        row(&mut text, "all", &self.all);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "sent {} in {:.1} s ({:.1}/s), skipped {}, unexpected {}",
            self.sent,
            self.elapsed.as_secs_f64(),
            per_second(self.sent, self.elapsed),
            self.skipped,
            self.all.unexpected
        );
        for (why, count) in &self.failures {
            let _ = writeln!(text, "failed {count}: {why}");
        }
        text
    }

    /// The summary for programs.
    pub(crate) fn json(&self) -> String {
        let kinds: Vec<_> =
            self.kinds.iter().map(|(kind, sums)| object(name(*kind), sums)).collect();
        let document = json!({
            "sent": self.sent,
            "skipped": self.skipped,
            "requests": self.requests,
            "unexpected": self.all.unexpected,
            "seconds": self.elapsed.as_secs_f64(),
            "rate": per_second(self.sent, self.elapsed),
            "all": object("all", &self.all),
            "kinds": kinds,
            "failures": self.failures,
        });
        format!("{document}\n")
    }
}

fn name(kind: usize) -> &'static str {
    KINDS.get(kind).map_or("?", |kind| kind.name)
}

fn row(text: &mut String, name: &str, sums: &Sums) {
    let quantile = |quantile| milliseconds(sums.quantile(quantile));
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{name:<26} {:>7} {:>7} {:>7} {:>7} {:>7} {:>9} {:>9} {:>9} {:>9}",
        sums.ended(),
        sums.class(2),
        sums.class(4),
        sums.class(5),
        sums.failed,
        quantile(0.5),
        quantile(0.95),
        quantile(0.99),
        quantile(1.0),
    );
}

fn object(name: &str, sums: &Sums) -> serde_json::Value {
    let quantile = |quantile| sums.quantile(quantile).as_secs_f64();
    json!({
        "request": name,
        "ended": sums.ended(),
        "failed": sums.failed,
        "unexpected": sums.unexpected,
        "statuses": sums.statuses,
        "p50_seconds": quantile(0.5),
        "p95_seconds": quantile(0.95),
        "p99_seconds": quantile(0.99),
        "max_seconds": quantile(1.0),
    })
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1_000.0;
    if milliseconds < 10.0 {
        format!("{milliseconds:.1}ms")
    } else {
        format!("{milliseconds:.0}ms")
    }
}

//! What is shown: the difference of two moments, as numbers and as texts.

use std::time::Duration;

use saola_observability::closed::SlotState;
use saola_observability::reader::{Durations, SlotRead};

use crate::status::{Dropped, Status, seconds};

/// A server over the last interval.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Picture {
    pub(super) service: String,
    pub(super) version: String,
    pub(super) generation: u64,
    pub(super) uptime: Duration,
    pub(super) up: usize,
    pub(super) configured: u64,
    pub(super) is_degraded: bool,
    pub(super) rates: Option<Rates>,
    pub(super) rows: Vec<Row>,
    /// Requests being served, oldest first.
    pub(super) running: Vec<Running>,
    pub(super) dropped: Vec<Dropped>,
    pub(super) spans_exported: u64,
}

/// What happened in an interval.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(super) struct Rates {
    pub(super) requests: f64,
    pub(super) errors: f64,
    /// In seconds; none without requests.
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// A worker slot.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Row {
    pub(super) slot: u32,
    pub(super) pid: Option<u32>,
    pub(super) state: SlotState,
    pub(super) generation: u64,
    pub(super) since: Duration,
    pub(super) rates: Option<Rates>,
    pub(super) in_flight: usize,
    pub(super) lag: Duration,
    /// Share of the last second that its loop was busy.
    pub(super) busy: f64,
    /// Share of one core.
    pub(super) cpu: Option<f64>,
    /// In bytes.
    pub(super) memory: Option<f64>,
    pub(super) restarts: u64,
    pub(super) connections: u64,
    pub(super) accepted: u64,
}

/// A request being served.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Running {
    pub(super) age: Duration,
    pub(super) method: &'static str,
    pub(super) route: String,
    pub(super) worker: u32,
    pub(super) trace: String,
}

impl Picture {
    /// The server now, and what it did since `before`; without that nothing is known of rates.
    pub(super) fn between(before: Option<&Status>, now: &Status) -> Self {
        let interval = before.map(|before| seconds(now.at_ns.saturating_sub(before.at_ns)));
        let errors = |status: &Status| status.slots.iter().map(|slot| slot.errors).sum::<u64>();
        let rates = before.zip(interval).map(|(before, interval)| {
            let durations = now.durations().since(&before.durations());
            Rates::of(&durations, errors(now).saturating_sub(errors(before)), interval)
        });
        let wanted = |slot: &&SlotRead| slot.is_live || u64::from(slot.number) < now.configured;
        let rows = now.slots.iter().filter(wanted).map(|slot| {
            let before = before
                .and_then(|before| before.slots.iter().find(|other| other.number == slot.number));
            Row::of(slot, before.zip(interval), now.wall_ns)
        });
        let mut running: Vec<_> =
            now.slots.iter().flat_map(|slot| Running::of(slot, now.at_ns)).collect();
        running.sort_by_key(|running| std::cmp::Reverse(running.age));
        Self {
            service: now.service.clone(),
            version: now.version.clone(),
            generation: now.generation,
            uptime: now.uptime,
            up: now.up(),
            configured: now.configured,
            is_degraded: now.is_degraded,
            rates,
            rows: rows.collect(),
            running,
            dropped: now.dropped.clone(),
            spans_exported: now.spans_exported,
        }
    }

    /// Two lines: who it is, and how it does.
    pub(super) fn head(&self) -> [String; 2] {
        let who = format!(
            "{} {}  generation {}  up {}  workers {}/{}",
            self.service,
            self.version,
            self.generation,
            time(self.uptime),
            self.up,
            self.configured,
        );
        let in_flight: usize = self.rows.iter().map(|row| row.in_flight).sum();
        let how = format!(
            "{} req/s  {} errors/s  p50 {} ms  p99 {} ms  {in_flight} in flight",
            rate(self.rates.map(|rates| rates.requests)),
            rate(self.rates.map(|rates| rates.errors)),
            milliseconds(self.rates.and_then(|rates| rates.p50)),
            milliseconds(self.rates.and_then(|rates| rates.p99)),
        );
        [who, how]
    }

    /// What did not come out, and what did, if anything.
    pub(super) fn telemetry(&self) -> Option<String> {
        let mut parts: Vec<_> = self
            .dropped
            .iter()
            .map(|lost| format!("{} {} {}", lost.what, lost.why, lost.count))
            .collect();
        if !parts.is_empty() {
            parts = vec![format!("dropped: {}", parts.join(", "))];
        }
        if self.spans_exported > 0 {
            parts.push(format!("spans exported: {}", self.spans_exported));
        }
        (!parts.is_empty()).then(|| parts.join("  "))
    }
}

impl Rates {
    fn of(durations: &Durations, errors: u64, interval: f64) -> Self {
        Self {
            requests: per(durations.count(), interval),
            errors: per(errors, interval),
            p50: durations.quantile(0.5),
            p99: durations.quantile(0.99),
        }
    }
}

impl Row {
    fn of(slot: &SlotRead, before: Option<(&SlotRead, f64)>, wall_ns: u64) -> Self {
        let seen = &slot.seen;
        let rates = before.map(|(before, interval)| {
            let durations = slot.durations.since(&before.durations);
            Rates::of(&durations, slot.errors.saturating_sub(before.errors), interval)
        });
        // Of another owner the time is another's.
        let same = before.filter(|(before, _)| before.seen.births == seen.births);
        let cpu = same.and_then(|(before, interval)| {
            let spent = slot.cpu_seconds? - before.cpu_seconds?;
            (interval > 0.0).then(|| spent.max(0.0) / interval)
        });
        Self {
            slot: slot.number,
            pid: slot.is_live.then_some(seen.pid),
            state: if slot.is_live { seen.state } else { SlotState::Free },
            generation: seen.generation,
            since: Duration::from_nanos(wall_ns.saturating_sub(seen.since_wall_ns)),
            rates,
            in_flight: slot.in_flight.len(),
            lag: Duration::from_nanos(seen.loop_lag_ns),
            busy: seconds(seen.loop_busy_ns),
            cpu,
            memory: slot.resident_bytes,
            restarts: seen.births.saturating_sub(1),
            connections: seen.connections,
            accepted: seen.accepted,
        }
    }

    /// Its cells, in the order of [`COLUMNS`].
    pub(super) fn cells(&self) -> [String; COLUMNS.len()] {
        [
            self.slot.to_string(),
            self.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            self.state.as_str().to_owned(),
            rate(self.rates.map(|rates| rates.requests)),
            milliseconds(self.rates.and_then(|rates| rates.p50)),
            milliseconds(self.rates.and_then(|rates| rates.p99)),
            self.in_flight.to_string(),
            format!("{:.1}", self.lag.as_secs_f64() * 1_000.0),
            self.cpu.map_or_else(|| "-".to_owned(), |share| format!("{:.1}", share * 100.0)),
            self.memory.map_or_else(|| "-".to_owned(), bytes),
            self.restarts.to_string(),
        ]
    }
}

impl Running {
    fn of(slot: &SlotRead, now_ns: u64) -> impl Iterator<Item = Self> {
        slot.in_flight.iter().map(move |entry| Self {
            age: Duration::from_nanos(now_ns.saturating_sub(entry.start_ns)),
            method: entry.method.as_str(),
            route: entry.route.clone(),
            worker: slot.number,
            trace: entry.trace.to_string(),
        })
    }

    /// Its cells: age, method, route, worker, trace.
    pub(super) fn cells(&self) -> [String; 5] {
        let method = self.method.to_owned();
        [time(self.age), method, self.route.clone(), self.worker.to_string(), self.trace.clone()]
    }
}

/// What stands over the cells of a row, and how wide they are at least.
pub(super) const COLUMNS: [(&str, u16); 11] = [
    ("SLOT", 4),
    ("PID", 7),
    ("STATE", 8),
    ("REQ/S", 7),
    ("P50 ms", 6),
    ("P99 ms", 6),
    ("RUN", 5),
    ("LAG ms", 6),
    ("CPU%", 6),
    ("MEM", 6),
    ("RST", 4),
];
/// The same of running requests; the route takes the room that is left.
pub(super) const RUNNING: [&str; 5] = ["AGE", "METHOD", "ROUTE", "WORKER", "TRACE"];

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a rate is for people")]
fn per(count: u64, interval: f64) -> f64 {
    if interval > 0.0 { count as f64 / interval } else { 0.0 }
}

fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}"),
        Some(rate) if rate < 10_000.0 => format!("{rate:.0}"),
        Some(rate) => format!("{:.1}k", rate / 1_000.0),
    }
}

/// The buckets say no more of what is below the first bound or above the last.
fn milliseconds(seconds: Option<f64>) -> String {
    let [first, .., last] = Durations::BOUNDS;
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds <= first => format!("<{}", first * 1_000.0),
        Some(seconds) if seconds >= last => format!(">{}", last * 1_000.0),
        Some(seconds) if seconds < 0.01 => format!("{:.1}", seconds * 1_000.0),
        Some(seconds) => format!("{:.0}", seconds * 1_000.0),
    }
}

fn bytes(bytes: f64) -> String {
    const MEBI: f64 = 1_048_576.0;
    if bytes < 1_024.0 * MEBI {
        format!("{:.1}M", bytes / MEBI)
    } else {
        format!("{:.2}G", bytes / MEBI / 1_024.0)
    }
}

pub(super) fn time(time: Duration) -> String {
    let (seconds, milliseconds) = (time.as_secs(), time.as_millis());
    match seconds {
        0 => format!("{milliseconds}ms"),
        1..60 => format!("{:.1}s", time.as_secs_f64()),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_say_no_more_than_is_known() {
        for (seconds, text) in
            [(0.002, "<5"), (0.0075, "7.5"), (0.25, "250"), (2.5, "2500"), (10.0, ">10000")]
        {
            assert_eq!(milliseconds(Some(seconds)), text);
        }
        assert_eq!(
            [None, Some(0.0), Some(0.25), Some(812.4), Some(43_210.0)].map(rate),
            ["-", "0", "0.2", "812", "43.2k"]
        );
        assert_eq!([12.34 * 1_048_576.0, 3.0e9].map(bytes), ["12.3M", "2.79G"]);
        assert_eq!(
            [850, 12_340, 252_000, 7_500_000, 93_600_000].map(|ms| time(Duration::from_millis(ms))),
            ["850ms", "12.3s", "4m12s", "2h05m", "1d02h"]
        );
    }
}

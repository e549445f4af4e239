//! What a server is at one moment, by its slot files alone: for `/status` and for `saola top`.

use std::time::Duration;

use saola_observability::closed::SlotState;
use saola_observability::reader::{Durations, Families, FamilyRead, ReadError, Reader, SlotRead};
use saola_observability::{clock, names};
use serde_json::{Map, Value, json};

/// A server at one moment. What is counted is counted since it began.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// Monotonic nanoseconds.
    pub(crate) at_ns: u64,
    pub(crate) wall_ns: u64,
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) generation: u64,
    /// Since the supervisor was started, through all epochs and upgrades.
    pub(crate) uptime: Duration,
    pub(crate) configured: u64,
    pub(crate) is_degraded: bool,
    pub(crate) slots: Vec<SlotRead>,
    pub(crate) dropped: Vec<Dropped>,
    pub(crate) spans_exported: u64,
}

/// Telemetry that did not come out.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct Dropped {
    pub(crate) what: &'static str,
    pub(crate) why: String,
    pub(crate) count: u64,
}

impl Status {
    /// Reads all files now.
    pub(crate) fn read(reader: &mut Reader, service: &str) -> Result<Self, ReadError> {
        reader.read()?;
        let slots = reader.slots();
        let families = reader.families();
        let (at_ns, wall_ns) = (clock::monotonic_ns(), clock::wall_ns());
        let since = started_wall_ns(families).unwrap_or(wall_ns);
        Ok(Self {
            at_ns,
            wall_ns,
            service: service.to_owned(),
            version: families.version().unwrap_or_default().to_owned(),
            generation: slots.iter().map(|slot| slot.seen.generation).max().unwrap_or(0),
            uptime: Duration::from_nanos(wall_ns.saturating_sub(since)),
            configured: sum(families, names::SAOLA_WORKERS_CONFIGURED),
            is_degraded: sum(families, names::SAOLA_DEGRADED) > 0,
            slots,
            dropped: dropped(families),
            spans_exported: sum(families, names::SAOLA_SPANS_EXPORTED),
        })
    }

    /// Workers that are ready to serve.
    pub(crate) fn up(&self) -> usize {
        let ready = |slot: &&SlotRead| slot.is_live && slot.seen.state == SlotState::Ready;
        self.slots.iter().filter(ready).count()
    }

    /// The requests of all slots, by duration.
    pub(crate) fn durations(&self) -> Durations {
        let all = self.slots.iter().map(|slot| &slot.durations);
        all.fold(Durations::default(), |sum, durations| sum.plus(durations))
    }

    /// The document of `/status`; fields are only ever added to it.
    pub(crate) fn json(&self) -> Map<String, Value> {
        let workers: Vec<_> = self.slots.iter().map(|slot| self.worker(slot)).collect();
        let mut dropped = Map::new();
        for lost in &self.dropped {
            let of = dropped.entry(lost.what).or_insert_with(|| json!({}));
            of[&lost.why] = Value::from(lost.count);
        }
        let mut document = Map::new();
        for (key, value) in [
            ("schema", Value::from(1)),
            ("service", Value::from(self.service.as_str())),
            ("version", Value::from(self.version.as_str())),
            ("generation", Value::from(self.generation)),
            ("uptime_seconds", Value::from(self.uptime.as_secs_f64())),
            ("degraded", Value::from(self.is_degraded)),
            ("workers_configured", Value::from(self.configured)),
            ("workers_ready", Value::from(self.up())),
            ("spans_exported", Value::from(self.spans_exported)),
            ("dropped", Value::Object(dropped)),
            ("workers", Value::from(workers)),
        ] {
            document.insert(key.to_owned(), value);
        }
        document
    }

    fn worker(&self, slot: &SlotRead) -> Value {
        let seen = &slot.seen;
        let quantile_ms = |share| slot.durations.quantile(share).map(|seconds| seconds * 1_000.0);
        json!({
            "slot": slot.number,
            "pid": seen.pid,
            "state": seen.state.as_str(),
            "is_live": slot.is_live,
            "generation": seen.generation,
            "since_seconds": seconds(self.wall_ns.saturating_sub(seen.since_wall_ns)),
            "restarts": seen.births.saturating_sub(1),
            "in_flight": slot.in_flight.len(),
            "requests": slot.durations.count(),
            "errors": slot.errors,
            "p50_ms": quantile_ms(0.5),
            "p99_ms": quantile_ms(0.99),
            "lag_ms": seconds(seen.loop_lag_ns) * 1_000.0,
            "connections": seen.connections,
            "accepted": seen.accepted,
            "cpu_seconds": slot.cpu_seconds,
            "rss_bytes": slot.resident_bytes,
            "handler_ns": seen.handler_ns,
        })
    }
}

pub(crate) fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}

fn family<'f>(families: &'f Families, name: &str) -> Option<&'f FamilyRead> {
    families.list().iter().find(|family| family.name == name)
}

fn started_wall_ns(families: &Families) -> Option<u64> {
    let family = family(families, names::PROCESS_START_TIME)?;
    let supervisor =
        family.series.iter().find(|series| series.labels == "process=\"supervisor\"")?;
    Some(whole(supervisor.value.as_f64() * 1e9))
}

fn sum(families: &Families, name: &str) -> u64 {
    let series = family(families, name).into_iter().flat_map(|family| &family.series);
    whole(series.map(|series| series.value.as_f64()).sum())
}

/// What is not zero.
fn dropped(families: &Families) -> Vec<Dropped> {
    let mut dropped: Vec<Dropped> = Vec::new();
    for (name, what, label) in COUNTERS {
        for series in family(families, name).into_iter().flat_map(|family| &family.series) {
            let count = whole(series.value.as_f64());
            let why = series.label_pairs().into_iter().find(|(name, _)| name == label);
            let why = why.map(|(_, value)| value).unwrap_or_default();
            if count == 0 || why == "ok" {
                continue;
            }
            match dropped.iter_mut().find(|known| known.what == what && known.why == why) {
                Some(known) => known.count += count,
                None => dropped.push(Dropped { what, why, count }),
            }
        }
    }
    dropped
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts, to be shown; `as` saturates"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// Counters of what did not come out, how they are called here, and the label that says why.
const COUNTERS: [(&str, &str, &str); 6] = [
    (names::SAOLA_RECORDS_DROPPED, "records", "kind"),
    (names::SAOLA_LOG_LINES_DROPPED, "lines", "reason"),
    (names::SAOLA_SPANS_DROPPED, "spans", "reason"),
    (names::SAOLA_PROFILE_SAMPLES_DROPPED, "samples", "reason"),
    (names::SAOLA_PROFILE_PUSHES, "pushes", "result"),
    (names::SAOLA_METRICS_SERIES_DROPPED, "series", "reason"),
];

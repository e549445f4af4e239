//! The supervisor's own metrics. Only `events.rs` moves them.

use saola_observability::metrics::{
    Counter, CounterVec, Gauge, GaugeMode, GaugeVec, Histogram, register,
};
use saola_observability::names;

pub(super) static WORKERS_CONFIGURED: Gauge =
    Gauge::new(names::SAOLA_WORKERS_CONFIGURED, "Workers that there are to be.")
        .mode(GaugeMode::LiveMax);
pub(super) static GENERATION: Gauge =
    Gauge::new(names::SAOLA_GENERATION, "The generation of workers that serves.")
        .mode(GaugeMode::LiveMax);
pub(super) static DEGRADED: Gauge = Gauge::new(
    names::SAOLA_DEGRADED,
    "1 while workers are missing and their restarts are used up.",
)
.mode(GaugeMode::LiveMax);
pub(super) static RESTARTS: CounterVec<1> = CounterVec::new(
    names::SAOLA_WORKER_RESTARTS,
    "Workers that ended while the server went on.",
    ["reason"],
);
pub(super) static BOOT: Histogram = Histogram::new(
    names::SAOLA_WORKER_BOOT,
    "Time from the fork of a worker to its READY.",
    BOOT_SECONDS,
);
pub(super) static DRAIN: Histogram = Histogram::new(
    names::SAOLA_WORKER_DRAIN,
    "Time from the order to drain to the end of a worker.",
    DRAIN_SECONDS,
);
pub(super) static RELOADS: CounterVec<1> =
    CounterVec::new(names::SAOLA_RELOADS, "Reloads that have ended.", ["result"]);
pub(super) static UPGRADES: CounterVec<1> =
    CounterVec::new(names::SAOLA_UPGRADES, "Upgrades that have ended.", ["result"]);
pub(super) static ACCEPT_QUEUE_LENGTH: GaugeVec<1> = GaugeVec::new(
    names::SAOLA_ACCEPT_QUEUE_LENGTH,
    "Connections that wait on a listener.",
    ["listener"],
)
.mode(GaugeMode::LiveMax);
pub(super) static LISTEN_OVERFLOWS: Counter = Counter::new(
    names::SAOLA_LISTEN_OVERFLOWS,
    "Connections of this network namespace that found a full accept queue.",
);
pub(super) static ACCEPT_QUEUE_LIMIT: GaugeVec<1> = GaugeVec::new(
    names::SAOLA_ACCEPT_QUEUE_LIMIT,
    "Connections that may wait on a listener.",
    ["listener"],
)
.mode(GaugeMode::LiveMax);

/// How many connections wait on a listener.
pub(crate) fn queue(address: &str, length: u32) {
    ACCEPT_QUEUE_LENGTH.with([address]).set(length.into());
}

/// So many more connections have found a full queue.
pub(crate) fn overflowed(connections: u64) {
    LISTEN_OVERFLOWS.add(connections);
}

/// Makes all of them appear at 0, with every value of their closed labels.
pub(super) fn start() {
    register(&[&LISTEN_OVERFLOWS, &WORKERS_CONFIGURED, &GENERATION, &DEGRADED, &BOOT, &DRAIN]);
    for reason in ["crash", "timeout", "memory", "max_requests", "reload", "upgrade", "scale"] {
        RESTARTS.with([reason]).add(0);
    }
    for result in ["success", "error"] {
        RELOADS.with([result]).add(0);
        UPGRADES.with([result]).add(0);
    }
}

const BOOT_SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const DRAIN_SECONDS: &[f64] =
    &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0];

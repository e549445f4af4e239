//! Families that have no cells of their own: they are counted from the tables, headers and `/proc` at each read, so they
//! cannot drift and end with what they describe.

use rustc_hash::FxHashMap;

use crate::clock::monotonic_ns;
use crate::closed::{Method, Role, SlotState};
use crate::http_metrics::ACTIVE_HELP;
use crate::in_flight::ending::seconds;
use crate::keys::label_text;
use crate::layout::{
    BAD_RINGS_AT, RECORDS_DROPPED_AT, SHARED_DROPPED_AT, UNREADABLE_AT, UPDATES_CONFLICT_AT,
    UPDATES_INVALID_AT, UPDATES_LIMIT_AT, UPDATES_NO_SPACE_AT, long,
};
use crate::names;
use crate::reader::family::{FamilyRead, Shown};
use crate::reader::merge::Families;
use crate::reader::procfs;
use crate::reader::series::ValueRead;
use crate::record::Kind;
use crate::view::{Seen, View};

/// Reads them all, behind the families that have cells.
pub(crate) fn read(families: &mut Families, views: &[View], live: &[bool], damaged: usize) {
    active_requests(families, views, live);
    let workers: Vec<(&View, bool)> = views
        .iter()
        .zip(live.iter().copied())
        .filter(|(view, _)| view.role == Role::Worker)
        .collect();
    liveness(families, &workers);
    dropped_records(families, &workers);
    dropped_series(families, views);
    bad_slots(families, views, damaged);
    processes(families, views, live);
    build_info(families);
}

/// `saola_slots_bad`: what the files say by themselves, and what the observer has met in their rings (O20).
fn bad_slots(families: &mut Families, views: &[View], damaged: usize) {
    let is_bad = |view: &&View| {
        [BAD_RINGS_AT, BAD_RINGS_AT + 8].iter().any(|ring| view.map.load(*ring) != 0)
    };
    let count = damaged + views.iter().filter(is_bad).count();
    let help = "Slot files that cannot be read, or whose last record could not.";
    let family = families.derived(names::SAOLA_SLOTS_BAD, help, Shown::Gauge);
    family.push(String::new(), ValueRead::U64(long(count)));
}

/// `saola_build_info`: always 1. What stands behind `+` in a version (semver's build metadata) is the revision.
fn build_info(families: &mut Families) {
    let Some(version) = families.version.clone() else { return };
    let revision = version.split_once('+').map_or("unknown", |(_, revision)| revision);
    let labels = label_text(&["version", "revision"], &[&version, revision]);
    let help = "The build that serves: always 1.";
    let family = families.derived(names::SAOLA_BUILD_INFO, help, Shown::Gauge);
    family.push(labels, ValueRead::U64(1));
}

/// `http_server_active_requests`: running entries of living slots (F34).
fn active_requests(families: &mut Families, views: &[View], live: &[bool]) {
    let mut active: FxHashMap<(Method, String), u64> = FxHashMap::default();
    for (view, _) in views.iter().zip(live).filter(|(_, live)| **live) {
        for (method, route) in view.active() {
            *active.entry((method, view.string(route))).or_default() += 1;
        }
    }
    let mut active: Vec<_> = active.into_iter().collect();
    active.sort();
    let family = families.derived(names::HTTP_SERVER_ACTIVE_REQUESTS, ACTIVE_HELP, Shown::Gauge);
    for ((method, route), count) in active {
        let labels = label_text(&["http_request_method", "http_route"], &[method.as_str(), &route]);
        family.push(labels, ValueRead::U64(count));
    }
}

struct OfWorker {
    name: &'static str,
    help: &'static str,
    shown: Shown,
    /// Whether a dead worker's slot has it too: true for what counts on.
    outlives: bool,
    value: fn(&Seen, u64) -> ValueRead,
}

const OF_WORKERS: [OfWorker; 7] = [
    OfWorker {
        name: names::SAOLA_WORKER_UP,
        help: "Whether the worker of a slot is ready to serve.",
        shown: Shown::Gauge,
        outlives: false,
        value: |seen, _| ValueRead::U64(u64::from(seen.state == SlotState::Ready)),
    },
    OfWorker {
        name: names::SAOLA_WORKER_HEARTBEAT_AGE,
        help: "Time since the event loop of a worker last turned, in seconds.",
        shown: Shown::Gauge,
        outlives: false,
        value: |seen, now| ValueRead::F64(seconds(now.saturating_sub(seen.heartbeat_ns))),
    },
    OfWorker {
        name: names::SAOLA_WORKER_EVENT_LOOP_LAG,
        help: "How late the last tick of a worker's event loop was, in seconds.",
        shown: Shown::Gauge,
        outlives: false,
        value: |seen, _| ValueRead::F64(seconds(seen.loop_lag_ns)),
    },
    OfWorker {
        name: names::SAOLA_WORKER_EVENT_LOOP_BUSY_RATIO,
        help: "Share of the last second that a worker's event loop was busy, 0 to 1.",
        shown: Shown::Gauge,
        outlives: false,
        value: |seen, _| ValueRead::F64(seconds(seen.loop_busy_ns)),
    },
    OfWorker {
        name: names::SAOLA_CONNECTIONS_ACTIVE,
        help: "Connections that a worker has open.",
        shown: Shown::Gauge,
        outlives: false,
        value: |seen, _| ValueRead::U64(seen.connections),
    },
    OfWorker {
        name: names::SAOLA_CONNECTIONS_LIMIT,
        help: "Connections that a worker may have open.",
        shown: Shown::Gauge,
        outlives: false,
        value: |seen, _| ValueRead::U64(seen.connections_limit),
    },
    OfWorker {
        name: names::SAOLA_CONNECTIONS_ACCEPTED,
        help: "Connections that the workers of a slot have accepted.",
        shown: Shown::Counter,
        outlives: true,
        value: |seen, _| ValueRead::U64(seen.accepted),
    },
];

fn liveness(families: &mut Families, workers: &[(&View, bool)]) {
    let now = monotonic_ns();
    for metric in &OF_WORKERS {
        let family = families.derived(metric.name, metric.help, metric.shown);
        for (view, live) in workers {
            if *live || metric.outlives {
                family.push(worker_label(view), (metric.value)(&view.seen(), now));
            }
        }
    }
}

fn dropped_records(families: &mut Families, workers: &[(&View, bool)]) {
    let help = "Records lost because their ring was full or could not be read, by kind.";
    let family = families.derived(names::SAOLA_RECORDS_DROPPED, help, Shown::Counter);
    for (view, _) in workers {
        for (at, kind) in Kind::ALL.iter().enumerate() {
            let cells = [RECORDS_DROPPED_AT, SHARED_DROPPED_AT, UNREADABLE_AT];
            let counts = cells.map(|cell| view.map.load(cell + at * 8));
            let count = counts.into_iter().fold(0, u64::wrapping_add);
            let labels = format!("{},kind=\"{}\"", worker_label(view), kind.as_str());
            family.push(labels, ValueRead::U64(count));
        }
    }
}

fn dropped_series(families: &mut Families, views: &[View]) {
    let conflicts = long(families.conflicts().len());
    let help = "Updates of metrics that had no series of their own to go to, by reason.";
    let family = families.derived(names::SAOLA_METRICS_SERIES_DROPPED, help, Shown::Counter);
    // A damaged cell may be anything, and wraps.
    let sum = |at| views.iter().map(|view| view.map.load(at)).fold(0, u64::wrapping_add);
    for (reason, count) in [
        ("limit", sum(UPDATES_LIMIT_AT)),
        ("nospace", sum(UPDATES_NO_SPACE_AT)),
        ("conflict", sum(UPDATES_CONFLICT_AT).wrapping_add(conflicts)),
        ("invalid", sum(UPDATES_INVALID_AT)),
    ] {
        family.push(format!("reason=\"{reason}\""), ValueRead::U64(count));
    }
}

/// `process_*` of every living owner (F35). A process that vanishes meanwhile is left out.
fn processes(families: &mut Families, views: &[View], live: &[bool]) {
    let mut read = Vec::new();
    for (view, _) in views.iter().zip(live).filter(|(_, live)| **live) {
        if let Some(facts) = procfs::read(view.seen().pid, &mut families.private_memory) {
            read.push((process_labels(view), facts));
        }
    }
    for metric in &procfs::METRICS {
        let family: &mut FamilyRead = families.derived(metric.name, metric.help, metric.shown);
        for (labels, facts) in &read {
            if let Some(value) = (metric.value)(facts) {
                family.push(labels.clone(), ValueRead::F64(value));
            }
        }
    }
}

fn worker_label(view: &View) -> String {
    format!("worker=\"{}\"", view.number)
}

fn process_labels(view: &View) -> String {
    match view.role {
        Role::Worker => format!("process=\"worker\",{}", worker_label(view)),
        Role::Supervisor | Role::Observer => format!("process=\"{}\"", view.role.as_str()),
    }
}

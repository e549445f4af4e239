//! What is done for a dead worker: its last transaction is finished, its requests are recorded and counted as lost (F43).

use std::sync::atomic::Ordering::Release;

use crate::clock::{monotonic_ns, wall_ns};
use crate::closed::{LostReason, Outcome, Sampling, SlotState};
use crate::http_metrics::LOST;
use crate::in_flight::entry::{FREE, InFlightEntry};
use crate::layout::{IN_FLIGHT_OVERFLOW_AT, SINCE_AT, STARTED_BEFORE_AT, STATE_AT};
use crate::record::Kind;
use crate::record::encode::{Encoder, Lost};
use crate::record::ended::Ended;
use crate::redo;
use crate::slot::Slot;
use crate::view::View;

/// How a worker ended, as `waitpid` and the lifecycle know it.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Death {
    /// The dead process.
    pub pid: u32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The code it exited with.
    pub exit_code: Option<i32>,
    /// Why its requests are lost.
    pub reason: LostReason,
}

/// What died with a worker.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Buried {
    /// Its running requests, oldest first: each is recorded and counted as lost.
    pub lost: Vec<InFlightEntry>,
    /// Requests of which only the number is known: the table was full.
    pub unknown: u64,
    /// Requests that it has served to their end, from its birth on.
    pub served: u64,
}

impl Buried {
    /// How many requests died.
    pub fn count(&self) -> u64 {
        crate::layout::long(self.lost.len()).saturating_add(self.unknown)
    }
}

/// Reports what died in a slot into the supervisor's own file, and frees the slot.
pub(super) fn bury(supervisor: &'static Slot, slot: u32, view: &mut View, death: &Death) -> Buried {
    set_state(view, SlotState::Ended);
    redo::replay(&view.map);
    let _ = view.new_keys(|_, _| ()); // without routes the requests are still reported
    let mut buried = Buried::default();
    for at in view.entry_offsets() {
        if let Some(entry) = crate::in_flight::entry::read(&view.map, at, |id| view.string(id)) {
            report(supervisor, slot, death, &entry, 1);
            buried.lost.push(entry);
        }
        view.map.store(at, FREE);
    }
    buried.unknown = view.map.load(IN_FLIGHT_OVERFLOW_AT);
    if buried.unknown > 0 {
        report(supervisor, slot, death, &nameless(), buried.unknown);
        view.map.store(IN_FLIGHT_OVERFLOW_AT, 0);
    }
    let begun = view.started().wrapping_sub(view.map.load(STARTED_BEFORE_AT));
    buried.served = begun.saturating_sub(buried.count());
    set_state(view, SlotState::Free);
    buried.lost.sort_by_key(|entry| entry.start_ns);
    if let Some(bell) = supervisor.bell() {
        bell.ring();
    }
    buried
}

/// One transaction in the supervisor's file: the record stands and the counter is moved, or neither.
fn report(supervisor: &'static Slot, slot: u32, death: &Death, entry: &InFlightEntry, count: u64) {
    let reason = death.reason.as_str();
    let counter = supervisor.find_or_other(&LOST, &[&entry.route, reason]);
    let lost = Lost {
        request: lost_request(entry),
        slot,
        pid: death.pid,
        signal: death.signal,
        exit_code: death.exit_code,
        reason: death.reason,
        count,
    };
    let cells = counter.map(|found| (supervisor.map.word(found.offset), count));
    supervisor.in_flight().push_with(Kind::Request, cells, |bytes| Encoder::lost(bytes, &lost));
}

fn lost_request(entry: &InFlightEntry) -> Ended<'_> {
    Ended {
        start_wall_ns: entry.start_wall_ns,
        duration_ns: monotonic_ns().saturating_sub(entry.start_ns),
        trace: entry.trace,
        span: entry.span,
        parent: entry.parent,
        remote_parent: entry.remote_parent,
        is_https: false, // the table does not know
        route: &entry.route,
        exception: "",
        request_bytes: 0,
        response_bytes: 0,
        status: 0,
        client: entry.client,
        client_port: entry.client_port,
        server_port: 0,
        cpu_samples: entry.cpu_samples,
        method: entry.method,
        protocol: entry.protocol,
        outcome: Outcome::Lost,
        sampling: Sampling::Error,
        path: &entry.path,
        request_id: entry.request_id.as_bytes(),
        user_agent: b"",
        server_address: b"",
        method_text: "",
        tracestate: "",
    }
}

/// Stands for requests of which only the number is known.
fn nameless() -> InFlightEntry {
    InFlightEntry {
        start_ns: monotonic_ns(),
        start_wall_ns: wall_ns(),
        trace: crate::ids::TraceId::NONE,
        span: crate::ids::SpanId::NONE,
        parent: crate::ids::SpanId::NONE,
        remote_parent: false,
        sampled: false,
        route: crate::series::OTHER.to_owned(),
        method: crate::closed::Method::Other,
        protocol: crate::closed::Protocol::Http11,
        phase: crate::closed::Phase::Handler,
        cpu_samples: 0,
        client: None,
        client_port: 0,
        request_id: String::new(),
        path: String::new(),
    }
}

pub(super) fn set_state(view: &View, state: SlotState) {
    view.map.store(SINCE_AT, wall_ns());
    view.map.word(STATE_AT).store(u64::from(state.number()), Release);
}

//! What happens to workers: drained, died, hung.

use std::time::{Duration, Instant};

use saola_observability::{Level, Value};

use super::fields::{ended, millis, slot_field};
use super::{Busy, Events, Loss, Voice, metrics};
use crate::lifecycle::cause::{Cause, Oom, Status};
use crate::lifecycle::event::{ForkFailure, Report, SlotNumber};
use crate::process;

impl Events {
    /// The one report of a worker's end.
    pub(crate) fn worker_ended(
        &mut self,
        slot: SlotNumber,
        report: &Report,
        loss: &Loss,
        voice: Voice,
    ) {
        if let Some(reason) = report.cause.restart_reason() {
            metrics::RESTARTS.with([reason]).inc();
        }
        if let Some(drained) = report.drained {
            metrics::DRAIN.observe(drained.as_secs_f64());
        }
        let went_quietly = report.status == Status::Exited(0) && loss.requests == 0;
        if report.drained.is_some() || (report.cause == Cause::Quit && went_quietly) {
            self.worker_drained(slot, report, loss, voice);
        } else if report.cause.is_unplanned() || !report.in_boot {
            self.worker_died(slot, report, loss, voice);
        }
        // Else it belonged to a start or a reload that was given up, whose first cause has its line.
    }

    fn worker_drained(&mut self, slot: SlotNumber, report: &Report, loss: &Loss, voice: Voice) {
        let fields = [
            slot_field(slot),
            ("generation", Value::U64(report.generation)),
            ("cause", Value::Str(report.cause.as_str())),
            ("duration_ms", millis(report.drained.unwrap_or_default())),
            ("forced", Value::U64(report.forced)),
            ("requests_lost", Value::U64(loss.requests)),
        ];
        self.line(voice, Level::Info, "worker drained", &fields);
    }

    fn worker_died(&mut self, slot: SlotNumber, report: &Report, loss: &Loss, voice: Voice) {
        let Some(suppressed) = self.deaths.admit(Instant::now()) else { return };
        let name = ended(report.status);
        let mut fields = vec![
            slot_field(slot),
            ("worker_pid", Value::U64(loss.pid.into())),
            ("generation", Value::U64(report.generation)),
            ("cause", Value::Str(report.cause.as_str())),
            name.field(),
        ];
        if let Status::Signaled { core: true, .. } = report.status {
            fields.push(("core", Value::Bool(true)));
        }
        if report.oom == Oom::Unknown {
            // It may have been for memory; who knows the cgroup of this server can say.
            fields.push(("oom", Value::Str("unknown")));
        }
        let age_s = (report.age.as_secs_f64() * 1_000.0).round() / 1_000.0;
        fields.push(("age_s", Value::F64(age_s)));
        fields.push(("requests", Value::U64(loss.served)));
        fields.push(("requests_lost", Value::U64(loss.requests)));
        fields.push(("max_rss", Value::U64(loss.max_rss_bytes)));
        if let Some(next_try) = report.next_try {
            fields.push(("next_try_ms", millis(next_try)));
        }
        if let Some(text) = &report.text {
            fields.push(("error", Value::Str(text)));
        }
        if suppressed > 0 {
            fields.push(("suppressed", Value::U64(suppressed)));
        }
        let level = if report.in_boot { Level::Error } else { Level::Warn };
        self.line(voice, level, "worker died", &fields);
    }

    pub(super) fn fork_failed(
        &mut self,
        slot: SlotNumber,
        why: &ForkFailure,
        next_try: Duration,
        voice: Voice,
    ) {
        metrics::RESTARTS.with(["crash"]).inc();
        let threads;
        let text = match why {
            ForkFailure::Threads => {
                threads =
                    format!("other threads are running ({})", process::other_threads().join(", "));
                &threads
            }
            ForkFailure::System(text) => text,
        };
        let fields = [
            slot_field(slot),
            ("cause", Value::Str(Cause::Fork.as_str())),
            ("error", Value::Str(text)),
            ("next_try_ms", millis(next_try)),
        ];
        self.line(voice, Level::Error, "worker died", &fields);
    }

    /// What a worker is busy with, because somebody asked.
    pub(crate) fn dumped(
        &mut self,
        slot: SlotNumber,
        age: Duration,
        (state, busy): (Option<char>, Option<&Busy>),
        voice: Voice,
    ) {
        self.hung(Level::Info, "worker dump", (slot, age, None), (state, busy), voice);
    }

    /// Where a worker's thread is, as addresses of the program.
    pub(crate) fn worker_stack(
        &mut self,
        slot: SlotNumber,
        (addresses, is_own): (&str, bool),
        voice: Voice,
    ) {
        let mut fields = vec![slot_field(slot), ("stack", Value::Str(addresses))];
        if !is_own {
            fields.push(("image", Value::Str("another")));
        }
        self.line(voice, Level::Info, "worker stack", &fields);
    }

    pub(super) fn hung(
        &mut self,
        level: Level,
        message: &str,
        (slot, age, why): (SlotNumber, Duration, Option<Cause>),
        (state, busy): (Option<char>, Option<&Busy>),
        voice: Voice,
    ) {
        let mut fields = vec![slot_field(slot), ("beat_age_ms", millis(age))];
        if let Some(why) = why {
            fields.push(("cause", Value::Str(why.as_str())));
        }
        let state = state.map(String::from);
        if let Some(state) = &state {
            fields.push(("state", Value::Str(state)));
        }
        if let Some(busy) = busy {
            fields
                .push(("in_flight", Value::U64(u64::try_from(busy.in_flight).unwrap_or(u64::MAX))));
            fields.push(("request_trace_id", Value::Str(&busy.trace_id)));
            fields.push(("oldest_request_id", Value::Str(&busy.request_id)));
            fields.push(("method", Value::Str(busy.method)));
            fields.push(("route", Value::Str(&busy.route)));
            fields.push(("age_ms", millis(busy.age)));
        }
        self.line(voice, level, message, &fields);
    }
}

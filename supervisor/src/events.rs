//! One function for each thing an operator should hear of: it writes the line and moves the metric (S73).
//! Nothing else in this crate logs.

mod metrics;
mod stderr;
mod storm;

use std::time::{Duration, Instant};

use saola_observability::clock::wall_ns;
use saola_observability::{Event, Level, Slot, SpanId, TraceId, Value};

use crate::lifecycle::cause::{Cause, Status};
use crate::lifecycle::event::{ForkFailure, Notice, Origin, Report, SlotNumber, Stop};
use crate::{Encode, process};

pub(crate) use stderr::Stderr;
use storm::Storm;

/// The supervisor's voice.
pub(crate) struct Events {
    slot: &'static Slot,
    encode: Encode,
    stderr: Stderr,
    workers_from: &'static str,
    deaths: Storm,
}

type Field<'a> = (&'a str, Value<'a>);

/// What a worker was busy with when it was judged.
pub(crate) struct Busy {
    pub(crate) in_flight: usize,
    pub(crate) trace_id: String,
    pub(crate) request_id: String,
    pub(crate) method: &'static str,
    pub(crate) route: String,
    pub(crate) age: Duration,
}

impl Events {
    pub(crate) fn new(
        slot: &'static Slot,
        encode: Encode,
        stderr: Stderr,
        (workers, workers_from): (u32, &'static str),
    ) -> Self {
        metrics::start();
        metrics::WORKERS_CONFIGURED.set(workers.into());
        metrics::GENERATION.set(1.0);
        Self { slot, encode, stderr, workers_from, deaths: Storm::default() }
    }

    pub(crate) fn listening(&mut self, address: &str, role: &str, queue: u32, voice: Voice) {
        metrics::ACCEPT_QUEUE_LIMIT.with([address]).set(queue.into());
        let fields = [("address", Value::Str(address)), ("role", Value::Str(role))];
        self.line(voice, Level::Info, "listening", &fields);
    }

    pub(crate) fn warning(&mut self, message: &str, text: &str, voice: Voice) {
        self.line(voice, Level::Warn, message, &[("error", Value::Str(text))]);
    }

    pub(crate) fn nothing_to_reopen(&mut self, from: Origin, voice: Voice) {
        self.line(voice, Level::Info, "nothing to reopen", &origin(&from));
    }

    pub(crate) fn terminal_gone(&mut self, voice: Voice) {
        self.line(voice, Level::Info, "terminal gone", &[]);
    }

    pub(crate) fn unknown_word(&mut self, slot: SlotNumber, verb: &str, voice: Voice) {
        let fields = [slot_field(slot), ("verb", Value::Str(verb))];
        self.line(voice, Level::Warn, "unknown word from a worker", &fields);
    }

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

    /// Says what the life cycle has decided.
    pub(crate) fn notice(&mut self, notice: &Notice, busy: Option<&Busy>, voice: Voice) {
        match notice {
            Notice::Started { workers, boot } => self.started(*workers, *boot, voice),
            Notice::Stopping { how, from } => self.stopping(*how, from, voice),
            Notice::Stopped { forced, duration } => self.stopped(*forced, *duration, voice),
            Notice::WorkerReady { slot, generation, boot } => {
                metrics::BOOT.observe(boot.as_secs_f64());
                let fields = [
                    slot_field(*slot),
                    ("generation", Value::U64(*generation)),
                    ("boot_ms", millis(*boot)),
                ];
                self.line(voice, Level::Info, "worker ready", &fields);
            }
            Notice::ForkFailed { slot, why, next_try } => {
                self.fork_failed(*slot, why, *next_try, voice);
            }
            Notice::WorkerSlow { slot, beat_age } => {
                self.hung(Level::Warn, "worker slow", (*slot, *beat_age), busy, voice);
            }
            Notice::WorkerStuck { slot, beat_age } => {
                self.hung(Level::Error, "worker stuck", (*slot, *beat_age), busy, voice);
            }
            Notice::Reloading { .. } | Notice::Reloaded { .. } | Notice::ReloadFailed { .. } => {
                self.reload(notice, voice);
            }
            Notice::WorkersChanged { old, new, from } => {
                self.workers_changed((*old, *new), from, voice);
            }
            Notice::ChangeRefused { what, why, from, suppressed } => {
                self.change_refused((what, why), from, *suppressed, voice);
            }
            Notice::Degraded { deaths } => {
                metrics::DEGRADED.set(1.0);
                let deaths = u64::try_from(*deaths).unwrap_or(u64::MAX);
                let fields = [("deaths", Value::U64(deaths)), ("window_s", Value::U64(60))];
                self.line(voice, Level::Error, "degraded", &fields);
            }
            Notice::Recovered { ready } => {
                metrics::DEGRADED.set(0.0);
                self.line(
                    voice,
                    Level::Info,
                    "recovered",
                    &[("ready", Value::U64((*ready).into()))],
                );
            }
            Notice::Paused(from) => self.line(voice, Level::Info, "paused", &origin(from)),
            Notice::Resumed(from) => self.line(voice, Level::Info, "resumed", &origin(from)),
            Notice::ObserverDied { status, next_try } => {
                let name = ended(*status);
                let fields = [name.field(), ("next_ms", millis(*next_try))];
                self.line(voice, Level::Warn, "observer died", &fields);
            }
            Notice::ObserverForkFailed { next_try } => {
                let fields = [("cause", Value::Str("fork")), ("next_ms", millis(*next_try))];
                self.line(voice, Level::Warn, "observer died", &fields);
            }
        }
    }

    fn workers_changed(&mut self, (old, new): (u32, u32), from: &Origin, voice: Voice) {
        metrics::WORKERS_CONFIGURED.set(new.into());
        let mut fields = vec![("old", Value::U64(old.into())), ("new", Value::U64(new.into()))];
        fields.extend(origin(from));
        self.line(voice, Level::Info, "workers changed", &fields);
    }

    fn change_refused(
        &mut self,
        (what, why): (&str, &str),
        from: &Origin,
        suppressed: u32,
        voice: Voice,
    ) {
        let mut fields = vec![("what", Value::Str(what)), ("error", Value::Str(why))];
        fields.push(("suppressed", Value::U64(suppressed.into())));
        fields.extend(origin(from));
        self.line(voice, Level::Warn, "change refused", &fields);
    }

    fn started(&mut self, workers: u32, boot: Duration, voice: Voice) {
        let fields = [
            ("workers", Value::U64(workers.into())),
            ("workers_from", Value::Str(self.workers_from)),
            ("boot_ms", millis(boot)),
        ];
        self.line(voice, Level::Info, "started", &fields);
    }

    fn stopping(&mut self, how: Stop, from: &Origin, voice: Voice) {
        let cause = match how {
            Stop::Graceful => "graceful",
            Stop::Quick => "quick",
        };
        let mut fields = vec![("cause", Value::Str(cause))];
        fields.extend(origin(from));
        self.line(voice, Level::Info, "stopping", &fields);
    }

    fn stopped(&mut self, forced: u64, duration: Duration, voice: Voice) {
        let fields = [("forced", Value::U64(forced)), ("duration_ms", millis(duration))];
        self.line(voice, Level::Info, "stopped", &fields);
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
        let age_s = (report.age.as_secs_f64() * 1_000.0).round() / 1_000.0;
        fields.push(("age_s", Value::F64(age_s)));
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

    fn fork_failed(
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

    fn hung(
        &mut self,
        level: Level,
        message: &str,
        (slot, age): (SlotNumber, Duration),
        busy: Option<&Busy>,
        voice: Voice,
    ) {
        let mut fields = vec![slot_field(slot), ("beat_age_ms", millis(age))];
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

    fn reload(&mut self, notice: &Notice, voice: Voice) {
        match notice {
            Notice::Reloading { generation, from } => {
                let mut fields = vec![("generation", Value::U64(*generation))];
                fields.extend(origin(from));
                self.line(voice, Level::Info, "reloading", &fields);
            }
            Notice::Reloaded { generation, workers, duration } => {
                metrics::RELOADS.with(["success"]).inc();
                // A gauge is a float; a generation number stays exact in one for longer than anybody reloads.
                let shown = u32::try_from(*generation).unwrap_or(u32::MAX);
                metrics::GENERATION.set(shown.into());
                let fields = [
                    ("generation", Value::U64(*generation)),
                    ("workers", Value::U64((*workers).into())),
                    ("duration_ms", millis(*duration)),
                ];
                self.line(voice, Level::Info, "reloaded", &fields);
            }
            Notice::ReloadFailed { generation, cause, text, duration } => {
                metrics::RELOADS.with(["error"]).inc();
                let mut fields = vec![
                    ("generation", Value::U64(*generation)),
                    ("stage", Value::Str(cause.as_str())),
                    ("duration_ms", millis(*duration)),
                ];
                if let Some(text) = text {
                    fields.push(("error", Value::Str(text)));
                }
                self.line(voice, Level::Error, "reload failed", &fields);
            }
            _ => {}
        }
    }

    /// Into the ring while an observer reads it; else to stderr, and into the ring if that is full: the next one prints it.
    fn line(&mut self, voice: Voice, level: Level, message: &str, fields: &[Field<'_>]) {
        let event = Event {
            wall_ns: wall_ns(),
            level,
            target: "saola::supervisor",
            message,
            trace: TraceId::NONE,
            span: SpanId::NONE,
            request_id: "",
            fields,
        };
        match voice {
            Voice::Ring => self.slot.records().event(&event),
            Voice::Stderr => {
                if !self.stderr.write(&(self.encode)(&event)) {
                    self.slot.records().event(&event);
                }
            }
        }
    }
}

/// Who prints a line.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Voice {
    /// The observer, from the supervisor's ring.
    Ring,
    /// The supervisor itself: no observer runs.
    Stderr,
}

/// What a death has cost.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) pid: u32,
    pub(crate) requests: u64,
    pub(crate) max_rss_bytes: u64,
}

/// The name of a signal, or an exit status.
enum Ended {
    Signal(String),
    Status(i64),
}

impl Ended {
    fn field(&self) -> Field<'_> {
        match self {
            Self::Signal(name) => ("signal", Value::Str(name)),
            Self::Status(code) => ("status", Value::I64(*code)),
        }
    }
}

fn ended(status: Status) -> Ended {
    match status {
        Status::Exited(code) => Ended::Status(code.into()),
        Status::Signaled { signal, .. } => {
            let known = nix::sys::signal::Signal::try_from(signal);
            Ended::Signal(
                known.map_or_else(|_| format!("SIG{signal}"), |signal| signal.as_str().to_owned()),
            )
        }
    }
}

fn slot_field(slot: SlotNumber) -> Field<'static> {
    ("slot", Value::U64(slot.0.into()))
}

fn millis(duration: Duration) -> Value<'static> {
    Value::U64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn origin(from: &Origin) -> [Field<'static>; 3] {
    [
        ("signal", Value::Str(from.signal)),
        ("from_pid", Value::U64(from.pid.into())),
        ("from_uid", Value::U64(from.uid.into())),
    ]
}

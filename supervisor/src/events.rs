//! One function for each thing an operator should hear of: it writes the line and moves the metric (S73).
//! Nothing else in this crate logs.

mod fields;
mod generations;
mod metrics;
mod stderr;
mod storm;
mod workers;

use std::rc::Rc;
use std::time::Duration;

use saola_observability::clock::wall_ns;
use saola_observability::{Event, Level, Slot, SpanId, TraceId, Value};

use crate::lifecycle::asked::{Origin, Stop};
use crate::lifecycle::event::{Damaged, Notice, SlotNumber};
use crate::lifecycle::picture::Picture;
use crate::{Encode, Settings};

use fields::{Field, ended, millis, origin, slot_field};
pub(crate) use metrics::{overflowed, queue};
pub(crate) use stderr::Stderr;
use storm::Storm;

/// The supervisor's voice.
pub(crate) struct Events {
    slot: &'static Slot,
    encode: Encode,
    stderr: Stderr,
    workers_from: &'static str,
    version: &'static str,
    deaths: Storm,
}

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
    pub(crate) fn new(slot: &'static Slot, stderr: Stderr, settings: &Settings) -> Self {
        let (workers, workers_from) = (settings.workers.get(), settings.workers_from);
        metrics::start();
        metrics::WORKERS_CONFIGURED.set(workers.into());
        metrics::GENERATION.set(1.0);
        Self {
            slot,
            encode: Rc::clone(&settings.encode),
            stderr,
            workers_from,
            version: settings.version,
            deaths: Storm::default(),
        }
    }

    /// Lines and metrics go to another file from now on.
    pub(crate) fn count_in(&mut self, slot: &'static Slot) {
        self.slot = slot;
        metrics::start();
    }

    /// The settings of a new generation hold.
    pub(crate) fn adopt(&mut self, settings: &Settings) {
        self.encode = Rc::clone(&settings.encode);
        self.workers_from = settings.workers_from;
    }

    /// Somebody who may not has knocked at the control socket.
    pub(crate) fn control_refused(&mut self, uid: u32, pid: i32, voice: Voice) {
        let fields = [("from_uid", Value::U64(uid.into())), ("from_pid", Value::I64(pid.into()))];
        self.line(voice, Level::Warn, "control refused", &fields);
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

    pub(crate) fn hook_failed(&mut self, event: &str, why: &str, voice: Voice) {
        let fields = [("event", Value::Str(event)), ("error", Value::Str(why))];
        self.line(voice, Level::Warn, "hook failed", &fields);
    }

    pub(crate) fn terminal_gone(&mut self, voice: Voice) {
        self.line(voice, Level::Info, "terminal gone", &[]);
    }

    pub(crate) fn unknown_word(&mut self, slot: SlotNumber, verb: &str, voice: Voice) {
        let fields = [slot_field(slot), ("verb", Value::Str(verb))];
        self.line(voice, Level::Warn, "unknown word from a worker", &fields);
    }

    /// Says what the life cycle has decided.
    pub(crate) fn notice(
        &mut self,
        notice: &Notice,
        busy: (Option<char>, Option<&Busy>),
        voice: Voice,
    ) {
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
                self.hung(Level::Warn, "worker slow", (*slot, *beat_age, None), busy, voice);
            }
            Notice::WorkerStuck { slot, beat_age, why } => {
                self.hung(
                    Level::Error,
                    "worker stuck",
                    (*slot, *beat_age, Some(*why)),
                    busy,
                    voice,
                );
            }
            Notice::Reloading { .. } | Notice::Reloaded { .. } | Notice::ReloadFailed { .. } => {
                self.reload(notice, voice);
            }
            Notice::Probation { generation, workers } => {
                generations::show(*generation);
                let fields = [
                    ("generation", Value::U64(*generation)),
                    ("workers", Value::U64((*workers).into())),
                ];
                self.line(voice, Level::Info, "upgrade on probation", &fields);
            }
            Notice::WorkersChanged { old, new, from } => {
                self.workers_changed((*old, *new), from, voice);
            }
            Notice::ChangeRefused { what, why, from, suppressed } => {
                self.change_refused((what, why), from, *suppressed, voice);
            }
            _ => self.condition(notice, voice),
        }
    }

    /// Conditions that come and go.
    fn condition(&mut self, notice: &Notice, voice: Voice) {
        match notice {
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
            Notice::RecycleGranted { slot, why } => {
                let fields = [slot_field(*slot), ("cause", Value::Str(why.as_str()))];
                self.line(voice, Level::Info, "recycle granted", &fields);
            }
            Notice::RecycleHeld { slot, why, age } => {
                let fields = [
                    slot_field(*slot),
                    ("cause", Value::Str(why.as_str())),
                    ("age_ms", millis(*age)),
                ];
                self.line(voice, Level::Warn, "recycle held back by min_lifetime", &fields);
            }
            Notice::Damaged(file) => {
                let whose = match file {
                    Damaged::Supervisor => ("role", Value::Str("supervisor")),
                    Damaged::Observer => ("role", Value::Str("observer")),
                    Damaged::Slot(slot) => slot_field(*slot),
                };
                let text = "another process has changed its file; reloading into a new epoch";
                let fields = [whose, ("error", Value::Str(text))];
                self.line(voice, Level::Error, "slot damaged", &fields);
            }
            Notice::GivenUp { after } => {
                self.line(voice, Level::Error, "given up", &[("empty_ms", millis(*after))]);
            }
            Notice::ObserverForkFailed { next_try } => {
                let fields = [("cause", Value::Str("fork")), ("next_ms", millis(*next_try))];
                self.line(voice, Level::Warn, "observer died", &fields);
            }
            _ => {}
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

/// Goes on with what another image has shown.
pub(crate) fn resume(picture: &Picture) {
    metrics::WORKERS_CONFIGURED.set(picture.workers.into());
    metrics::DEGRADED.set(if picture.is_degraded { 1.0 } else { 0.0 });
    generations::show(picture.generation);
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
    /// What it has served before.
    pub(crate) served: u64,
    pub(crate) max_rss_bytes: u64,
}

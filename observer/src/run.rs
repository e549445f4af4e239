//! The life of an observer: read until told to stop, then bring everything out within two seconds.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use saola_observability::closed::{Level, SlotState};
use saola_observability::ids::{SpanId, TraceId};
use saola_observability::record::Value;
use saola_observability::{Event, Slot, clock};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::sleep;

use crate::admin::{self, Admin};
use crate::again::again;
use crate::logfmt::{Encoder, Origin};
use crate::lost::{LostSamples, LostSpans};
use crate::otlp::{ClientError, Resource, Traces};
use crate::output::Output;
use crate::profile::{Poor, Profiles, Push, Window, Witness, is_stripped};
use crate::reader::{Files, Found, Lines, LogCursors, News, Reader};
use crate::rhythm::{Rhythm, SHORTEST_PAUSE};
use crate::voice::{Reminder, Voice};
use crate::{Error, ExitReason, Settings, bridge, metrics};

/// What the observer is given besides its settings.
pub(crate) struct Given {
    pub(crate) slot: &'static Slot,
    pub(crate) lifeline: OwnedFd,
    pub(crate) admin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
}

/// Runs until the lifeline says stop; everything of it lives on this thread but `saola-out`.
pub(crate) fn run(settings: Settings, given: Given) -> ExitReason {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return ExitReason::Failed(Error::Runtime(error)),
    };
    let outcome = LocalSet::new().block_on(&runtime, observe(settings, given));
    // A blocked look-up of a name must not hold up the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitReason::Stopped,
        Err(error) => ExitReason::Failed(error),
    }
}

type Shared = Rc<RefCell<Reader<Files>>>;

async fn observe(settings: Settings, given: Given) -> Result<(), Error> {
    let Given { slot, lifeline, admin, stdout } = given;
    metrics::init();
    let lifeline = pipe::Receiver::from_owned_fd(lifeline).map_err(Error::Lifeline)?;
    let voice = Voice::new(move |level, message, fields| say(slot, level, message, fields));
    let traces = settings.otlp.clone().map(Traces::new);
    let files = Files::open(&settings.run_dir)?;
    let lines = lines(&settings, stdout, files.log_cursors()).map_err(Error::Output)?;
    if settings.otlp.is_some() || settings.profiles.is_some() {
        // It becomes the logger of the process, for whatever the clients say.
        let _witness = Witness::listen();
    }
    let (profiles, push) = profiling(&settings, slot, &voice);
    let reader = Reader::new(files, lines, traces.clone(), profiles);
    let reader = Rc::new(RefCell::new(reader));
    for warning in &settings.warnings {
        voice.say(Level::Warn, warning, &[]);
    }
    if settings.profile_hz > 0 && is_stripped(Path::new("/proc/self/exe")) {
        poor(&voice, Poor::Stripped);
    }
    let (stop, stopped) = watch::channel(None);
    let exporter = traces.as_ref().map(|traces| {
        spawn_local(keep_exporting(
            traces.clone(),
            settings.service.clone(),
            voice.clone(),
            stopped,
        ))
    });
    let witness = push.as_ref().map(Push::witness);
    let admin = admin.map(|listener| {
        let admin = Rc::new(Admin::new(&settings, Rc::clone(&reader), witness.cloned()));
        spawn_local(keep_answering(listener, Rc::clone(&admin), voice.clone()));
        admin
    });
    slot.set_state(SlotState::Ready);
    let end = read_until_stopped(slot, &reader, &lifeline, &voice, witness).await;
    slot.set_state(SlotState::Draining);
    if end == End::SupervisorGone {
        wait_for_workers(slot, &reader).await;
    }
    let samples = drain(slot, &reader, exporter, push, stop).await;
    last_words(&reader, traces.as_ref(), samples).await;
    if let Some(admin) = admin {
        admin.close().await;
    }
    Ok(())
}

/// Where profile samples go: to the profile server if there is one, and to whoever asks.
fn profiling(settings: &Settings, slot: &Slot, voice: &Voice) -> (Profiles, Option<Push>) {
    let target = settings.profiles.as_ref().filter(|_| settings.profile_hz > 0);
    let push = target.and_then(|target| {
        let window = Arc::new(Mutex::new(Window::new(clock::wall_ns())));
        match Push::start(target, &settings.service, settings.profile_hz, Arc::clone(&window)) {
            Ok(push) => Some((push, window)),
            Err(error) => {
                let fields = [("error", Value::Str(&error.to_string()))];
                voice.say(Level::Error, "profile push is off", &fields);
                None
            }
        }
    });
    let (push, window) = push.unzip();
    (Profiles::new(slot.image(), window), push)
}

fn lines(settings: &Settings, stdout: OwnedFd, cursors: LogCursors) -> io::Result<Lines<u64>> {
    let mut encoder = Encoder::new(settings.format, &settings.service.name);
    encoder.has_colour = settings.has_colour;
    encoder.slow_request = settings.slow_request;
    encoder.zone = jiff::tz::TimeZone::system();
    let own = Origin { worker: None, pid: Some(std::process::id()) };
    let output = Output::start(stdout, move |reached: &Vec<_>| cursors.advance(reached))?;
    Ok(Lines::new(encoder, settings.lines.clone(), own, output))
}

/// Puts a line of the observer into its own ring, from where it comes out like any other.
fn say(slot: &'static Slot, level: Level, message: &str, fields: &[(&str, Value<'_>)]) {
    slot.records().event(&Event {
        wall_ns: clock::wall_ns(),
        level,
        target: "saola::observer",
        message,
        trace: TraceId::NONE,
        span: SpanId::NONE,
        request_id: "",
        fields,
    });
}

/// Why the observer stops.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum End {
    Ordered,
    SupervisorGone,
}

async fn read_until_stopped(
    slot: &'static Slot,
    reader: &Shared,
    lifeline: &pipe::Receiver,
    voice: &Voice,
    pushes: Option<&Arc<Witness>>,
) -> End {
    let (news, failing) = (Reminder::default(), Reminder::default());
    let mut end = std::pin::pin!(end(lifeline));
    let mut rhythm = Rhythm::start();
    loop {
        slot.liveness().beat(clock::monotonic_ns());
        let found = reader.borrow_mut().pass();
        if news.is_due(Instant::now(), NEWS_EVERY) {
            tell(reader, voice);
            tell_of_exporters(voice);
            if reader.borrow_mut().profiles.has_found_shallow_stacks() {
                poor(voice, Poor::FramePointers);
            }
            let error = pushes.and_then(|pushes| pushes.last_error());
            if let Some(error) = error
                && failing.is_due(Instant::now(), REMIND_EVERY)
            {
                let fields = [("error", Value::Str(&error))];
                voice.say(Level::Warn, "profile push failed", &fields);
            }
        }
        let progress = reader.borrow().lines.output().progress();
        rhythm.note(found);
        tokio::select! {
            biased;
            end = &mut end => return end,
            () = rhythm.rest(|| reader.borrow_mut().rings.alarm_if_idle()) => {}
            // A blocked stdout takes bytes again: those that wait go at once.
            () = progress, if found == Found::Nothing => rhythm.restart(),
        }
    }
}

/// What the exporting crates have said.
fn tell_of_exporters(voice: &Voice) {
    for message in bridge::news(Instant::now()) {
        let fields = [
            ("source", Value::Str(&message.source)),
            ("text", Value::Str(&message.text)),
            ("repeated", Value::U64(message.repeated)),
        ];
        let shown = if message.repeated > 0 { &fields[..] } else { &fields[..2] };
        voice.say(message.level, "exporter message", shown);
    }
}

/// Serving is unaffected; whoever looks at a profile should know.
fn poor(voice: &Voice, why: Poor) {
    voice.say(Level::Warn, "profiles will be poor", &[("reason", Value::Str(why.as_str()))]);
}

/// One line for each slot and kind of record that a full ring dropped, and for each ring that could not be read.
fn tell(reader: &Shared, voice: &Voice) {
    for news in reader.borrow_mut().rings.news() {
        let (level, message, what, worker, count) = match news {
            News::Dropped { worker, kind, count } => {
                (Level::Warn, "records dropped", ("kind", kind.as_str()), worker, count)
            }
            News::Damaged { role, worker, count } => {
                (Level::Error, "ring damaged", ("role", role.as_str()), worker, count)
            }
        };
        let fields = [
            (what.0, Value::Str(what.1)),
            ("count", Value::U64(count)),
            ("slot", Value::U64(worker.unwrap_or(0).into())),
        ];
        // The supervisor and the observer have no slot number.
        let shown = if worker.is_some() { &fields[..] } else { &fields[..2] };
        voice.say(level, message, shown);
    }
}

/// Waits for `q` or the end of the lifeline; other bytes mean nothing.
async fn end(lifeline: &pipe::Receiver) -> End {
    while lifeline.readable().await.is_ok() {
        let mut byte = [0];
        match lifeline.try_read(&mut byte) {
            Ok(0) => break,
            Ok(_) if byte == *b"q" => return End::Ordered,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    End::SupervisorGone
}

/// The supervisor died: its workers notice too, and what they finish until then still comes out.
async fn wait_for_workers(slot: &'static Slot, reader: &Shared) {
    let by = Instant::now() + WORKERS_MAY_TAKE;
    while Instant::now() < by && reader.borrow_mut().rings.has_live_worker() {
        slot.liveness().beat(clock::monotonic_ns());
        reader.borrow_mut().pass();
        sleep(SHORTEST_PAUSE).await;
    }
}

/// Reads every ring to its end and waits until lines, spans and the last profile are out, or the time is up. Returns the
/// weight of the samples that are not.
async fn drain(
    slot: &'static Slot,
    reader: &Shared,
    exporter: Option<JoinHandle<()>>,
    mut push: Option<Push>,
    stop: watch::Sender<Option<Instant>>,
) -> u64 {
    let by = Instant::now() + DRAIN_MAY_TAKE;
    // A server that stops soon after its start has slots that were never looked at.
    reader.borrow_mut().rings.refresh_now();
    let mut pushes = None;
    loop {
        slot.liveness().beat(clock::monotonic_ns());
        reader.borrow_mut().pass();
        let is_late = Instant::now() >= by;
        if stop.borrow().is_none() && (is_late || reader.borrow_mut().has_queued_all()) {
            stop.send_replace(Some(by));
            pushes = push.take().map(Push::finish);
        }
        let is_exported = exporter.as_ref().is_none_or(JoinHandle::is_finished);
        let is_pushed = pushes.as_ref().is_none_or(|pushes| pushes.is_done());
        let is_done = is_exported
            && is_pushed
            && stop.borrow().is_some()
            && reader.borrow_mut().has_written_all();
        if is_done || Instant::now() >= by + LAST_ANSWER {
            break;
        }
        sleep(DRAIN_PAUSE).await;
    }
    // The cursors of what was written last.
    reader.borrow_mut().pass();
    let lost = pushes.map_or(0, |pushes| pushes.give_up());
    metrics::samples_dropped(LostSamples::Shutdown, lost);
    lost
}

/// Says what did not come out, on stdout or, if that is blocked, on stderr.
async fn last_words(reader: &Shared, traces: Option<&Traces>, lost_samples: u64) {
    let is_all_written = reader.borrow_mut().has_written_all();
    let lost_lines = if is_all_written { 0 } else { reader.borrow_mut().give_up_lines() };
    let lost_spans = traces.map_or(0, |traces| {
        traces.give_up();
        traces.tally().dropped(LostSpans::Shutdown)
    });
    if lost_lines + lost_spans + lost_samples == 0 {
        return;
    }
    if lost_lines == 0 {
        let fields = [
            ("spans", Value::U64(lost_spans)),
            ("lines", Value::U64(0)),
            ("samples", Value::U64(lost_samples)),
        ];
        reader.borrow_mut().lines.say(Level::Warn, LOST, &fields);
        reader.borrow_mut().lines.flush();
        let by = Instant::now() + LAST_ANSWER;
        while !reader.borrow().lines.is_idle() && Instant::now() < by {
            sleep(DRAIN_PAUSE).await;
        }
        return;
    }
    let stderr = io::stderr();
    let mut room = [PollFd::new(std::os::fd::AsFd::as_fd(&stderr), PollFlags::POLLOUT)];
    if poll(&mut room, PollTimeout::ZERO).is_ok_and(|count| count > 0) {
        let text = format!(
            "saola: {LOST}: spans={lost_spans} lines={lost_lines} samples={lost_samples}\n"
        );
        // Nobody is left to tell if this fails too.
        let _ = write(&stderr, text.as_bytes());
    }
}

/// Exports until told to stop.
async fn keep_exporting(
    traces: Traces,
    resource: Resource,
    voice: Voice,
    stop: watch::Receiver<Option<Instant>>,
) {
    let export = || {
        let (traces, resource) = (traces.clone(), resource.clone());
        let (voice, stop) = (voice.clone(), stop.clone());
        async move {
            traces.exporter(&resource, voice, stop)?.run().await;
            Ok::<_, ClientError>(())
        }
    };
    if let Err(error) = again("trace export panicked", &voice, export).await {
        let fields = [("error", Value::Str(&error.to_string()))];
        voice.say(Level::Error, "trace export is off", &fields);
    }
}

/// Answers on the admin listener.
async fn keep_answering(listener: OwnedFd, admin: Rc<Admin>, voice: Voice) {
    let answer = || {
        let (copy, admin) = (listener.try_clone(), Rc::clone(&admin));
        async move { admin::serve(copy?, admin).await }
    };
    if let Err(error) = again("admin listener panicked", &voice, answer).await {
        let fields = [
            ("error", Value::Str(&error.to_string())),
            ("fd", Value::I64(listener.as_raw_fd().into())),
        ];
        voice.say(Level::Error, "admin listener is off", &fields);
    }
}

const LOST: &str = "telemetry lost at shutdown";
const DRAIN_PAUSE: Duration = Duration::from_millis(2);
const WORKERS_MAY_TAKE: Duration = Duration::from_secs(1);
/// With what follows, the observer is gone two seconds after the order.
const DRAIN_MAY_TAKE: Duration = Duration::from_millis(1_600);
const LAST_ANSWER: Duration = Duration::from_millis(100);
const REMIND_EVERY: Duration = Duration::from_mins(1);
const NEWS_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

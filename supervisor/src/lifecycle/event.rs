//! What the life cycle is told and what it answers: the manual of the supervisor, as types.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Limits;
use super::asked::{Client, Origin, Scale, Stop};
use super::cause::{Cause, Oom, Stage, Status};
use super::failure::Failure;
use crate::Exit;

/// The number of a place for a worker.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub(crate) struct SlotNumber(pub(crate) u32);

/// Tells the queues apart. It says nothing where all workers share one.
#[derive(
    Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub(crate) struct QueueNumber(pub(crate) u32);

/// Whose file another process has changed.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Damaged {
    Supervisor,
    Observer,
    Slot(SlotNumber),
}

/// What a client hears. Every request ends with exactly one that is final.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// It has begun, as the word says; how it ends is told later. Not final.
    Begun(&'static str),
    /// Another worker of the new generation serves. Not final.
    WorkerReady(SlotNumber),
    /// Done at once.
    Done,
    /// The new generation serves, and nobody of the old one accepts any more.
    Serves { generation: u64, workers: u32, duration: Duration },
    /// The number of workers that there are to be.
    Workers { old: u32, new: u32 },
    /// Not done, and everything is as it was.
    Refused { exit: Exit, why: String },
}

impl Answer {
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self, Self::Begun(_) | Self::WorkerReady(_))
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Everything is bound and mapped; the first generation may be forked.
    Started,
    /// The deadline has passed.
    Tick,
    /// The worker has said that it can serve.
    Ready(SlotNumber),
    /// The worker has said why it is about to exit before it could serve.
    BootFailed {
        slot: SlotNumber,
        stage: Stage,
        text: String,
    },
    /// No process came of `Fork`.
    ForkFailed {
        slot: SlotNumber,
        why: ForkFailure,
    },
    /// The worker was reaped.
    Exited {
        slot: SlotNumber,
        status: Status,
        oom: Oom,
    },
    /// The worker has closed its listeners.
    Stopped(SlotNumber),
    /// The worker has ended its connections, `forced` of them at the deadline.
    Drained {
        slot: SlotNumber,
        forced: u64,
    },
    /// What was read of a worker.
    Seen {
        slot: SlotNumber,
        /// How long ago its last beat was.
        beat_age: Duration,
        /// Memory of its own, when it was measured just now.
        private_bytes: Option<u64>,
        /// Connections wait though it could take them, and it has taken none since the last look.
        is_idle_acceptor: bool,
        /// It does not run because somebody has stopped it.
        is_stopped: bool,
    },
    /// The worker asks to be replaced.
    RecycleWanted {
        slot: SlotNumber,
        why: Cause,
    },
    /// Another process has cut, deleted, replaced or overwritten a file of the run directory.
    Damaged(Damaged),
    ObserverForkFailed,
    /// Its settings are others: it is to be replaced.
    ObserverChanged,
    ObserverExited(Status),
    ObserverSeen {
        beat_age: Duration,
    },
    Reload(Origin),
    /// Another program is to take over; none is the one that was started.
    Upgrade(Option<PathBuf>, Origin),
    /// The new program was tried: it can take over, or says why not.
    Rehearsed(Result<(), (Exit, String)>),
    /// This program was not replaced.
    ExecFailed(String),
    /// This program has taken over, with a life that it did not begin.
    Adopted,
    /// The settings of a generation were read, and its new sockets are bound.
    Configured {
        generation: u64,
        limits: Limits,
    },
    /// They are wrong, or a socket cannot be had.
    Misconfigured {
        generation: u64,
        exit: Exit,
        text: String,
    },
    Scale(Scale, Origin),
    /// Replace this worker, its successor first.
    Retire(SlotNumber, Origin),
    Pause(Origin),
    Resume(Origin),
    Stop(Stop, Origin),
}

/// Why a fork was refused or failed.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum ForkFailure {
    /// Another thread runs in the supervisor: a fork would copy its locks.
    Threads,
    /// The system refused: the error's text.
    System(String),
}

/// Something to do. Commands are carried out in order.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Fork {
        slot: SlotNumber,
        generation: u64,
    },
    ForkObserver,
    /// The whole server stops: what waits in the accept queue is served too, then as a lame duck.
    Stop {
        slot: SlotNumber,
        deadline: Duration,
        idle: Duration,
    },
    /// Others take over: lame duck at once.
    Drain {
        slot: SlotNumber,
        deadline: Duration,
        idle: Duration,
    },
    Quit(SlotNumber),
    Pause(SlotNumber),
    Resume(SlotNumber),
    Kill {
        slot: SlotNumber,
        how: Blow,
    },
    /// Report what died with the worker, write its line, free its slot (S43).
    Bury {
        slot: SlotNumber,
        report: Report,
    },
    /// Give back a slot whose fork failed.
    Release(SlotNumber),
    /// Read all beats and answer with `Seen`; stamp the supervisor's own.
    Look,
    /// Read the settings of a new generation, bind what they add, and answer with `Configured` or `Misconfigured`.
    Configure {
        generation: u64,
    },
    /// This generation serves now: its settings and sockets are those of the server.
    Promote {
        generation: u64,
    },
    /// This generation never serves: forget what was made for it.
    Discard {
        generation: u64,
    },
    /// Try the new program beside this one, and answer with `Rehearsed`.
    Rehearse {
        path: Option<PathBuf>,
    },
    /// Nobody waits for that answer any more.
    CancelRehearsal,
    Reply {
        client: Client,
        answer: Answer,
    },
    StopObserver,
    KillObserver,
    CloseListeners,
    Emit(Notice),
    Exit(Ending),
}

/// A program that the life cycle leaves for (`Lifecycle::leaves_for`); `ExecFailed` says that it could not be run.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Image {
    /// The one that was rehearsed.
    New,
    /// The one that ran before.
    Old,
}

/// How a worker is ended that would not go.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Blow {
    /// `SIGABRT`: leaves a core file where cores are enabled.
    Abort,
    /// `SIGKILL`.
    Kill,
}

/// How the server ends.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Ending {
    /// It was asked to.
    Asked,
    /// The first generation could not boot.
    Boot,
    /// The first generation could not load the application.
    Load,
    /// The first generation could not be forked.
    Fork,
}

/// What is known of a worker's end.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) cause: Cause,
    pub(crate) status: Status,
    pub(crate) generation: u64,
    /// From fork to death.
    pub(crate) age: Duration,
    /// How long it drained, when it was asked to go and went.
    pub(crate) drained: Option<Duration>,
    /// Connections cut at the deadline.
    pub(crate) forced: u64,
    /// When its place is filled again.
    pub(crate) next_try: Option<Duration>,
    /// What the worker said before it failed to boot.
    pub(crate) text: Option<String>,
    /// It died before it was ready.
    pub(crate) in_boot: bool,
    pub(crate) oom: Oom,
}

/// A line for operators, with its metric (`events.rs` writes both).
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    Started {
        workers: u32,
        boot: Duration,
    },
    Stopping {
        how: Stop,
        from: Origin,
    },
    Stopped {
        forced: u64,
        duration: Duration,
    },
    WorkerReady {
        slot: SlotNumber,
        generation: u64,
        boot: Duration,
    },
    ForkFailed {
        slot: SlotNumber,
        why: ForkFailure,
        next_try: Duration,
    },
    WorkerSlow {
        slot: SlotNumber,
        beat_age: Duration,
    },
    WorkerStuck {
        slot: SlotNumber,
        beat_age: Duration,
        why: Cause,
    },
    Reloading {
        generation: u64,
        from: Origin,
    },
    Reloaded {
        generation: u64,
        workers: u32,
        duration: Duration,
    },
    ReloadFailed {
        generation: u64,
        stage: &'static str,
        text: Option<String>,
        duration: Duration,
    },
    Upgrading {
        from: Origin,
    },
    /// The new program serves, while the old workers stand by.
    Probation {
        generation: u64,
        workers: u32,
    },
    Upgraded {
        generation: u64,
        workers: u32,
        duration: Duration,
    },
    /// The running program was not replaced.
    UpgradeFailed {
        failure: Failure,
        duration: Duration,
    },
    /// The old program has come back.
    UpgradeRolledBack {
        failure: Failure,
        duration: Duration,
    },
    /// Its metrics are a gap until a new generation counts in new files.
    Damaged(Damaged),
    RecycleGranted {
        slot: SlotNumber,
        why: Cause,
    },
    /// `min_lifetime` bites: a worker asked to be replaced right after its birth.
    RecycleHeld {
        slot: SlotNumber,
        why: Cause,
        age: Duration,
    },
    /// No worker has lived for `give_up`.
    GivenUp {
        after: Duration,
    },
    WorkersChanged {
        old: u32,
        new: u32,
        from: Origin,
    },
    ChangeRefused {
        what: &'static str,
        why: &'static str,
        from: Origin,
        suppressed: u32,
    },
    Degraded {
        deaths: usize,
    },
    Recovered {
        ready: u32,
    },
    Paused(Origin),
    Resumed(Origin),
    ObserverDied {
        status: Status,
        next_try: Duration,
    },
    ObserverForkFailed {
        next_try: Duration,
    },
}

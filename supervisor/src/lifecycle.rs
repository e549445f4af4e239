//! Every decision about processes, as a pure machine: an event and the time in, commands out (S6).
//! It calls no kernel, reads no clock and draws from a source that it was given. `supervisor.rs` carries out.

pub(crate) mod asked;
pub(crate) mod cause;
mod deaths;
pub(crate) mod event;
pub(crate) mod failure;
mod fill;
pub(crate) mod handover;
mod limits;
mod observer;
mod orders;
mod pace;
pub(crate) mod picture;
mod place;
pub(crate) mod queues;
mod recycle;
mod reload;
mod stop;
pub(crate) mod upgrade;
mod watch;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use cause::Cause;
use event::{Blow, Command, Event, Notice, SlotNumber};
pub(crate) use limits::Limits;
use observer::ObserverLife;
use pace::{Budget, Jitter};
use place::{Place, State};
use recycle::Recycling;
use reload::{Again, Reload, Succession};
use stop::Stopping;
use upgrade::Upgrade;

#[derive(Clone, Debug)]
pub(crate) struct Lifecycle {
    limits: Limits,
    phase: Phase,
    /// How many workers there are to be; TTIN and TTOU move it.
    target: u32,
    /// The one that serves.
    generation: u64,
    /// The highest number given out.
    last_generation: u64,
    reload: Option<Reload>,
    again: Option<Again>,
    succession: Option<Succession>,
    upgrade: Option<Upgrade>,
    recycling: Recycling,
    /// Why `trim` lets workers go.
    scale_cause: Cause,
    /// Since when no worker serves.
    empty_since: Option<Instant>,
    places: Vec<Place>,
    observer: ObserverLife,
    is_paused: bool,
    is_degraded: bool,
    /// Since when all wanted workers have been ready together.
    full_since: Option<Instant>,
    budget: Budget,
    jitter: Jitter,
    next_look: Instant,
    /// No beat counts as older than this: before it, the supervisor itself was away (S39).
    forgiven: Instant,
    last_refusal: Option<Instant>,
    refusals: u32,
    last_damage: Option<Instant>,
}

/// The life of the server.
#[derive(Clone, Debug)]
enum Phase {
    /// Nothing is forked.
    New,
    /// The first generation boots; a failure of one ends the server.
    Starting { since: Instant },
    /// It serves, whatever dies.
    Running,
    /// On the way out, step by step.
    Stopping(Stopping),
    /// `Exit` was said.
    Ended,
}

impl Lifecycle {
    pub(crate) fn new(limits: Limits, seed: u64, now: Instant) -> Self {
        let places = (0..limits.slots()).map(|_| Place::empty(now)).collect();
        Self {
            phase: Phase::New,
            target: limits.workers,
            generation: 1,
            last_generation: 1,
            reload: None,
            again: None,
            succession: None,
            upgrade: None,
            recycling: Recycling::default(),
            scale_cause: Cause::Ttou,
            empty_since: None,
            places,
            observer: ObserverLife::absent(),
            is_paused: false,
            is_degraded: false,
            full_since: None,
            budget: Budget::default(),
            jitter: Jitter::new(seed),
            next_look: now,
            forgiven: now,
            last_refusal: None,
            refusals: 0,
            last_damage: None,
            limits,
        }
    }

    /// Says what to do about `event`, which happened at `now`.
    pub(crate) fn on(&mut self, event: Event, now: Instant) -> Vec<Command> {
        let mut out = Vec::new();
        self.forgive_own_gap(now);
        match event {
            Event::Started => self.started(now, &mut out),
            Event::Tick => self.tick(now, &mut out),
            Event::Ready(slot) => self.ready(slot, now, &mut out),
            Event::BootFailed { slot, stage, text } => self.boot_failed(slot, stage, text),
            Event::ForkFailed { slot, why } => self.fork_failed(slot, why, now, &mut out),
            Event::Exited { slot, status, oom } => {
                self.exited(slot, (status, oom), now, &mut out);
            }
            Event::Stopped(slot) => self.stopped(slot, now),
            Event::Drained { slot, forced } => self.drained(slot, forced, now),
            Event::Seen { slot, beat_age, private_bytes, is_idle_acceptor, is_stopped } => {
                self.seen(slot, (beat_age, is_stopped), now, &mut out);
                self.seen_idle(slot, is_idle_acceptor, now, &mut out);
                self.seen_grown(slot, private_bytes, now, &mut out);
            }
            Event::RecycleWanted { slot, why } => self.want_recycle(slot, why, now, &mut out),
            Event::Damaged(file) => self.damaged(file, now, &mut out),
            Event::ObserverForkFailed => self.observer.fork_failed(self.end(), now, &mut out),
            Event::ObserverChanged => self.observer.replace(now, &mut out),
            Event::ObserverExited(status) => {
                self.observer.exited(status, self.end(), now, &mut out);
            }
            Event::ObserverSeen { beat_age } => {
                self.observer.seen(beat_age.min(now - self.forgiven), &mut out);
            }
            Event::Reload(from) => self.reload(from, now, &mut out),
            Event::Upgrade(path, from) => self.upgrade(path, from, now, &mut out),
            Event::Rehearsed(result) => self.rehearsed(result, now, &mut out),
            Event::ExecFailed(text) => self.exec_failed(&text, now, &mut out),
            Event::Adopted => self.adopted(now, &mut out),
            Event::Configured { generation, limits } => {
                self.configured(generation, limits, now, &mut out);
            }
            Event::Misconfigured { generation, exit, text } => {
                self.misconfigured(generation, exit, text, now, &mut out);
            }
            Event::Retire(slot, from) => self.retire(slot, from, now, &mut out),
            Event::Scale(scale, from) => self.scale(scale, from, now, &mut out),
            Event::Pause(from) => self.pause(from, now, &mut out),
            Event::Resume(from) => self.resume(from, now, &mut out),
            Event::Stop(how, from) => self.stop(how, from, now, &mut out),
        }
        self.settle(now, &mut out);
        out
    }

    /// When `Tick` is wanted; none before the start and after the end.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let step = match &self.phase {
            Phase::New | Phase::Ended => return None,
            Phase::Starting { .. } => None,
            Phase::Running => {
                let upgrade = self.upgrade_deadline();
                let recycle = self.recycle_due();
                let told = self.succession.as_ref().map(|succession| succession.until);
                let steps =
                    [self.recovery(), self.surrender(), recycle, upgrade, self.reload_due(), told];
                steps.into_iter().flatten().min()
            }
            Phase::Stopping(stopping) => stopping.deadline(),
        };
        let places =
            self.places.iter().filter_map(|place| place.deadline(self.limits.boot_timeout));
        [Some(self.next_look), step, self.observer.deadline()]
            .into_iter()
            .flatten()
            .chain(places)
            .min()
    }

    /// Workers that say they can serve, of the generation that serves.
    pub(crate) fn ready_workers(&self) -> u32 {
        self.count(|place| place.is_ready() && place.is_member_of(self.generation))
    }

    pub(crate) fn workers(&self) -> u32 {
        self.target
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    fn started(&mut self, now: Instant, out: &mut Vec<Command>) {
        match self.phase {
            Phase::New => {
                self.phase = Phase::Starting { since: now };
                self.next_look = now + self.look_interval();
                self.forgiven = now;
                // Before the first worker, so that it prints all they have to say (O1).
                if self.limits.has_observer {
                    self.observer.start(now, out);
                }
            }
            Phase::Starting { .. } | Phase::Running | Phase::Stopping(_) | Phase::Ended => {}
        }
    }

    fn ready(&mut self, slot: SlotNumber, now: Instant, out: &mut Vec<Command>) {
        let boot_timeout = self.limits.boot_timeout;
        // A generation that is to replace a paused one serves from the start (S49).
        let pause = self.is_paused && self.reload.is_none();
        let Some(place) = self.place(slot) else { return };
        match place.state {
            State::Booting { since } if now < since + boot_timeout => {
                place.state = State::Ready { is_slow: false };
                place.ready_since = Some(now);
                place.down_since = None;
                let (generation, boot) = (place.generation, now - place.born);
                out.push(Command::Emit(Notice::WorkerReady { slot, generation, boot }));
                self.tell_ready(generation, slot, out);
                if pause {
                    out.push(Command::Pause(slot));
                }
            }
            // Too late, or said twice.
            State::Empty
            | State::Waiting { .. }
            | State::Booting { .. }
            | State::Ready { .. }
            | State::Standby
            | State::Draining { .. }
            | State::Aborting { .. } => {}
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Command>) {
        if matches!(self.phase, Phase::New | Phase::Ended) {
            return;
        }
        let boot_timeout = self.limits.boot_timeout;
        for (slot, place) in numbered(&mut self.places) {
            let why = match place.state {
                State::Booting { since } if since + boot_timeout <= now => Cause::BootTimeout,
                State::Draining { kill_at, why, .. } if kill_at <= now => why,
                State::Aborting { kill_at: Some(kill_at), why } if kill_at <= now => why,
                State::Empty
                | State::Waiting { .. }
                | State::Booting { .. }
                | State::Ready { .. }
                | State::Standby
                | State::Draining { .. }
                | State::Aborting { .. } => continue,
            };
            kill(slot, place, why, out);
        }
        self.observer.tick(now, out);
        if self.next_look <= now {
            self.next_look = now + self.look_interval();
            out.push(Command::Look);
        }
    }

    /// What follows from the new state, whatever the event was.
    fn settle(&mut self, now: Instant, out: &mut Vec<Command>) {
        self.advance_upgrade(now, out);
        if self.is_serving() {
            self.promote(now, out);
            self.advance_recycle(now, out);
            if self.is_between_images() {
                self.hold_vacancies(now);
            } else {
                self.fill(self.generation, self.target, now, out);
            }
            if let Some(Reload { generation, plan: Some(plan), .. }) = &self.reload {
                self.fill(*generation, plan.target, now, out);
            }
        }
        if let Phase::Starting { since } = self.phase
            && self.ready_workers() >= self.target
        {
            self.phase = Phase::Running;
            out.push(Command::Emit(Notice::Started { workers: self.target, boot: now - since }));
            self.settle(now, out);
            return;
        }
        self.advance_succession(now, out);
        self.reload_again(now, out);
        self.judge_fullness(now, out);
        // A recovery or a vacated place lets the next one through.
        self.advance_recycle(now, out);
        self.advance_stop(now, out);
    }

    /// How long a worker may finish what is open, and when it is killed.
    fn drain_bounds(&self) -> (Duration, Duration) {
        let patience = self.limits.graceful_timeout;
        (patience, patience + self.limits.abort_grace)
    }

    /// Whether the dead are replaced.
    fn is_serving(&self) -> bool {
        match &self.phase {
            Phase::Starting { .. } | Phase::Running => true,
            Phase::Stopping(stopping) => stopping.is_waiting(),
            Phase::New | Phase::Ended => false,
        }
    }

    fn place(&mut self, slot: SlotNumber) -> Option<&mut Place> {
        self.places.get_mut(usize::try_from(slot.0).ok()?)
    }

    fn members(&self, generation: u64) -> u32 {
        self.count(|place| place.is_member_of(generation))
    }

    fn ready_members(&mut self, generation: u64) -> impl Iterator<Item = SlotNumber> {
        numbered(&mut self.places)
            .filter(move |(_, place)| place.is_ready() && place.is_member_of(generation))
            .map(|(slot, _)| slot)
    }

    fn count(&self, is_counted: impl Fn(&Place) -> bool) -> u32 {
        u32::try_from(self.places.iter().filter(|place| is_counted(place)).count())
            .unwrap_or(u32::MAX)
    }

    fn look_interval(&self) -> Duration {
        match self.limits.timeout {
            Duration::ZERO => Duration::from_secs(1),
            timeout => (timeout / 4).min(Duration::from_secs(1)),
        }
    }
}

fn numbered(places: &mut [Place]) -> impl Iterator<Item = (SlotNumber, &mut Place)> {
    (0..).map(SlotNumber).zip(places)
}

/// Ends a member that is not wanted any more, as gently as its state allows. `bounds`: how long it may
/// take, and when it is killed.
fn dismiss(
    slot: SlotNumber,
    place: &mut Place,
    why: Cause,
    (patience, fuse): (Duration, Duration),
    now: Instant,
    out: &mut Vec<Command>,
) {
    place.is_member = false;
    match place.state {
        State::Empty | State::Waiting { .. } => place.vacate(),
        State::Booting { .. } => kill(slot, place, why, out),
        State::Ready { .. } | State::Standby => {
            place.state =
                State::Draining { since: now, kill_at: now + fuse, why, has_stopped: false };
            // An idle connection is moved by its next request, never cut before the deadline (S42).
            out.push(Command::Drain { slot, deadline: patience, idle: patience });
        }
        State::Draining { .. } | State::Aborting { .. } => {}
    }
}

fn kill(slot: SlotNumber, place: &mut Place, why: Cause, out: &mut Vec<Command>) {
    place.state = State::Aborting { kill_at: None, why };
    out.push(Command::Kill { slot, how: Blow::Kill });
}

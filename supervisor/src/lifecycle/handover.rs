//! What one image of the program tells the next of the server's life: facts about every place, with times as ages, because
//! a moment cannot be written down. Serialized, it is a part of the state's format (`upgrade/state.rs`).

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::asked::Client;
use super::cause::Cause;
use super::event::QueueNumber;
use super::event::{Command, SlotNumber};
use super::failure::Failure;
use super::place::{Place, State};
use super::reload::Reload;
use super::upgrade::{Step, Upgrade};
use super::{Lifecycle, Limits, Phase};

/// The life of a server between two programs.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Handover {
    generation: u64,
    last_generation: u64,
    /// What the settings have asked for, and what operators have made of it.
    configured: u32,
    target: u32,
    is_paused: bool,
    is_degraded: bool,
    has_observer: bool,
    /// Those that are not empty.
    places: Vec<Tenancy>,
    wishes: Vec<(u32, Cause)>,
    /// Has been replaced, and has not closed its listeners.
    recycled: Option<(u32, Cause)>,
    /// How long ago the upgrade was asked for.
    upgrade_age: Duration,
    clients: Vec<u64>,
    /// Why it has failed: then the old program is the one that reads this.
    pub(crate) failure: Option<Failure>,
}

/// One place.
#[derive(Clone, Serialize, Deserialize, Debug)]
struct Tenancy {
    slot: u32,
    generation: u64,
    is_member: bool,
    #[serde(default)]
    queue: QueueNumber,
    age: Duration,
    ready_age: Option<Duration>,
    failures: u32,
    forced: u64,
    state: Stand,
}

/// A [`State`] with times relative to the handover.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
enum Stand {
    Waiting { pause: Duration },
    Booting { age: Duration },
    Ready,
    Standby,
    Draining { age: Duration, fuse: Duration, why: Cause, has_stopped: bool },
    Aborting { fuse: Option<Duration>, why: Cause },
}

impl Lifecycle {
    /// All that the next image must know. None unless an upgrade is at the point of leaving.
    pub(crate) fn hand_over(&self, now: Instant) -> Option<Handover> {
        let upgrade = self.upgrade.as_ref()?;
        let failure = match &upgrade.step {
            Step::Leaving => None,
            Step::Returning(failure) => Some(failure.clone()),
            Step::Rehearsing { .. } | Step::Booting | Step::Probation { .. } => return None,
        };
        let places = (0..).zip(&self.places);
        Some(Handover {
            generation: self.generation,
            last_generation: self.last_generation,
            configured: self.limits.workers,
            target: self.target,
            is_paused: self.is_paused,
            is_degraded: self.is_degraded,
            has_observer: self.observer.is_running(),
            places: places.filter_map(|(slot, place)| tenancy(slot, place, now)).collect(),
            wishes: self.recycling.wishes().map(|(slot, why)| (slot.0, why)).collect(),
            recycled: self.recycling.leaving().map(|(slot, why)| (slot.0, why)),
            upgrade_age: now - upgrade.since,
            clients: upgrade.clients.iter().map(|client| client.0).collect(),
            failure,
        })
    }

    /// Goes on where another image has left off.
    pub(crate) fn adopt(limits: Limits, handover: Handover, seed: u64, now: Instant) -> Self {
        let mut life = Self::new(limits, seed, now);
        let slots = handover.places.iter().map(|tenancy| tenancy.slot + 1).max().unwrap_or(0);
        let slots = usize::try_from(slots).unwrap_or_default().max(life.places.len());
        life.places.resize_with(slots, || Place::empty(now));
        life.phase = Phase::Running;
        life.generation = handover.generation;
        life.last_generation = handover.last_generation;
        life.is_paused = handover.is_paused;
        life.is_degraded = handover.is_degraded;
        // As it was: whether the settings ask for another number now is seen when they are configured (S49).
        life.limits.workers = handover.configured;
        life.target = handover.target;
        for tenancy in &handover.places {
            if let Some(place) = life.place(SlotNumber(tenancy.slot)) {
                move_in(place, tenancy, now);
            }
        }
        for (slot, why) in handover.wishes {
            life.recycling.wish_again(SlotNumber(slot), &life.places, why, now);
        }
        if let Some((slot, why)) = handover.recycled {
            life.recycling.go_on(SlotNumber(slot), &life.places, why, now);
        }
        if handover.has_observer || life.limits.has_observer {
            life.observer.adopt(handover.has_observer, now);
        }
        let step = match handover.failure {
            None => Step::Booting,
            Some(failure) => Step::Returning(failure),
        };
        let since = before(now, handover.upgrade_age);
        let clients = handover.clients.into_iter().map(Client).collect();
        life.upgrade = Some(Upgrade { since, clients, step });
        life
    }

    /// The first event of an image that has adopted: the new one boots its generation, the old one is back.
    pub(super) fn adopted(&mut self, now: Instant, out: &mut Vec<Command>) {
        self.next_look = now + self.look_interval();
        self.forgiven = now;
        self.observer.replace(now, out);
        match self.upgrade.as_ref().map(|upgrade| upgrade.step.clone()) {
            Some(Step::Returning(failure)) => self.has_returned(&failure, now, out),
            Some(Step::Booting) => {
                self.last_generation += 1;
                let generation = self.last_generation;
                self.reload = Some(Reload::of_upgrade(generation, now));
                out.push(Command::Configure { generation });
            }
            Some(Step::Rehearsing { .. } | Step::Leaving | Step::Probation { .. }) | None => {}
        }
    }
}

fn tenancy(slot: u32, place: &Place, now: Instant) -> Option<Tenancy> {
    let state = match place.state {
        State::Empty => return None,
        State::Waiting { until } => Stand::Waiting { pause: until.saturating_duration_since(now) },
        State::Booting { since } => Stand::Booting { age: now.saturating_duration_since(since) },
        State::Ready { .. } => Stand::Ready,
        State::Standby => Stand::Standby,
        State::Draining { since, kill_at, why, has_stopped } => Stand::Draining {
            age: now.saturating_duration_since(since),
            fuse: kill_at.saturating_duration_since(now),
            why,
            has_stopped,
        },
        State::Aborting { kill_at, why } => {
            let fuse = kill_at.map(|kill_at| kill_at.saturating_duration_since(now));
            Stand::Aborting { fuse, why }
        }
    };
    Some(Tenancy {
        slot,
        generation: place.generation,
        is_member: place.is_member,
        queue: place.queue,
        age: now.saturating_duration_since(place.born),
        ready_age: place.ready_since.map(|since| now.saturating_duration_since(since)),
        failures: place.failures,
        forced: place.forced,
        state,
    })
}

fn move_in(place: &mut Place, tenancy: &Tenancy, now: Instant) {
    place.generation = tenancy.generation;
    place.is_member = tenancy.is_member;
    place.queue = tenancy.queue;
    place.born = before(now, tenancy.age);
    place.ready_since = tenancy.ready_age.map(|age| before(now, age));
    place.failures = tenancy.failures;
    place.forced = tenancy.forced;
    place.state = match tenancy.state {
        Stand::Waiting { pause } => State::Waiting { until: now + pause },
        Stand::Booting { age } => State::Booting { since: before(now, age) },
        Stand::Ready => State::Ready { is_slow: false },
        Stand::Standby => State::Standby,
        Stand::Draining { age, fuse, why, has_stopped } => {
            State::Draining { since: before(now, age), kill_at: now + fuse, why, has_stopped }
        }
        Stand::Aborting { fuse, why } => {
            State::Aborting { kill_at: fuse.map(|fuse| now + fuse), why }
        }
    };
}

/// A moment `age` ago.
fn before(now: Instant, age: Duration) -> Instant {
    now.checked_sub(age).unwrap_or(now)
}

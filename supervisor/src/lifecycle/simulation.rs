//! The life cycle against a pretended world, from a seed (S7). `SAOLA_SIM_SEED=n` replays one life.
//! The world is as stubborn as the real one: some workers hang, some never drain, some ignore `SIGABRT`
//! because they are stopped, and nobody dies who was not killed or has not decided to.

mod commands;
mod operators;
mod rules;
mod workers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::asked::{Client, Origin};
use super::cause::Status;
use super::event::{Event, SlotNumber};
use super::pace::Jitter;
use super::{Lifecycle, Limits};
use crate::Exit;

#[test]
#[expect(clippy::disallowed_methods, reason = "a test reads its own environment")]
fn every_life_keeps_the_rules() {
    if let Ok(seed) = std::env::var("SAOLA_SIM_SEED") {
        live(seed.parse().expect("SAOLA_SIM_SEED is a number"));
        return;
    }
    for seed in 0..1_024 {
        if let Err(cause) = std::panic::catch_unwind(|| live(seed)) {
            panic!("a rule is broken; replay with SAOLA_SIM_SEED={seed}: {}", text_of(&*cause));
        }
    }
}

fn text_of(cause: &(dyn std::any::Any + Send)) -> String {
    cause.downcast_ref::<String>().cloned().unwrap_or_else(|| "see above".to_owned())
}

fn live(seed: u64) {
    let mut world = World::new(seed);
    world.tell(Event::Started);
    for _ in 0..250 {
        world.step();
        if world.exit.is_some() {
            break;
        }
        world.operate();
    }
    if world.exit.is_none() && !world.is_stopping() {
        world.settle_down();
    }
    world.end();
    assert!(world.unanswered.is_empty(), "nobody answered {:?}", world.unanswered);
    assert!(world.workers.is_empty(), "workers outlived the server: {:?}", world.workers);
    assert!(world.observer.is_none(), "the observer outlived the server");
}

/// A pretended worker.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
struct Worker {
    generation: u64,
    nature: Nature,
    is_ready: bool,
    was_ready: bool,
    /// Nobody has paused it.
    accepts: bool,
    /// Drained, quit, or being killed.
    is_leaving: bool,
    /// It was ended by force: it cannot count as an old generation that is let live.
    is_killed: bool,
    /// When its last beat was.
    beat: Instant,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Nature {
    Healthy,
    /// Exits before READY.
    BadBoot,
    /// Neither ready nor dead.
    Mute,
    /// Serves, then stops beating; `ABRT` ends it.
    Hangs,
    /// Stopped: nothing but KILL ends it.
    Frozen,
    /// Never finishes its drain, and does not answer `quit`.
    Clings,
    Crashes,
}

#[derive(Clone, Debug)]
enum Due {
    Ready(u32, u64),
    Dies(u32, u64, Status),
    Freezes(u32, u64),
    Closes(u32, u64),
    ObserverDies(u64),
    Rehearsed(u64),
}

#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
struct World {
    seed: Jitter,
    now: Instant,
    start: Instant,
    limits: Limits,
    life: Lifecycle,
    workers: BTreeMap<u32, Worker>,
    births: BTreeMap<u32, u64>,
    observer: Option<Instant>,
    observer_births: u64,
    due: Vec<(Instant, Due)>,
    forks: Vec<Instant>,
    /// Forks that operators asked for, in all.
    asked: u64,
    /// Since when it stops, and when it was last told so.
    stopped_at: Option<Instant>,
    exit: Option<Instant>,
    is_degraded: bool,
    is_closed: bool,
    /// Trouble is over: new workers are healthy.
    is_calm: bool,
    /// Reloads announced and not answered.
    reloads: i32,
    bury: Vec<u32>,
    /// After the start nobody boots any more, for a while.
    is_stormy: bool,
    /// How long the machine slept just now: nobody has beaten meanwhile.
    slept: Duration,
    /// Forks that failed and of which nobody was told yet.
    stillborn: Vec<u32>,
    /// Requests of operators that wait for their one final answer.
    unanswered: Vec<Client>,
    asked_for: u64,
    /// Who is being replaced by a token, and has not closed its listeners.
    recycled: Vec<u32>,
    /// The most slots that any settings have allowed.
    most_slots: u32,
    most_workers: u32,
    /// What workers weigh.
    sizes: Jitter,
    /// Upgrades announced and not ended.
    upgrades: i32,
    /// Programs that were tried, and whether the last of them is still awaited.
    rehearsals: u64,
    is_rehearsing: bool,
    /// Of the program that the one that runs has replaced.
    limits_before: Limits,
    /// Its observer is told to go while workers live.
    is_replacing: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Jitter::new(seed);
        let workers = u32::try_from(1 + random.next() % 6).unwrap();
        let limits = Limits {
            workers,
            max_workers: workers + u32::try_from(random.next() % 4).unwrap(),
            timeout: [Duration::ZERO, Duration::from_secs(4), Duration::from_secs(30)]
                [usize::try_from(random.next() % 3).unwrap()],
            boot_timeout: Duration::from_secs(5 + random.next() % 55),
            graceful_timeout: Duration::from_secs(1 + random.next() % 30),
            abort_grace: Duration::from_secs(2),
            pre_stop_delay: Duration::from_secs(random.next() % 3 / 2 * 7),
            max_old_generations: u32::try_from(1 + random.next() % 3).unwrap(),
            max_lifetime: [Duration::ZERO, Duration::from_secs(70)]
                [usize::try_from(random.next() % 2).unwrap()],
            min_lifetime: Duration::from_secs(1),
            max_memory: 100,
            max_memory_hard: 200,
            give_up: Duration::ZERO,
            has_observer: true,
            reuse_port: seed.is_multiple_of(2),
            upgrade_probation: Duration::from_secs(5),
        };
        let stormy = random.next() % 4;
        let start = Instant::now();
        Self {
            life: Lifecycle::new(limits.clone(), random.next(), start),
            seed: random,
            now: start,
            start,
            workers: BTreeMap::new(),
            births: BTreeMap::new(),
            observer: None,
            observer_births: 0,
            due: Vec::new(),
            forks: Vec::new(),
            asked: 0,
            stopped_at: None,
            exit: None,
            is_degraded: false,
            is_closed: false,
            is_calm: false,
            reloads: 0,
            bury: Vec::new(),
            is_stormy: stormy == 0,
            slept: Duration::ZERO,
            stillborn: Vec::new(),
            unanswered: Vec::new(),
            asked_for: 0,
            recycled: Vec::new(),
            most_slots: limits.slots(),
            most_workers: limits.max_workers,
            sizes: Jitter::new(seed),
            upgrades: 0,
            rehearsals: 0,
            is_rehearsing: false,
            limits_before: limits.clone(),
            is_replacing: false,
            limits,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.seed.next() % bound
    }

    fn is_stopping(&self) -> bool {
        self.stopped_at.is_some()
    }

    /// Lets time pass until the next thing that happens, and tells it.
    fn step(&mut self) {
        let deadline = self.life.deadline().expect("a living server always has a deadline");
        let next =
            self.due.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(i, (at, _))| (i, *at));
        match next {
            Some((i, at)) if at < deadline => {
                self.now = self.now.max(at);
                let (_, due) = self.due.remove(i);
                self.happen(&due);
            }
            _ => {
                self.now = self.now.max(deadline);
                // Now and then the supervisor itself was stopped, or the machine slept.
                if !self.is_stopping() && self.below(400) == 0 {
                    self.slept = Duration::from_secs(1 + self.seed.next() % 100);
                    self.now += self.slept;
                }
                self.tell(Event::Tick);
                assert!(
                    self.life.deadline().is_none_or(|next| next > self.now),
                    "a tick leaves nothing due"
                );
            }
        }
    }

    fn happen(&mut self, due: &Due) {
        match *due {
            Due::Ready(slot, birth) if self.lives(slot, birth) => {
                if let Some(worker) = self.workers.get_mut(&slot) {
                    worker.is_ready = !worker.is_leaving;
                    worker.was_ready = true;
                    worker.beat = self.now;
                }
                self.tell(Event::Ready(SlotNumber(slot)));
            }
            Due::Dies(slot, birth, status) if self.lives(slot, birth) => self.die(slot, status),
            Due::Freezes(slot, birth) if self.lives(slot, birth) => {
                if let Some(worker) = self.workers.get_mut(&slot) {
                    worker.beat = self.now;
                }
            }
            Due::Closes(slot, birth) if self.lives(slot, birth) => {
                self.tell(Event::Stopped(SlotNumber(slot)));
            }
            Due::ObserverDies(birth)
                if self.observer.is_some() && birth == self.observer_births =>
            {
                self.observer = None;
                self.tell(Event::ObserverExited(Status::Signaled { signal: 9, core: false }));
            }
            Due::Rehearsed(number) if self.is_rehearsing && number == self.rehearsals => {
                self.is_rehearsing = false;
                let is_good = self.is_calm || self.below(4) > 0;
                let result = if is_good { Ok(()) } else { Err((Exit::Boot, "exit 9".to_owned())) };
                self.tell(Event::Rehearsed(result));
            }
            Due::Ready(..)
            | Due::Rehearsed(_)
            | Due::Dies(..)
            | Due::Freezes(..)
            | Due::Closes(..)
            | Due::ObserverDies(_) => {}
        }
    }

    fn lives(&self, slot: u32, birth: u64) -> bool {
        self.workers.contains_key(&slot) && self.births.get(&slot) == Some(&birth)
    }

    fn later(&mut self, within_ms: u64, what: impl Fn(u64) -> Due, slot: u32) {
        let at = self.now + Duration::from_millis(1 + self.below(within_ms));
        let birth = self.births.get(&slot).copied().unwrap_or_default();
        self.due.push((at, what(birth)));
    }

    fn end(&mut self) {
        if self.exit.is_none() && !self.is_stopping() {
            self.ask_to_stop(Origin::default());
        }
        while self.exit.is_none() {
            self.step();
        }
        assert_eq!(self.reloads, 0, "a reload has no end");
        assert_eq!(self.upgrades, 0, "an upgrade has no end");
    }
}

//! The life cycle against a pretended world, from a seed (S7). `SAOLA_SIM_SEED=n` replays one life.
//! The world is as stubborn as the real one: some workers hang, some never drain, some ignore `SIGABRT`
//! because they are stopped, and nobody dies who was not killed or has not decided to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::cause::{Cause, Oom, Stage, Status};
use super::event::{
    Blow, Client, Command, Event, ForkFailure, Image, Notice, Origin, Scale, SlotNumber, Stop,
};
use super::pace::{DEATHS_PER_WORKER, Jitter};
use super::place::State;
use super::{Lifecycle, Limits, Phase};
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
            pre_stop_delay: Duration::from_secs(
                [0, 0, 7][usize::try_from(random.next() % 3).unwrap()],
            ),
            max_old_generations: u32::try_from(1 + random.next() % 3).unwrap(),
            max_lifetime: [Duration::ZERO, Duration::from_secs(70)]
                [usize::try_from(random.next() % 2).unwrap()],
            min_lifetime: Duration::from_secs(1),
            max_memory: 100,
            max_memory_hard: 200,
            give_up: Duration::ZERO,
            has_observer: true,
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

    fn die(&mut self, slot: u32, status: Status) {
        let worker = self.workers.remove(&slot).expect("only the living die");
        if !worker.was_ready && self.below(2) == 0 {
            let (stage, text) = (Stage::Boot, "no database".to_owned());
            self.workers.insert(slot, worker);
            self.tell(Event::BootFailed { slot: SlotNumber(slot), stage, text });
            self.workers.remove(&slot);
        }
        self.bury = vec![slot];
        self.tell(Event::Exited { slot: SlotNumber(slot), status, oom: Oom::No });
    }

    /// An operator, or bad luck.
    fn operate(&mut self) {
        let from = self.somebody();
        match self.below(64) {
            0 => {
                self.asked += u64::from(self.most_slots) + 20;
                self.tell(Event::Reload(from));
            }
            15 | 16 => {
                self.asked += 2 * u64::from(self.most_slots) + 40;
                self.tell(Event::Upgrade(None, from));
            }
            1 => self.scale(Scale::More, from),
            2 => self.scale(Scale::Fewer, from),
            14 => {
                let number = u32::try_from(self.below(9)).unwrap();
                self.asked += 9;
                self.scale(Scale::To(number), from);
            }
            12 => {
                let slot = SlotNumber(u32::try_from(self.below(9)).unwrap());
                self.asked += 8;
                self.tell(Event::Retire(slot, from));
            }
            13 => {
                self.unask(from);
                self.wish_for_recycling();
            }
            3 => self.tell(Event::Pause(from)),
            4 => self.tell(Event::Resume(from)),
            5 if self.below(12) == 0 => self.ask_to_stop(from),
            6..=9 => {
                self.unask(from);
                self.kill_somebody();
            }
            10 => {
                self.unask(from);
                self.retire_somebody();
            }
            11 => {
                self.unask(from);
                let (slot, stage) =
                    (SlotNumber(u32::try_from(self.below(9)).unwrap()), Stage::Load);
                // Words of the dead, and of slots that never were, mean nothing.
                if !self.workers.contains_key(&slot.0) {
                    self.tell(Event::Ready(slot));
                    self.tell(Event::BootFailed { slot, stage, text: String::new() });
                    self.tell(Event::Stopped(slot));
                    self.tell(Event::Drained { slot, forced: 0 });
                    self.tell(Event::Exited { slot, status: Status::Exited(3), oom: Oom::No });
                }
            }
            _ => self.unask(from),
        }
    }

    /// It came to nothing: nobody is to be answered.
    fn unask(&mut self, from: Origin) {
        self.unanswered.retain(|client| Some(*client) != from.client);
    }

    /// Every second one asks by the control socket, and waits.
    fn somebody(&mut self) -> Origin {
        if self.below(2) == 0 {
            return Origin::default();
        }
        self.asked_for += 1;
        let client = Client(self.asked_for);
        self.unanswered.push(client);
        Origin { client: Some(client), ..Origin::default() }
    }

    fn wish_for_recycling(&mut self) {
        let nth = usize::try_from(self.below(8)).unwrap();
        if let Some(&slot) = self.workers.keys().nth(nth) {
            self.asked += 8;
            self.tell(Event::RecycleWanted { slot: SlotNumber(slot), why: Cause::Requests });
        }
    }

    fn scale(&mut self, scale: Scale, from: Origin) {
        self.asked += 2;
        self.tell(Event::Scale(scale, from));
    }

    fn kill_somebody(&mut self) {
        let nth = usize::try_from(self.below(8)).unwrap();
        if let Some(&slot) = self.workers.keys().nth(nth) {
            self.die(slot, Status::Signaled { signal: 9, core: false });
        }
    }

    /// Somebody sends TERM to a worker: it says that it closes, and leaves.
    fn retire_somebody(&mut self) {
        let leaver = self
            .workers
            .iter()
            .find(|(_, w)| w.is_ready && !w.is_leaving && w.nature == Nature::Healthy);
        if let Some((&slot, _)) = leaver {
            self.asked += 1;
            let worker = self.workers.get_mut(&slot).expect("it was found");
            worker.is_leaving = true;
            worker.is_ready = false;
            self.tell(Event::Stopped(SlotNumber(slot)));
            self.later(500, |birth| Due::Dies(slot, birth, Status::Exited(0)), slot);
        }
    }

    fn later(&mut self, within_ms: u64, what: impl Fn(u64) -> Due, slot: u32) {
        let at = self.now + Duration::from_millis(1 + self.below(within_ms));
        let birth = self.births.get(&slot).copied().unwrap_or_default();
        self.due.push((at, what(birth)));
    }

    fn ask_to_stop(&mut self, from: Origin) {
        let how = if self.below(4) == 0 { Stop::Quick } else { Stop::Graceful };
        self.stopped_at.get_or_insert(self.now);
        self.tell(Event::Stop(how, from));
    }

    /// With events ended, the count converges to the configured number.
    fn settle_down(&mut self) {
        self.is_calm = true;
        let from = Origin::default();
        self.asked += u64::from(self.most_slots);
        self.tell(Event::Resume(from));
        // Those that misbehave are found or are ended by hand; the dead of the past are replaced by healthy ones.
        while let Some(slot) =
            self.workers.iter().find(|(_, w)| w.nature != Nature::Healthy).map(|(&s, _)| s)
        {
            self.die(slot, Status::Signaled { signal: 9, core: false });
            if self.exit.is_some() || self.is_stopping() {
                return;
            }
        }
        let until = self.now + Duration::from_mins(10);
        while self.now < until && self.exit.is_none() && !self.is_stopping() {
            self.step();
        }
        if self.exit.is_none() && !self.is_stopping() {
            assert_eq!(
                self.life.ready_workers(),
                self.life.workers(),
                "the count does not converge"
            );
            assert_eq!(self.reloads, 0, "a reload has no end");
            assert_eq!(self.upgrades, 0, "an upgrade has no end");
            assert!(!self.is_degraded, "all are ready and it is still degraded");
            assert!(self.unanswered.is_empty(), "nobody answered {:?}", self.unanswered);
        }
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

    /// Hands an event over, carries the answer out, and checks every rule.
    fn tell(&mut self, event: Event) {
        let commands = self.life.on(event, self.now);
        let mut follow = Vec::new();
        for command in commands {
            assert!(self.exit.is_none(), "something is said after the end: {command:?}");
            self.obey(command, &mut follow);
        }
        assert!(self.bury.is_empty(), "a death without a report");
        self.check();
        for event in follow {
            if self.exit.is_none() {
                self.tell(event);
            }
        }
        self.change_program();
    }

    /// Runs another program in the place of this one, as the supervisor does before it waits again. Its whole life is what
    /// was written down for it.
    fn change_program(&mut self) {
        let Some(image) = self.life.leaves_for() else { return };
        if self.below(8) == 0 && !self.is_calm {
            return self.tell(Event::ExecFailed("no such file".to_owned()));
        }
        let handover = self.life.hand_over(self.now).expect("it is leaving");
        let text = serde_json::to_string(&handover).expect("it can be written");
        let handover = serde_json::from_str(&text).expect("and read");
        let limits = match image {
            Image::New => {
                self.limits_before = self.limits.clone();
                self.limits.clone()
            }
            Image::Old => self.limits_before.clone(),
        };
        self.life = Lifecycle::adopt(limits, handover, self.seed.next(), self.now);
        self.is_replacing = true;
        self.tell(Event::Adopted);
        self.is_replacing = false;
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    fn obey(&mut self, command: Command, follow: &mut Vec<Event>) {
        match command {
            Command::Fork { slot, generation } => self.fork(slot.0, generation, follow),
            Command::Bury { slot, report } => {
                assert_eq!(self.bury.pop(), Some(slot.0), "a report without a death: {report:?}");
            }
            Command::Drain { slot, deadline, .. } | Command::Stop { slot, deadline, .. } => {
                self.drain(slot.0, deadline);
            }
            Command::Quit(slot) => self.quit(slot.0),
            Command::Kill { slot, how } => self.strike(slot.0, how),
            Command::ForkObserver => {
                assert!(self.observer.is_none(), "two observers");
                self.observer = Some(self.now);
                self.observer_births += 1;
                let birth = self.observer_births;
                if self.below(3) == 0 && !self.is_calm {
                    let at = self.now + Duration::from_millis(self.seed.next() % 90_000);
                    self.due.push((at, Due::ObserverDies(birth)));
                }
            }
            Command::StopObserver => {
                assert!(
                    self.workers.is_empty() || self.is_replacing,
                    "the observer leaves before the workers"
                );
                // A stubborn one does not go.
                if self.below(3) > 0 {
                    let at = self.now + Duration::from_millis(self.seed.next() % 2_000);
                    self.due.push((at, Due::ObserverDies(self.observer_births)));
                }
            }
            Command::KillObserver => {
                assert!(
                    self.is_stopping()
                        || self.life.observer.is_running()
                        || matches!(self.life.phase, Phase::Stopping(_)),
                    "an observer that beats is killed"
                );
                let at = self.now + Duration::from_millis(5);
                self.due.push((at, Due::ObserverDies(self.observer_births)));
            }
            Command::Look => self.look(follow),
            Command::CloseListeners => {
                assert!(!self.is_closed, "listeners are closed twice");
                self.is_closed = true;
            }
            Command::Rehearse { .. } => {
                self.rehearsals += 1;
                self.is_rehearsing = true;
                // Some never answer.
                if self.is_calm || self.below(6) > 0 {
                    let at = self.now + Duration::from_millis(1 + self.seed.next() % 4_000);
                    self.due.push((at, Due::Rehearsed(self.rehearsals)));
                }
            }
            Command::CancelRehearsal => self.is_rehearsing = false,
            Command::Configure { generation } => self.configure(generation, follow),
            Command::Promote { .. } => {
                self.limits = self.life.limits.clone();
            }
            Command::Discard { .. } => {}
            Command::Reply { client, answer } => {
                assert!(self.unanswered.contains(&client), "answered twice: {client:?} {answer:?}");
                if answer.is_final() {
                    self.unanswered.retain(|waiting| *waiting != client);
                }
            }
            Command::Emit(notice) => self.hear(&notice),
            Command::Exit(_) => self.exit = Some(self.now),
            Command::Release(slot) => {
                self.stillborn.retain(|&stillborn| stillborn != slot.0);
                assert!(!self.workers.contains_key(&slot.0), "a living owner is released");
            }
            Command::Pause(slot) | Command::Resume(slot) => {
                assert!(self.workers.contains_key(&slot.0), "an order for nobody");
            }
        }
    }

    /// Some settings are wrong, some change the number of workers, some the bounds.
    fn configure(&mut self, generation: u64, follow: &mut Vec<Event>) {
        if !self.is_calm && self.below(5) == 0 {
            let text = "workers: \"many\" is no number".to_owned();
            follow.push(Event::Misconfigured { generation, exit: Exit::Usage, text });
            return;
        }
        let mut limits = self.limits.clone();
        if !self.is_calm && self.below(2) == 0 {
            limits.workers = 1 + u32::try_from(self.below(6)).unwrap();
            limits.max_workers = limits.workers + u32::try_from(self.below(3)).unwrap();
        }
        self.most_slots = self.most_slots.max(limits.slots());
        self.most_workers = self.most_workers.max(limits.max_workers);
        self.asked += u64::from(limits.slots());
        follow.push(Event::Configured { generation, limits });
    }

    fn fork(&mut self, slot: u32, generation: u64, follow: &mut Vec<Event>) {
        assert!(!self.is_closed, "a fork after the listeners were closed");
        assert!(slot < self.most_slots, "slot {slot} is beyond the bound");
        self.forks.push(self.now);
        if !self.is_calm && self.below(40) == 0 {
            let slot = SlotNumber(slot);
            let why = if self.below(4) == 0 {
                ForkFailure::Threads
            } else {
                ForkFailure::System("EAGAIN".into())
            };
            self.stillborn.push(slot.0);
            follow.push(Event::ForkFailed { slot, why });
            return;
        }
        // The first generation is mostly good: else most lives would end at once.
        let nature = match self.below(if generation == 1 { 60 } else { 12 }) {
            _ if self.is_calm => Nature::Healthy,
            _ if self.is_stormy && matches!(self.life.phase, Phase::Running) => Nature::BadBoot,
            0 => Nature::BadBoot,
            1 => Nature::Mute,
            2 => Nature::Hangs,
            3 => Nature::Frozen,
            4 => Nature::Clings,
            5..=8 => Nature::Crashes,
            _ => Nature::Healthy,
        };
        let beat = self.now;
        let worker = Worker {
            generation,
            nature,
            is_ready: false,
            was_ready: false,
            is_leaving: false,
            is_killed: false,
            beat,
        };
        assert!(self.workers.insert(slot, worker).is_none(), "two living owners of slot {slot}");
        *self.births.entry(slot).or_default() += 1;
        match nature {
            Nature::BadBoot if self.is_stormy => {
                self.later(20, |b| Due::Dies(slot, b, Status::Exited(3)), slot);
            }
            Nature::BadBoot => self.later(3_000, |b| Due::Dies(slot, b, Status::Exited(3)), slot),
            Nature::Mute => {}
            Nature::Healthy | Nature::Clings => self.later(2_500, |b| Due::Ready(slot, b), slot),
            Nature::Crashes => {
                self.later(500, |b| Due::Ready(slot, b), slot);
                let status = Status::Signaled { signal: 11, core: true };
                self.later(20_000, |b| Due::Dies(slot, b, status), slot);
            }
            Nature::Hangs | Nature::Frozen => {
                self.later(500, |b| Due::Ready(slot, b), slot);
                self.later(20_000, |b| Due::Freezes(slot, b), slot);
            }
        }
    }

    fn drain(&mut self, slot: u32, deadline: Duration) {
        assert!(deadline <= self.limits.graceful_timeout, "a drain longer than its bound");
        let worker = self.workers.get_mut(&slot).expect("an order for nobody");
        worker.is_leaving = true;
        worker.is_ready = false;
        let nature = worker.nature;
        let state = self.life.places[usize::try_from(slot).unwrap()].state;
        let is_planned = |why| {
            matches!(
                why,
                Cause::Reload
                    | Cause::Upgrade
                    | Cause::Requests
                    | Cause::Lifetime
                    | Cause::MaxMemory
            )
        };
        if let State::Draining { why: Cause::Requests | Cause::Lifetime | Cause::MaxMemory, .. } =
            state
            && matches!(self.life.phase, Phase::Running)
        {
            let places = &self.life.places;
            self.recycled.retain(|&old| {
                let place = places.get(usize::try_from(old).unwrap());
                let is_recycled = matches!(
                    place.map(|place| place.state),
                    Some(State::Draining {
                        why: Cause::Requests | Cause::Lifetime | Cause::MaxMemory,
                        has_stopped: false,
                        ..
                    })
                );
                old != slot && is_recycled
            });
            assert!(self.recycled.is_empty(), "two tokens: {:?} and {slot}", self.recycled);
            self.recycled.push(slot);
        }
        if matches!(state, State::Draining { why, .. } if is_planned(why)) && !self.is_stopping() {
            let serving = self.workers.values().filter(|w| w.is_ready && !w.is_leaving).count();
            // Those that crashed just then are no fault of who leaves now; their places are not ready.
            let missing = match state {
                State::Draining { why: Cause::Reload | Cause::Upgrade, .. } => 0,
                _ => self.life.workers().saturating_sub(self.life.ready_workers()),
            };
            let wanted = self.life.workers() - missing;
            assert!(
                serving >= usize::try_from(wanted).unwrap(),
                "drained before its successors serve: {serving} of {wanted}, {state:?}"
            );
        }
        if nature == Nature::Healthy || nature == Nature::Crashes {
            let longest = u64::try_from(deadline.as_millis()).unwrap().max(1);
            self.later(longest, |b| Due::Dies(slot, b, Status::Exited(0)), slot);
            self.later(longest, |b| Due::Closes(slot, b), slot);
        }
    }

    fn quit(&mut self, slot: u32) {
        let worker = self.workers.get_mut(&slot).expect("an order for nobody");
        worker.is_leaving = true;
        worker.is_ready = false;
        worker.is_killed = true;
        if worker.nature == Nature::Healthy {
            self.later(50, |b| Due::Dies(slot, b, Status::Exited(0)), slot);
        }
    }

    fn strike(&mut self, slot: u32, how: Blow) {
        let Some(worker) = self.workers.get_mut(&slot) else {
            assert!(self.stillborn.contains(&slot), "a blow for nobody");
            return;
        };
        worker.is_leaving = true;
        worker.is_ready = false;
        worker.is_killed = true;
        let is_frozen = worker.nature == Nature::Frozen;
        let signal = match how {
            Blow::Abort if is_frozen => return,
            Blow::Abort => 6,
            Blow::Kill => 9,
        };
        let status = Status::Signaled { signal, core: false };
        self.later(5, |b| Due::Dies(slot, b, status), slot);
    }

    fn look(&mut self, follow: &mut Vec<Event>) {
        for (&slot, worker) in &self.workers {
            let is_hung = matches!(worker.nature, Nature::Hangs | Nature::Frozen);
            let beat_age = if is_hung { self.now - worker.beat } else { self.slept };
            let private_bytes = Some(self.sizes.next() % 150).filter(|_| !self.is_calm);
            follow.push(Event::Seen {
                slot: SlotNumber(slot),
                beat_age,
                private_bytes,
                is_idle_acceptor: false,
                is_stopped: worker.nature == Nature::Frozen,
            });
        }
        if self.observer.is_some() {
            follow.push(Event::ObserverSeen { beat_age: self.slept });
        }
        self.slept = Duration::ZERO;
    }

    fn hear(&mut self, notice: &Notice) {
        match notice {
            Notice::Degraded { .. } => {
                assert!(!self.is_degraded, "degraded twice");
                self.is_degraded = true;
            }
            Notice::Recovered { .. } => self.is_degraded = false,
            Notice::Reloading { .. } => self.reloads += 1,
            Notice::Upgrading { .. } => self.upgrades += 1,
            Notice::Upgraded { .. }
            | Notice::UpgradeFailed { .. }
            | Notice::UpgradeRolledBack { .. } => self.upgrades -= 1,
            // The successor, and those after it that cannot boot.
            Notice::RecycleGranted { .. } => self.asked += 1,
            Notice::Reloaded { .. } | Notice::ReloadFailed { .. } => self.reloads -= 1,
            Notice::WorkerStuck { slot, beat_age, .. } => {
                let worker = &self.workers[&slot.0];
                assert!(
                    matches!(worker.nature, Nature::Hangs | Nature::Frozen),
                    "a healthy one is called stuck"
                );
                assert!(*beat_age >= self.limits.timeout && !self.limits.timeout.is_zero());
            }
            Notice::Started { .. }
            | Notice::Stopping { .. }
            | Notice::Stopped { .. }
            | Notice::WorkerReady { .. }
            | Notice::ForkFailed { .. }
            | Notice::WorkerSlow { .. }
            | Notice::Probation { .. }
            | Notice::WorkersChanged { .. }
            | Notice::ChangeRefused { .. }
            | Notice::Paused(_)
            | Notice::RecycleHeld { .. }
            | Notice::GivenUp { .. }
            | Notice::Resumed(_)
            | Notice::ObserverDied { .. }
            | Notice::ObserverForkFailed { .. } => {}
        }
    }

    fn check(&mut self) {
        assert!((0..=1).contains(&self.reloads), "each reload has one end");
        assert!((0..=1).contains(&self.upgrades), "each upgrade has one end");
        assert!(self.life.workers() >= 1 && self.life.workers() <= self.most_workers);
        if let Some(since) = self.stopped_at {
            let limits = &self.limits;
            let bound = limits.pre_stop_delay
                + limits.graceful_timeout
                + limits.abort_grace
                + Duration::from_secs(3);
            // 100 ms: what the pretended kernel takes to let the killed die.
            assert!(
                self.now - since <= bound + Duration::from_millis(100),
                "the stop takes too long"
            );
        }
        let mut old: Vec<u64> = self
            .workers
            .values()
            .filter(|worker| {
                worker.generation != self.life.generation()
                    && !self.life.is_coming(worker.generation)
                    && !worker.is_killed
            })
            .map(|worker| worker.generation)
            .collect();
        old.sort_unstable();
        old.dedup();
        let allowed = usize::try_from(self.limits.max_old_generations).unwrap();
        assert!(old.len() <= allowed, "old generations pile up: {old:?}");
        if !self.is_stopping() && self.exit.is_none() && self.now > self.start {
            let kept = self.life.members(self.life.generation);
            let is_full = self.life.places.iter().all(|place| place.state != State::Empty);
            // Whoever is forked between two programs would run the wrong one.
            let is_failed =
                matches!(self.life.phase, Phase::Stopping(_)) || self.life.is_between_images();
            assert!(
                kept == self.life.target || is_full || is_failed,
                "workers + due respawns = configured"
            );
        }
        self.forks.retain(|&at| self.now - at < Duration::from_mins(1));
        let per_slot = 1 + u64::try_from(DEATHS_PER_WORKER).unwrap() + 6;
        let bound = u64::from(self.most_workers) * per_slot + self.asked;
        assert!(u64::try_from(self.forks.len()).unwrap() <= bound, "forks are not bounded");
    }
}

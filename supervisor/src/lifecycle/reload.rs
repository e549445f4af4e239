//! Reload by generations: the new one serves before the old one leaves, or is given up unseen (S45-S49).

use std::time::{Duration, Instant};

use super::asked::{Client, Origin};
use super::cause::Cause;
use super::event::{Answer, Command, Damaged, Notice, SlotNumber};
use super::orders::{UPGRADING, tell};
use super::place::{Place, State};
use super::upgrade::Past;
use super::{Lifecycle, Limits, Phase, dismiss, kill, numbered};
use crate::Exit;

/// A generation that is to take over from the one that serves.
#[derive(Clone, Debug)]
pub(super) struct Reload {
    pub(super) generation: u64,
    since: Instant,
    from: Origin,
    /// Who waits for its end.
    clients: Vec<Client>,
    /// What it will run with; none while its settings are read.
    pub(super) plan: Option<Plan>,
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) limits: Limits,
    pub(super) target: u32,
}

/// A reload asked for while none could begin; any number of them are one.
#[derive(Clone, Debug)]
pub(super) struct Again {
    from: Origin,
    pub(super) clients: Vec<Client>,
}

/// A generation that serves, which is told to those who wait as soon as nobody of the old one accepts any more:
/// what they do next is to meet the new one.
#[derive(Clone, Debug)]
pub(super) struct Succession {
    clients: Vec<Client>,
    answer: Answer,
    old: u64,
    /// A worker that does not hear keeps nobody waiting for longer.
    pub(super) until: Instant,
}

impl Reload {
    /// The generation of a new program; who waits for it is kept with the upgrade.
    pub(super) fn of_upgrade(generation: u64, now: Instant) -> Self {
        Self { generation, since: now, from: Origin::default(), clients: Vec::new(), plan: None }
    }
}

impl Lifecycle {
    pub(super) fn reload(&mut self, from: Origin, now: Instant, out: &mut Vec<Command>) {
        match self.phase {
            Phase::Running if self.upgrade.is_some() => {
                self.refuse("reload", UPGRADING, Exit::Busy, from, now, out);
            }
            Phase::Running if self.reload.is_none() && !self.is_crowded(now) => {
                tell(from.client.as_slice(), &Answer::Begun("reloading"), out);
                self.begin_reload(from, from.client.into_iter().collect(), now, out);
            }
            Phase::Starting { .. } | Phase::Running => {
                tell(from.client.as_slice(), &Answer::Begun("reloading"), out);
                let again = self.again.get_or_insert(Again { from, clients: Vec::new() });
                again.clients.extend(from.client);
            }
            Phase::Stopping(_) => {
                self.refuse("reload", "the server stops", Exit::Busy, from, now, out);
            }
            Phase::New | Phase::Ended => {}
        }
    }

    /// Whether the workers of `generation` are to take over.
    #[cfg(test)]
    pub(super) fn is_coming(&self, generation: u64) -> bool {
        self.reload.as_ref().is_some_and(|reload| reload.generation == generation)
    }

    /// A slot is never made anew alone: all count in new files together, at most once a minute (F57).
    pub(super) fn damaged(&mut self, file: Damaged, now: Instant, out: &mut Vec<Command>) {
        let is_recent = self.last_damage.is_some_and(|last| now - last < Duration::from_mins(1));
        if is_recent || !matches!(self.phase, Phase::Running) {
            return;
        }
        self.last_damage = Some(now);
        out.push(Command::Emit(Notice::Damaged(file)));
        self.again.get_or_insert(Again { from: Origin::default(), clients: Vec::new() });
    }

    /// Begins the reload that is remembered, when it may begin.
    pub(super) fn reload_again(&mut self, now: Instant, out: &mut Vec<Command>) {
        let is_free = matches!(self.phase, Phase::Running)
            && self.reload.is_none()
            && self.upgrade.is_none()
            && !self.is_crowded(now);
        if is_free && let Some(Again { from, clients }) = self.again.take() {
            self.begin_reload(from, clients, now, out);
        }
    }

    /// When a remembered reload begins, if nobody makes room for it earlier.
    pub(super) fn reload_due(&self) -> Option<Instant> {
        let is_free = self.reload.is_none() && self.upgrade.is_none();
        let _again = self.again.as_ref().filter(|_| is_free)?;
        self.crowded_until()
    }

    /// Whether a reload would cut workers that have only just begun to drain: a storm of reloads is to lose nothing.
    fn is_crowded(&self, now: Instant) -> bool {
        self.crowded_until().is_some_and(|until| now < until)
    }

    /// When the oldest of as many generations as may drain has had its time.
    fn crowded_until(&self) -> Option<Instant> {
        let mut old: Vec<(u64, Instant)> = Vec::new();
        for place in self.places.iter().filter(|place| place.generation != self.generation) {
            if let State::Draining { since, .. } = place.state {
                old.push((place.generation, since));
            }
        }
        old.sort_unstable();
        old.dedup_by_key(|(generation, _)| *generation);
        let most = usize::try_from(self.limits.max_old_generations).unwrap_or(usize::MAX);
        let (_, since) = old.first().filter(|_| old.len() >= most)?;
        Some(*since + SHORTEST_DRAIN)
    }

    /// The settings of the coming generation are good: it may boot.
    pub(super) fn configured(
        &mut self,
        generation: u64,
        limits: Limits,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let target = if limits.workers == self.limits.workers {
            // What TTIN and TTOU have made of it stays (S49).
            self.target.min(limits.max_workers)
        } else {
            limits.workers
        };
        let slots = usize::try_from(limits.slots()).unwrap_or_default();
        match &mut self.reload {
            Some(reload) if reload.generation == generation => {
                reload.plan = Some(Plan { limits, target });
                if self.places.len() < slots {
                    self.places.resize_with(slots, || Place::empty(now));
                }
            }
            // Given up meanwhile.
            Some(_) | None => out.push(Command::Discard { generation }),
        }
    }

    pub(super) fn misconfigured(
        &mut self,
        generation: u64,
        exit: Exit,
        text: String,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        if self.reload.as_ref().is_some_and(|reload| reload.generation == generation) {
            self.give_up_reload(("settings", exit), Some(text), now, out);
        }
    }

    /// Makes the new generation the serving one, once all of it is ready; only now do the old leave.
    pub(super) fn promote(&mut self, now: Instant, out: &mut Vec<Command>) {
        let Some(Reload { generation, plan: Some(Plan { target, .. }), .. }) = self.reload else {
            return;
        };
        let ready = self.count(|place| place.is_ready() && place.is_member_of(generation));
        if ready < target {
            return;
        }
        let Some(Reload { since, clients, from, plan: Some(plan), .. }) = self.reload.take() else {
            return;
        };
        let old = std::mem::replace(&mut self.generation, generation);
        let before = std::mem::replace(&mut self.target, plan.target);
        self.limits = plan.limits;
        self.is_paused = false;
        let duration = now - since;
        if self.upgrade.is_some() {
            let old = Past { generation: old, target: before };
            return self.begin_probation(old, ready, now, out);
        }
        out.push(Command::Promote { generation });
        if before != self.target {
            let new = self.target;
            out.push(Command::Emit(Notice::WorkersChanged { old: before, new, from }));
        }
        out.push(Command::Emit(Notice::Reloaded { generation, workers: ready, duration }));
        let bounds = self.drain_bounds();
        for (slot, place) in numbered(&mut self.places) {
            if place.is_member_of(old) {
                dismiss(slot, place, Cause::Reload, bounds, now, out);
            }
        }
        self.conclude_succession(out);
        let answer = Answer::Serves { generation, workers: ready, duration };
        self.succession =
            Some(Succession { clients, answer, old, until: now + LONGEST_SUCCESSION });
    }

    /// Tells those who wait once the new generation is the only one that accepts.
    pub(super) fn advance_succession(&mut self, now: Instant, out: &mut Vec<Command>) {
        let Some(Succession { old, until, .. }) = self.succession else { return };
        let accepts = |place: &Place| {
            place.generation == old
                && matches!(place.state, State::Draining { has_stopped: false, .. })
        };
        let is_left_alone = !matches!(self.phase, Phase::Running) || self.upgrade.is_some();
        if until <= now || is_left_alone || !self.places.iter().any(accepts) {
            self.conclude_succession(out);
        }
    }

    fn conclude_succession(&mut self, out: &mut Vec<Command>) {
        if let Some(Succession { clients, answer, .. }) = self.succession.take() {
            tell(&clients, &answer, out);
        }
    }

    /// Gives the new generation up; the old one never hears of it.
    pub(super) fn fail_reload(
        &mut self,
        cause: Cause,
        text: Option<String>,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let exit = match cause {
            Cause::Load => Exit::Load,
            Cause::Stop => Exit::Busy,
            _ => Exit::Boot,
        };
        self.give_up_reload((cause.as_str(), exit), text, now, out);
    }

    fn give_up_reload(
        &mut self,
        (stage, exit): (&'static str, Exit),
        text: Option<String>,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let Some(Reload { generation, since, clients, .. }) = self.reload.take() else { return };
        self.kill_coming(generation, out);
        if self.upgrade.is_some() {
            out.push(Command::Discard { generation });
            return self.fail_booting(stage, exit, text);
        }
        let duration = now - since;
        let why = match &text {
            Some(text) => format!("{stage}: {text}"),
            None => stage.to_owned(),
        };
        out.push(Command::Discard { generation });
        out.push(Command::Emit(Notice::ReloadFailed { generation, stage, text, duration }));
        tell(&clients, &Answer::Refused { exit, why }, out);
    }

    /// The members of a generation that never served.
    pub(super) fn kill_coming(&mut self, generation: u64, out: &mut Vec<Command>) {
        for (slot, place) in numbered(&mut self.places) {
            if !place.is_member_of(generation) {
                continue;
            }
            place.is_member = false;
            match place.state {
                State::Booting { .. } | State::Ready { .. } | State::Standby => {
                    kill(slot, place, Cause::Discarded, out);
                }
                State::Empty | State::Waiting { .. } => place.vacate(),
                State::Draining { .. } | State::Aborting { .. } => {}
            }
        }
    }

    /// Tells whoever waits for the coming generation that one more of it serves.
    pub(super) fn tell_ready(&self, generation: u64, slot: SlotNumber, out: &mut Vec<Command>) {
        if let Some(reload) = self.reload.as_ref().filter(|r| r.generation == generation) {
            tell(&reload.clients, &Answer::WorkerReady(slot), out);
            let upgrade = self.upgrade.as_ref();
            let clients = upgrade.map(|upgrade| upgrade.clients.as_slice()).unwrap_or_default();
            tell(clients, &Answer::WorkerReady(slot), out);
        }
    }

    fn begin_reload(
        &mut self,
        from: Origin,
        clients: Vec<Client>,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        self.last_generation += 1;
        let generation = self.last_generation;
        self.reload = Some(Reload { generation, since: now, from, clients, plan: None });
        out.push(Command::Emit(Notice::Reloading { generation, from }));
        self.interrupt_recycle(out);
        self.cut_oldest(out);
        out.push(Command::Configure { generation });
    }

    /// The serving generation will be an old one: of those before it, one fewer than allowed may remain.
    pub(super) fn cut_oldest(&mut self, out: &mut Vec<Command>) {
        let mut old: Vec<u64> = self
            .places
            .iter()
            .filter(|place| {
                place.generation != self.generation && matches!(place.state, State::Draining { .. })
            })
            .map(|place| place.generation)
            .collect();
        old.sort_unstable();
        old.dedup();
        let allowed =
            usize::try_from(self.limits.max_old_generations.saturating_sub(1)).unwrap_or_default();
        old.truncate(old.len().saturating_sub(allowed));
        for (slot, place) in numbered(&mut self.places) {
            if matches!(place.state, State::Draining { .. }) && old.contains(&place.generation) {
                kill(slot, place, Cause::Reload, out);
            }
        }
    }
}

/// What a generation is given before a reload may cut it.
const SHORTEST_DRAIN: Duration = Duration::from_secs(1);

/// How long the answer to a reload waits for workers of the old generation to stop accepting.
const LONGEST_SUCCESSION: Duration = Duration::from_secs(1);

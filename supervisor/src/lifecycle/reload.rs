//! Reload by generations: the new one serves before the old one leaves, or is given up unseen (S45-S49).

use std::time::Instant;

use super::cause::Cause;
use super::event::{Command, Notice, Origin};
use super::place::State;
use super::{Lifecycle, Phase, dismiss, kill, numbered};

/// A generation that boots beside the one that serves.
#[derive(Copy, Clone, Debug)]
pub(super) struct Reload {
    pub(super) generation: u64,
    since: Instant,
}

impl Lifecycle {
    pub(super) fn reload(&mut self, from: Origin, now: Instant, out: &mut Vec<Command>) {
        match self.phase {
            Phase::Running if self.reload.is_none() => self.begin_reload(from, now, out),
            Phase::Starting { .. } | Phase::Running => self.again = Some(from),
            Phase::Stopping(_) => self.refuse("reload", "the server stops", from, now, out),
            Phase::New | Phase::Ended => {}
        }
    }

    pub(super) fn reload_again(&mut self, now: Instant, out: &mut Vec<Command>) {
        if let Some(from) = self.again.take() {
            self.begin_reload(from, now, out);
        }
    }

    /// Makes the new generation the serving one, once all of it is ready; only now do the old leave.
    pub(super) fn promote(&mut self, now: Instant, out: &mut Vec<Command>) {
        let Some(Reload { generation, since }) = self.reload else { return };
        let ready = self.count(|place| place.is_ready() && place.is_member_of(generation));
        if ready < self.target {
            return;
        }
        let old = std::mem::replace(&mut self.generation, generation);
        self.reload = None;
        self.is_paused = false;
        let duration = now - since;
        out.push(Command::Emit(Notice::Reloaded { generation, workers: ready, duration }));
        let patience = self.limits.graceful_timeout;
        let bounds = (patience, patience + self.limits.abort_grace);
        for (slot, place) in numbered(&mut self.places) {
            if place.is_member_of(old) {
                dismiss(slot, place, Cause::Reload, bounds, now, out);
            }
        }
        self.reload_again(now, out);
    }

    /// Gives the new generation up; the old one never hears of it.
    pub(super) fn fail_reload(
        &mut self,
        cause: Cause,
        text: Option<String>,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let Some(Reload { generation, since }) = self.reload.take() else { return };
        for (slot, place) in numbered(&mut self.places) {
            if !place.is_member_of(generation) {
                continue;
            }
            place.is_member = false;
            match place.state {
                State::Booting { .. } | State::Ready { .. } => {
                    kill(slot, place, Cause::Discarded, out);
                }
                State::Empty | State::Waiting { .. } => place.vacate(),
                State::Draining { .. } | State::Aborting { .. } => {}
            }
        }
        let duration = now - since;
        out.push(Command::Emit(Notice::ReloadFailed { generation, cause, text, duration }));
        if matches!(self.phase, Phase::Running) {
            self.reload_again(now, out);
        }
    }

    fn begin_reload(&mut self, from: Origin, now: Instant, out: &mut Vec<Command>) {
        self.last_generation += 1;
        let generation = self.last_generation;
        self.reload = Some(Reload { generation, since: now });
        out.push(Command::Emit(Notice::Reloading { generation, from }));
        self.cut_oldest(out);
    }

    /// The serving generation will be an old one: of those before it, one fewer than allowed may remain.
    fn cut_oldest(&mut self, out: &mut Vec<Command>) {
        let mut old: Vec<u64> = self
            .places
            .iter()
            .filter(|place| {
                place.generation < self.generation && matches!(place.state, State::Draining { .. })
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

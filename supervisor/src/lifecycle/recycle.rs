//! Workers that are replaced before they must be: one token, and the successor serves first (S31-S33).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::asked::Origin;
use super::cause::Cause;
use super::event::{Answer, Command, Notice, SlotNumber};
use super::place::State;
use super::{Lifecycle, Phase, dismiss, kill, pace};
use crate::Exit;

/// Who is to be replaced, and who is being replaced now.
#[derive(Clone, Default, Debug)]
pub(super) struct Recycling {
    wishes: VecDeque<Wish>,
    token: Option<Token>,
    /// After a successor that could not boot.
    not_before: Option<Instant>,
    failures: u32,
    /// `min_lifetime` was warned about.
    has_warned: bool,
}

/// A worker that is to be replaced, as long as it is the one that was born then.
#[derive(Copy, Clone, Debug)]
struct Wish {
    slot: SlotNumber,
    born: Instant,
    why: Cause,
    not_before: Instant,
}

#[derive(Copy, Clone, Debug)]
struct Token {
    old: Wish,
    /// The successor; none once it serves and the old one closes its listeners.
    heir: Option<SlotNumber>,
}

impl Lifecycle {
    /// A worker asks to be replaced, or has been found too big or too old.
    pub(super) fn want_recycle(
        &mut self,
        slot: SlotNumber,
        why: Cause,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let min_lifetime = self.limits.min_lifetime;
        let Some(place) = self.place(slot) else { return };
        let (State::Ready { .. }, true, Some(since)) =
            (place.state, place.is_member, place.ready_since)
        else {
            return;
        };
        let born = place.born;
        if self.recycling.knows(slot, born) {
            return;
        }
        let not_before = since + min_lifetime;
        if not_before > now && !std::mem::replace(&mut self.recycling.has_warned, true) {
            let age = now - since;
            out.push(Command::Emit(Notice::RecycleHeld { slot, why, age }));
        }
        self.recycling.wishes.push_back(Wish { slot, born, why, not_before });
    }

    /// An operator wants this one replaced.
    pub(super) fn retire(
        &mut self,
        slot: SlotNumber,
        from: Origin,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let is_serving = self.place(slot).is_some_and(|place| place.is_ready() && place.is_member);
        match self.phase {
            Phase::Running if self.upgrade.is_some() => {
                self.refuse("retire", super::orders::UPGRADING, Exit::Busy, from, now, out);
            }
            Phase::Running if self.reload.is_some() => {
                self.refuse("retire", "a reload replaces all workers", Exit::Busy, from, now, out);
            }
            Phase::Running if is_serving => {
                self.want_recycle(slot, Cause::Retired, now, out);
                super::orders::tell(from.client.as_slice(), &Answer::Done, out);
            }
            Phase::Starting { .. } | Phase::Running => {
                self.refuse("retire", "no worker serves in that slot", Exit::Usage, from, now, out);
            }
            Phase::Stopping(_) => {
                self.refuse("retire", "the server stops", Exit::Busy, from, now, out);
            }
            Phase::New | Phase::Ended => {}
        }
    }

    /// Takes the next step of a replacement. Not during a reload or a stop, which replace everybody anyway.
    pub(super) fn advance_recycle(&mut self, now: Instant, out: &mut Vec<Command>) {
        let is_replaced = self.reload.is_some() || self.upgrade.is_some();
        if !matches!(self.phase, Phase::Running) || is_replaced {
            return;
        }
        match self.recycling.token {
            Some(Token { old, heir: Some(heir) }) => self.pass_on(old, heir, now, out),
            Some(Token { old, heir: None }) if !self.still_accepts(old) => {
                self.recycling.token = None;
            }
            Some(_) | None => {}
        }
        if self.recycling.token.is_none() {
            self.grant(now, out);
        }
    }

    /// Everybody is about to be replaced: the successor of one is not wanted. The wish stays, should that fail.
    pub(super) fn interrupt_recycle(&mut self, out: &mut Vec<Command>) {
        // Once the old one is leaving there is nothing to interrupt: the token returns when it has closed.
        let Some(Token { old, heir: Some(heir) }) = self.recycling.token else { return };
        self.recycling.token = None;
        self.recycling.wishes.push_front(old);
        if let Some(place) = self.place(heir)
            && matches!(place.state, State::Booting { .. })
        {
            kill(heir, place, Cause::Discarded, out);
        }
    }

    /// When the next wish may be granted.
    pub(super) fn recycle_due(&self) -> Option<Instant> {
        // Each of these ends by an event of its own, and then the wishes are looked at.
        let has_room = self.places.iter().any(|place| place.state == State::Empty);
        let is_replaced = self.reload.is_some() || self.upgrade.is_some();
        let is_busy = self.recycling.token.is_some() || is_replaced;
        if is_busy || self.is_degraded || !has_room {
            return None;
        }
        let first = self.recycling.wishes.iter().map(|wish| wish.not_before).min()?;
        Some(self.recycling.not_before.map_or(first, |pause| pause.max(first)))
    }

    fn pass_on(&mut self, old: Wish, heir: SlotNumber, now: Instant, out: &mut Vec<Command>) {
        let is_old_fine = self.is_present(old);
        let (bounds, surplus) = (self.drain_bounds(), self.scale_cause);
        let Some(state) = self.place(heir).map(|place| place.state) else { return };
        match state {
            State::Booting { .. } if is_old_fine => {}
            State::Booting { .. } | State::Ready { .. } => {
                // Whoever left a gap by dying meanwhile is followed by the successor that is there already.
                if let Some(place) = self.place(old.slot)
                    && place.is_member
                    && matches!(place.state, State::Waiting { .. })
                {
                    place.vacate();
                }
                if is_old_fine || self.members(self.generation) < self.target {
                    if let Some(place) = self.place(heir) {
                        place.is_member = true;
                    }
                } else if let Some(place) = self.place(heir) {
                    // The old one was dismissed otherwise: nobody is missing.
                    dismiss(heir, place, surplus, bounds, now, out);
                }
                self.recycling.failures = 0;
                self.recycling.token = None;
                if is_old_fine && let Some(place) = self.place(old.slot) {
                    dismiss(old.slot, place, old.why, bounds, now, out);
                    self.recycling.token = Some(Token { old, heir: None });
                }
            }
            // It could not boot: the old one serves on, and the wish waits.
            State::Empty
            | State::Waiting { .. }
            | State::Standby
            | State::Draining { .. }
            | State::Aborting { .. } => {
                let failures = self.recycling.failures.saturating_add(1);
                self.recycling.failures = failures;
                self.recycling.not_before = Some(now + pace::pause(failures, &mut self.jitter));
                self.recycling.wishes.push_front(old);
                self.recycling.token = None;
            }
        }
    }

    fn grant(&mut self, now: Instant, out: &mut Vec<Command>) {
        let wishes = std::mem::take(&mut self.recycling.wishes);
        self.recycling.wishes = wishes.into_iter().filter(|wish| self.is_present(*wish)).collect();
        if self.is_degraded || self.recycling.not_before.is_some_and(|pause| pause > now) {
            return;
        }
        let Some(at) = self.recycling.wishes.iter().position(|wish| wish.not_before <= now) else {
            return;
        };
        let generation = self.generation;
        let Some(queue) = self.recycling.wishes.get(at).map(|old| self.queue_of(old.slot)) else {
            return;
        };
        let Some((heir, place)) =
            super::numbered(&mut self.places).find(|(_, place)| place.state == State::Empty)
        else {
            return;
        };
        let Some(old) = self.recycling.wishes.remove(at) else { return };
        place.be_born(generation, now);
        place.queue = queue;
        self.recycling.not_before = None;
        self.recycling.token = Some(Token { old, heir: Some(heir) });
        out.push(Command::Emit(Notice::RecycleGranted { slot: old.slot, why: old.why }));
        out.push(Command::Fork { slot: heir, generation });
    }

    /// It serves still, and is the one that was meant.
    fn is_present(&self, wish: Wish) -> bool {
        let place = usize::try_from(wish.slot.0).ok().and_then(|at| self.places.get(at));
        place.is_some_and(|place| {
            place.is_ready() && place.is_member_of(self.generation) && place.born == wish.born
        })
    }

    fn still_accepts(&self, wish: Wish) -> bool {
        let place = usize::try_from(wish.slot.0).ok().and_then(|at| self.places.get(at));
        place.is_some_and(|place| {
            place.born == wish.born
                && matches!(place.state, State::Draining { has_stopped: false, .. })
        })
    }
}

impl Recycling {
    /// The server stops.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Who is to be replaced, for the next image.
    pub(super) fn wishes(&self) -> impl Iterator<Item = (SlotNumber, Cause)> {
        self.wishes.iter().map(|wish| (wish.slot, wish.why))
    }

    /// Who is on the way out, for the next image.
    pub(super) fn leaving(&self) -> Option<(SlotNumber, Cause)> {
        self.token.filter(|token| token.heir.is_none()).map(|token| (token.old.slot, token.old.why))
    }

    /// As another image has known it.
    pub(super) fn wish_again(
        &mut self,
        slot: SlotNumber,
        places: &[super::Place],
        why: Cause,
        now: Instant,
    ) {
        self.wishes.extend(wish(slot, places, why, now));
    }

    /// As [`Recycling::wish_again`], of one who is on the way out.
    pub(super) fn go_on(
        &mut self,
        slot: SlotNumber,
        places: &[super::Place],
        why: Cause,
        now: Instant,
    ) {
        self.token = wish(slot, places, why, now).map(|old| Token { old, heir: None });
    }

    fn knows(&self, slot: SlotNumber, born: Instant) -> bool {
        let running = self.token.iter().map(|token| &token.old);
        self.wishes.iter().chain(running).any(|wish| wish.slot == slot && wish.born == born)
    }
}

fn wish(slot: SlotNumber, places: &[super::Place], why: Cause, now: Instant) -> Option<Wish> {
    let place = usize::try_from(slot.0).ok().and_then(|at| places.get(at))?;
    Some(Wish { slot, born: place.born, why, not_before: now })
}

/// What a worker's size means. Soft in two samples: the token; hard in one: at once (S33).
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Size {
    Fine,
    Soft,
    Hard,
}

impl super::Limits {
    pub(super) fn judge_size(&self, private_bytes: u64) -> Size {
        if self.max_memory_hard > 0 && private_bytes > self.max_memory_hard {
            Size::Hard
        } else if self.max_memory > 0 && private_bytes > self.max_memory {
            Size::Soft
        } else {
            Size::Fine
        }
    }

    /// The age at which a worker is replaced; up to a tenth more, so that those born together do not go together.
    pub(super) fn lifetime_of(&self, slot: SlotNumber) -> Option<Duration> {
        let percent = 100 + slot.0 % 11;
        Some(self.max_lifetime * percent / 100).filter(|life| !life.is_zero())
    }
}

//! As many members of a generation as are wanted: vacancies are filled, surplus is let go.

use std::time::Instant;

use super::event::Command;
use super::place::{Place, State};
use super::{Lifecycle, dismiss, numbered};

impl Lifecycle {
    /// Makes the members of `generation` as many as wanted, as far as slots and pauses allow.
    pub(super) fn fill(
        &mut self,
        generation: u64,
        target: u32,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        for _ in self.members(generation)..target {
            let queue = self.free_queue(generation);
            // Every slot may still be held by draining workers; the next death calls again.
            let Some(place) = self.places.iter_mut().find(|place| place.state == State::Empty)
            else {
                break;
            };
            place.is_member = true;
            place.generation = generation;
            place.queue = queue;
            place.state = State::Waiting { until: now };
        }
        for _ in target..self.members(generation) {
            self.trim(generation, now, out);
        }
        for (slot, place) in numbered(&mut self.places) {
            if place.is_member_of(generation)
                && matches!(place.state, State::Waiting { until } if until <= now)
            {
                place.be_born(generation, now);
                out.push(Command::Fork { slot, generation });
            }
        }
    }

    /// Lets one member go: one that serves nobody if there is one, else the oldest.
    fn trim(&mut self, generation: u64, now: Instant, out: &mut Vec<Command>) {
        let bounds = self.drain_bounds();
        let order = |place: &Place| match place.state {
            State::Empty | State::Waiting { .. } => 0,
            State::Aborting { .. } => 1,
            State::Booting { .. } => 2,
            State::Ready { .. } | State::Standby | State::Draining { .. } => 3,
        };
        let leaver = numbered(&mut self.places)
            .filter(|(_, place)| place.is_member_of(generation))
            .min_by_key(|(_, place)| (order(place), place.born));
        let why = self.scale_cause;
        if let Some((slot, place)) = leaver {
            dismiss(slot, place, why, bounds, now, out);
        }
    }
}

//! Which accept queue belongs to whom, where each worker has one of its own (`reuse_port`).
//!
//! A queue outlives its worker: the next one in the place, the successor of a recycled one, and one worker of each later
//! generation take it over. So connections wait in it through a death or a reload, and are lost by neither.

use std::collections::BTreeSet;

use super::event::{QueueNumber, SlotNumber};
use super::place::{Place, State};
use super::{Lifecycle, Phase};

impl Lifecycle {
    /// The queue of the worker in a slot.
    pub(crate) fn queue_of(&self, slot: SlotNumber) -> QueueNumber {
        let place = usize::try_from(slot.0).ok().and_then(|at| self.places.get(at));
        place.map(|place| place.queue).unwrap_or_default()
    }

    /// Queues that somebody accepts from, or will. Connections in any other are for [`Lifecycle::stand_in`].
    pub(crate) fn held_queues(&self) -> BTreeSet<QueueNumber> {
        self.places.iter().filter(|place| self.holds(place)).map(|place| place.queue).collect()
    }

    /// Who is to serve what waits in a queue that nobody holds: one that serves, or one that is the last to stop.
    pub(crate) fn stand_in(&self) -> Option<SlotNumber> {
        let rank = |place: &Place| match place.state {
            State::Ready { is_slow } => {
                Some((!place.is_member_of(self.generation), u8::from(is_slow)))
            }
            State::Draining { has_stopped: false, .. } if self.holds(place) => Some((true, 2)),
            State::Empty
            | State::Waiting { .. }
            | State::Booting { .. }
            | State::Standby
            | State::Draining { .. }
            | State::Aborting { .. } => None,
        };
        let ranked = (0..).map(SlotNumber).zip(&self.places);
        let ranked = ranked.filter_map(|(slot, place)| Some((rank(place)?, slot)));
        ranked.min().map(|(_, slot)| slot)
    }

    /// A queue for one more worker of `generation`: one that another generation has, else a new one.
    pub(super) fn free_queue(&self, generation: u64) -> QueueNumber {
        let own: BTreeSet<QueueNumber> = self
            .places
            .iter()
            .filter(|place| place.generation == generation && self.holds(place))
            .map(|place| place.queue)
            .collect();
        let held = self.held_queues().into_iter();
        let fresh = (0..).map(QueueNumber);
        held.chain(fresh).find(|queue| !own.contains(queue)).unwrap_or_default()
    }

    /// Whether connections wait in this queue for nobody of the generation that serves: another worker's they cannot become.
    pub(super) fn is_left_over(&self, queue: QueueNumber) -> bool {
        let serves = |place: &Place| place.is_member_of(self.generation) && self.holds(place);
        self.limits.reuse_port
            && !self.places.iter().any(|place| place.queue == queue && serves(place))
    }

    fn holds(&self, place: &Place) -> bool {
        match place.state {
            State::Booting { .. } | State::Ready { .. } | State::Standby => true,
            // Whoever stops with the server empties its queue first; any other has left it to its successor.
            State::Draining { has_stopped, .. } => {
                !has_stopped && matches!(self.phase, Phase::Stopping(_))
            }
            State::Empty | State::Waiting { .. } | State::Aborting { .. } => place.is_member,
        }
    }
}

//! The state of the server as `status` shows it.

use std::time::{Duration, Instant};

use super::event::SlotNumber;
use super::place::State;
use super::{Lifecycle, Phase};

/// What an operator is shown.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) phase: &'static str,
    pub(crate) generation: u64,
    pub(crate) workers: u32,
    pub(crate) ready: u32,
    pub(crate) is_paused: bool,
    pub(crate) is_degraded: bool,
    pub(crate) change: Option<Change>,
    /// Those that are not empty.
    pub(crate) slots: Vec<SlotPicture>,
}

/// What is being replaced.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Change {
    Reload,
    Upgrade,
}

#[derive(Clone, Debug)]
pub(crate) struct SlotPicture {
    pub(crate) slot: SlotNumber,
    pub(crate) generation: u64,
    pub(crate) state: &'static str,
    /// Since its last birth.
    pub(crate) age: Duration,
}

impl Lifecycle {
    pub(crate) fn picture(&self, now: Instant) -> Picture {
        let slots = (0..).map(SlotNumber).zip(&self.places);
        let slots = slots.filter(|(_, place)| place.state != State::Empty);
        Picture {
            phase: match self.phase {
                Phase::New | Phase::Starting { .. } => "starting",
                Phase::Running => "running",
                Phase::Stopping(_) | Phase::Ended => "stopping",
            },
            generation: self.generation,
            workers: self.target,
            ready: self.ready_workers(),
            is_paused: self.is_paused,
            is_degraded: self.is_degraded,
            change: match (&self.upgrade, &self.reload) {
                (Some(_), _) => Some(Change::Upgrade),
                (None, Some(_)) => Some(Change::Reload),
                (None, None) => None,
            },
            slots: slots
                .map(|(slot, place)| SlotPicture {
                    slot,
                    generation: place.generation,
                    state: match place.state {
                        State::Empty => "empty",
                        State::Waiting { .. } => "waiting",
                        State::Booting { .. } => "booting",
                        State::Ready { .. } => "ready",
                        State::Standby => "standby",
                        State::Draining { .. } => "draining",
                        State::Aborting { .. } => "aborting",
                    },
                    age: now.saturating_duration_since(place.born),
                })
                .collect(),
        }
    }
}

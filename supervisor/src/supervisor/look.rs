//! What the supervisor reads of its children each time it looks: beats, connections, memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Supervisor;
use crate::events;
use crate::lifecycle::event::{Event, SlotNumber};
use crate::listeners::queue;

/// What was read last.
#[derive(Default)]
pub(super) struct Gauge {
    accepted: BTreeMap<SlotNumber, u64>,
    measured: Option<Instant>,
    overflows: Option<u64>,
    checked: Option<Instant>,
}

impl Supervisor<'_> {
    /// Reads all that can be read; how it is judged is the life cycle's.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        self.slots.beat();
        self.slots.finish_leftovers();
        self.look_at_queues();
        let measures = self.is_time_to_measure(now);
        self.look_for_damage(now);
        for (&slot, worker) in &self.workers {
            let seen = self.slots.seen(slot);
            let accepted = seen.map_or(0, |seen| seen.accepted);
            let before = self.gauge.accepted.insert(slot, accepted);
            let has_room = seen.is_some_and(|seen| seen.connections < seen.connections_limit);
            let private_bytes = measures.then(|| worker.process.private_bytes()).flatten();
            let beat_age = self.slots.beat_age(slot);
            // Asked only of those who are suspicious.
            let is_stopped = beat_age > SUSPICIOUS && worker.process.state() == Some('T');
            self.queue.push_back(Event::Seen {
                slot,
                beat_age,
                private_bytes,
                is_idle_acceptor: has_room && before == Some(accepted) && self.has_waiting(slot),
                is_stopped,
            });
        }
        if let Some(observer) = &self.observer {
            // The file may hold the beat of the one before it.
            let beat_age = self.slots.observer_beat_age().min(observer.born.elapsed());
            self.queue.push_back(Event::ObserverSeen { beat_age });
        }
    }

    /// Once a second, whatever the timeout is.
    fn look_for_damage(&mut self, now: Instant) {
        if self.gauge.checked.is_some_and(|last| now - last < BETWEEN_CHECKS) {
            return;
        }
        self.gauge.checked = Some(now);
        if let Some(file) = self.slots.damaged() {
            self.is_damaged = true;
            self.queue.push_back(Event::Damaged(file));
        }
    }

    /// Only where a limit is set, and every 10 s: the kernel walks all pages for it.
    fn is_time_to_measure(&mut self, now: Instant) -> bool {
        let has_limit = self.settings.max_memory > 0 || self.settings.max_memory_hard > 0;
        let is_due =
            self.gauge.measured.is_none_or(|last| now.duration_since(last) >= BETWEEN_MEASURES);
        let measures = has_limit && is_due;
        if measures {
            self.gauge.measured = Some(now);
        }
        measures
    }

    /// Whether connections wait for the worker in a slot.
    fn has_waiting(&self, slot: SlotNumber) -> bool {
        let queue = self.life.queue_of(slot);
        let mut lengths = self.listeners.iter().filter_map(|kept| kept.queue_length_of(queue));
        lengths.any(|length| length > 0)
    }

    /// Sets the gauges of the accept queues.
    fn look_at_queues(&mut self) {
        for kept in &self.listeners {
            if let Some(length) = kept.queue_length() {
                events::queue(&kept.address, length);
            }
        }
        if let Some(overflows) = queue::overflows() {
            let before = self.gauge.overflows.replace(overflows).unwrap_or(overflows);
            events::overflowed(overflows.saturating_sub(before));
        }
    }
}

/// A loop that turns beats ten times a second.
const SUSPICIOUS: Duration = Duration::from_millis(500);
const BETWEEN_CHECKS: Duration = Duration::from_secs(1);
const BETWEEN_MEASURES: Duration = Duration::from_secs(10);

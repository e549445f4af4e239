//! Reading without a cursor: for `saola log` and its like, who hold nothing up and may be overtaken (F51).

use std::path::Path;

use super::{Position, Reading, Slot};
use crate::epoch_files::current;
use crate::ring::{Entry, RingName};

/// Number of the epoch that a server writes to: another one when it has found a file damaged; `None` when it has ended.
pub fn in_use(run_dir: &Path) -> Option<u64> {
    current(run_dir).ok().map(|(_, epoch)| epoch)
}

impl Slot {
    /// Where a guest without a cursor begins (F51): the oldest record that the ring still holds, read by the observer or not;
    /// the head if there is none.
    pub fn oldest(&self, name: RingName) -> Position {
        self.consumer(name).oldest_whole()
    }

    /// Reads as a guest: for `saola log` and its like, who have no cursor and so hold nothing up. What is overwritten while
    /// it is read is left out, and the reading goes on at the oldest record that is still whole. Returns where it stopped,
    /// and how many bytes were left out.
    pub fn read_as_guest(
        &mut self,
        name: RingName,
        mut position: Position,
        mut each: impl FnMut(Position, Entry<'_>) -> Reading,
    ) -> (Position, u64) {
        let mut raw = std::mem::take(&mut self.raw);
        let consumer = self.consumer(name);
        let mut left_out = 0;
        let head = self.head(name);
        loop {
            if position < consumer.ring.floor(consumer.map) {
                let oldest = consumer.oldest_whole();
                left_out += oldest.saturating_sub(position);
                position = oldest;
            }
            let Some((next, entry)) = consumer.read(position, head, &mut raw) else { break };
            if position < consumer.ring.floor(consumer.map) {
                continue; // it may have been written over while it was copied
            }
            position = next;
            if each(next, entry) == Reading::Stop {
                break;
            }
        }
        self.raw = raw;
        (position, left_out)
    }
}

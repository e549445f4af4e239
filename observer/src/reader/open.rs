//! Spans on their way to the collector: the cursor of a ring stays in front of the first that is not done with, so that an
//! observer that is killed takes no span with it (O16).

use std::collections::VecDeque;

use crate::otlp::Fate;

/// What was read of one ring for spans and is not yet committed, in order.
pub(super) struct Open<P> {
    records: VecDeque<(P, Option<Fate>)>,
}

impl<P> Default for Open<P> {
    fn default() -> Self {
        Self { records: VecDeque::new() }
    }
}

impl<P: Copy> Open<P> {
    /// A record was read; `fate` is that of its span, none if it has none.
    pub(super) fn read(&mut self, position: P, fate: Option<Fate>) {
        match self.records.back_mut() {
            // Records without a span are as good as part of the one before.
            Some((last, None)) if fate.is_none() => *last = position,
            _ => self.records.push_back((position, fate)),
        }
    }

    /// Where the cursor may go: behind everything that is done with.
    pub(super) fn settled(&mut self) -> Option<P> {
        let mut settled = None;
        while let Some((position, _)) =
            self.records.pop_front_if(|(_, fate)| fate.as_ref().is_none_or(Fate::is_settled))
        {
            settled = Some(position);
        }
        settled
    }

    /// Gives up the safety of the oldest span, which stays in memory: the ring needs its place.
    pub(super) fn release(&mut self) -> Option<P> {
        self.records.pop_front().map(|(position, _)| position)
    }
}

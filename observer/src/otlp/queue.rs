//! Spans that wait for their export: bounded in number and bytes, what tells most is dropped last.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::span::Encoded;

/// How much a span is worth keeping.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Worth {
    /// Kept by ratio or because the caller's trace is.
    Sampled,
    /// Kept because something went wrong or was slow.
    Notable,
}

/// Whether a span is done with: acknowledged, refused for good, or dropped and counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fate(Rc<Cell<bool>>);

impl Fate {
    pub(crate) fn is_settled(&self) -> bool {
        self.0.get()
    }
}

/// Settles a fate when it is dropped, whatever drops what it belongs to.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    fate: Fate,
    /// Of records that became part of the same span.
    others: Vec<Ticket>,
}

impl Ticket {
    /// What it will settle.
    pub(crate) fn fate(&self) -> Fate {
        self.fate.clone()
    }

    /// Settles these too.
    #[must_use]
    pub(crate) fn with(mut self, others: Vec<Self>) -> Self {
        self.others = others;
        self
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.fate.0.set(true);
    }
}

/// A span and what the queue must know of it.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) span: Encoded,
    /// Held, not read: it tells the reader of the ring when this span has gone.
    _ticket: Ticket,
    worth: Worth,
    born: Instant,
    bytes: usize,
    /// Order of arrival, over both lanes.
    turn: u64,
}

/// The queue. A batch that was taken counts until it is settled: its memory is still in use.
#[derive(Debug)]
pub(crate) struct Queue {
    sampled: VecDeque<Waiting>,
    notable: VecDeque<Waiting>,
    bytes: usize,
    taken: usize,
    taken_bytes: usize,
    turn: u64,
    /// When it was last looked for spans that are too old.
    looked: Option<Instant>,
    most_spans: usize,
    most_bytes: usize,
}

impl Queue {
    pub(crate) fn new(most_spans: usize) -> Self {
        Self {
            sampled: VecDeque::new(),
            notable: VecDeque::new(),
            bytes: 0,
            taken: 0,
            taken_bytes: 0,
            turn: 0,
            looked: None,
            most_spans,
            most_bytes: MOST_BYTES,
        }
    }

    /// Takes a span in; returns how many had to go for it.
    pub(crate) fn push(
        &mut self,
        span: Encoded,
        ticket: Ticket,
        worth: Worth,
        now: Instant,
    ) -> usize {
        let bytes = size_of::<Waiting>() + span.len();
        self.insert(Waiting { span, _ticket: ticket, worth, born: now, bytes, turn: 0 })
    }

    /// Spans that wait, without a batch that was taken.
    pub(crate) fn len(&self) -> usize {
        self.sampled.len() + self.notable.len()
    }

    /// When the one that waits longest came in.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let fronts = [self.sampled.front(), self.notable.front()];
        fronts.into_iter().flatten().map(|waiting| waiting.born).min()
    }

    /// The next `most` spans in the order of their arrival. The batch must be settled or put back.
    pub(crate) fn take(&mut self, most: usize) -> Vec<Waiting> {
        let mut batch = Vec::with_capacity(most.min(self.len()));
        while batch.len() < most {
            let turn = |lane: &VecDeque<Waiting>| lane.front().map_or(u64::MAX, |next| next.turn);
            let is_sampled = turn(&self.sampled) <= turn(&self.notable);
            let lane = if is_sampled { &mut self.sampled } else { &mut self.notable };
            let Some(next) = lane.pop_front() else { break };
            self.bytes -= next.bytes;
            self.taken += 1;
            self.taken_bytes += next.bytes;
            batch.push(next);
        }
        batch
    }

    /// The batch that was taken is done with.
    pub(crate) fn settle(&mut self) {
        self.taken = 0;
        self.taken_bytes = 0;
    }

    /// Forgets a batch whose exporter died with it; returns how many spans that is.
    pub(crate) fn forget_taken(&mut self) -> usize {
        let count = self.taken;
        self.settle();
        count
    }

    /// Puts a batch to the back, so that one bad batch cannot block the others; returns how many had to go.
    pub(crate) fn put_back(&mut self, batch: Vec<Waiting>) -> usize {
        self.settle();
        batch.into_iter().map(|waiting| self.insert(waiting)).sum()
    }

    /// Drops what is older than [`OLDEST`]; returns how many. Looks once a second.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_EVERY) {
            return 0;
        }
        self.looked = Some(now);
        let before = self.len();
        let mut bytes = 0;
        for lane in [&mut self.sampled, &mut self.notable] {
            // What was put back stands behind younger spans: look at all.
            lane.retain(|waiting| {
                let is_young = now.saturating_duration_since(waiting.born) < OLDEST;
                bytes += if is_young { 0 } else { waiting.bytes };
                is_young
            });
        }
        self.bytes -= bytes;
        before - self.len()
    }

    /// Empties the queue, a batch that was taken included; returns how many there were.
    pub(crate) fn clear(&mut self) -> usize {
        let count = self.len() + self.taken;
        self.sampled.clear();
        self.notable.clear();
        self.bytes = 0;
        self.settle();
        count
    }

    fn insert(&mut self, mut waiting: Waiting) -> usize {
        self.turn += 1;
        waiting.turn = self.turn;
        self.bytes += waiting.bytes;
        match waiting.worth {
            Worth::Sampled => self.sampled.push_back(waiting),
            Worth::Notable => self.notable.push_back(waiting),
        }
        let mut dropped = 0;
        while self.is_over() {
            let Some(oldest) = self.sampled.pop_front().or_else(|| self.notable.pop_front()) else {
                break;
            };
            self.bytes -= oldest.bytes;
            dropped += 1;
        }
        dropped
    }

    fn is_over(&self) -> bool {
        self.len() + self.taken > self.most_spans || self.bytes + self.taken_bytes > self.most_bytes
    }
}

/// A collector that is away longer loses spans.
pub(crate) const OLDEST: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Of spans as they are sent, with what the queue notes of each.
const MOST_BYTES: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::Span;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::logfmt::tests::request;
    use crate::otlp::settings::SpanLimits;
    use crate::otlp::span::{Builder, Inside};

    fn span(name: &str) -> Encoded {
        let mut record = request();
        record.route = name.to_owned().into();
        Builder::new(SpanLimits::default()).request(None, &record, &Inside::default())
    }

    fn names(batch: &[Waiting]) -> Vec<String> {
        batch.iter().map(|waiting| Span::decode(&*waiting.span).unwrap().name).collect()
    }

    #[test]
    fn errors_and_slow_requests_are_dropped_last() {
        let now = Instant::now();
        let mut queue = Queue::new(2);
        assert_eq!(queue.push(span("error"), Ticket::default(), Worth::Notable, now), 0);
        assert_eq!(queue.push(span("first"), Ticket::default(), Worth::Sampled, now), 0);
        assert_eq!(queue.push(span("second"), Ticket::default(), Worth::Sampled, now), 1);
        assert_eq!(names(&queue.take(9)), ["GET error", "GET second"]);
    }

    #[test]
    fn a_batch_that_was_put_back_goes_to_the_end_and_still_expires() {
        let now = Instant::now();
        let mut queue = Queue::new(9);
        queue.push(span("a"), Ticket::default(), Worth::Sampled, now);
        queue.push(span("b"), Ticket::default(), Worth::Sampled, now + OLDEST / 2);
        let batch = queue.take(1);
        assert_eq!(queue.put_back(batch), 0);
        assert_eq!(queue.expire(now + OLDEST), 1);
        assert_eq!(names(&queue.take(9)), ["GET b"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        /// Whatever happens in whatever order: each span is in exactly one place.
        #[test]
        fn sent_and_dropped_are_what_was_produced(steps in proptest::collection::vec(0_u8..8, 1..200)) {
            let now = Instant::now();
            let mut queue = Queue::new(16);
            let (mut produced, mut sent, mut dropped) = (0, 0, 0);
            let mut batch: Vec<Waiting> = Vec::new();
            for (step, kind) in steps.into_iter().enumerate() {
                let now = now + Duration::from_secs(7) * u32::try_from(step).unwrap();
                match kind {
                    0..=3 => {
                        let worth = if kind == 0 { Worth::Notable } else { Worth::Sampled };
                        produced += 1;
                        dropped += queue.push(span("x"), Ticket::default(), worth, now);
                    }
                    4 if batch.is_empty() => batch = queue.take(5),
                    5 => { sent += batch.drain(..).count(); queue.settle(); }
                    6 => dropped += queue.put_back(std::mem::take(&mut batch)),
                    _ => dropped += queue.expire(now),
                }
                prop_assert!(queue.len() + batch.len() <= 16);
                prop_assert_eq!(produced, sent + dropped + queue.len() + batch.len());
            }
            dropped += queue.clear();
            prop_assert_eq!(produced, sent + dropped);
            prop_assert_eq!(queue.bytes, 0);
        }
    }
}

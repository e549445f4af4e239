//! What belongs to a request that has not ended: its children and what was noted in it. Whether they are kept is known only
//! with the request's own record (O42).

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use saola_observability::SpanId;
use saola_observability::record::{OwnedValue, SpanRecord};

use super::queue::{Ticket, Worth};
use super::span::Note;

/// Everything held, by the server span it belongs to.
#[derive(Debug, Default)]
pub(crate) struct Children {
    held: FxHashMap<SpanId, Held>,
    /// Requests in the order in which their first child came; some have ended since.
    order: VecDeque<SpanId>,
    spans: usize,
    bytes: usize,
    kept: Kept,
    looked: Option<Instant>,
}

/// What is held for one request.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) spans: Vec<(SpanRecord, Ticket)>,
    pub(crate) notes: Vec<Note>,
    /// Of the notes.
    pub(crate) tickets: Vec<Ticket>,
    /// Children that were left out.
    pub(crate) dropped: u32,
    bytes: usize,
    since: Instant,
}

impl Held {
    fn new(now: Instant) -> Self {
        let (spans, notes, tickets) = (Vec::new(), Vec::new(), Vec::new());
        Self { spans, notes, tickets, dropped: 0, bytes: 0, since: now }
    }
}

/// What to do with a child that was just read.
pub(crate) enum Arrived {
    /// It is held until its request ends.
    Held {
        /// Children of this or another request that had to go for it.
        dropped: usize,
    },
    /// Its request has ended and was kept: it goes out at once.
    Late(SpanRecord, Ticket, Worth),
}

impl Children {
    /// A child span.
    pub(crate) fn span(&mut self, record: SpanRecord, ticket: Ticket, now: Instant) -> Arrived {
        if let Some(worth) = self.kept.worth(record.request) {
            return Arrived::Late(record, ticket, worth);
        }
        let bytes = span_bytes(&record);
        let held = self.of(record.request, now);
        if held.spans.len() >= MOST_OF_REQUEST {
            held.dropped += 1;
            return Arrived::Held { dropped: 1 };
        }
        held.spans.push((record, ticket));
        held.bytes += bytes;
        self.spans += 1;
        self.bytes += bytes;
        Arrived::Held { dropped: self.shrink() }
    }

    /// An error or a panic inside a request; at most `most` are held of one.
    pub(crate) fn note(
        &mut self,
        request: SpanId,
        note: Note,
        ticket: Ticket,
        most: usize,
        now: Instant,
    ) -> usize {
        // Too late for the span, which has gone; the line is there.
        if self.kept.worth(request).is_some() {
            return 0;
        }
        let bytes = note.bytes();
        let held = self.of(request, now);
        if held.notes.len() >= most {
            return 0;
        }
        held.notes.push(note);
        held.tickets.push(ticket);
        held.bytes += bytes;
        self.bytes += bytes;
        self.shrink()
    }

    /// Whether nothing is held for any request.
    pub(crate) fn are_none(&self) -> bool {
        self.held.is_empty()
    }

    /// Hands out what was held for a request that ended; `worth` is what its trace is worth, `None` if it is not kept.
    pub(crate) fn end(&mut self, request: SpanId, worth: Option<Worth>) -> Option<Held> {
        if let Some(worth) = worth {
            self.kept.insert(request, worth);
        }
        self.remove(request)
    }

    /// Says whether something is held so long that its request may never end; looks once a second.
    pub(crate) fn has_old(&mut self, now: Instant) -> bool {
        let is_due = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK);
        if is_due {
            self.looked = Some(now);
        }
        is_due && self.held.values().any(|held| is_old(held, now))
    }

    /// Drops what is old and belongs to no request that is still running; returns how many children that is.
    pub(crate) fn expire(&mut self, now: Instant, running: &HashSet<SpanId>) -> usize {
        let old = self.held.iter().filter(|(_, held)| is_old(held, now));
        let gone: Vec<_> =
            old.map(|(request, _)| *request).filter(|request| !running.contains(request)).collect();
        gone.into_iter()
            .filter_map(|request| self.remove(request))
            .map(|held| held.spans.len())
            .sum()
    }

    fn of(&mut self, request: SpanId, now: Instant) -> &mut Held {
        let order = &mut self.order;
        self.held.entry(request).or_insert_with(|| {
            order.push_back(request);
            Held::new(now)
        })
    }

    fn remove(&mut self, request: SpanId) -> Option<Held> {
        let held = self.held.remove(&request)?;
        self.spans -= held.spans.len();
        self.bytes -= held.bytes;
        while self.order.pop_front_if(|first| !self.held.contains_key(first)).is_some() {}
        Some(held)
    }

    /// Takes the children of the oldest requests away while there are too many; the requests themselves will say so.
    fn shrink(&mut self) -> usize {
        let mut dropped = 0;
        while (self.spans > MOST || self.bytes > MOST_BYTES)
            && let Some(oldest) = self.order.pop_front()
        {
            let Some(held) = self.held.get_mut(&oldest) else { continue };
            let count = held.spans.len();
            held.spans.clear();
            held.notes.clear();
            held.tickets.clear();
            self.bytes -= std::mem::take(&mut held.bytes);
            self.spans -= count;
            held.dropped += u32::try_from(count).unwrap_or(u32::MAX);
            dropped += count;
            // Only its number is left of it: behind all others it costs nobody anything.
            self.order.push_back(oldest);
        }
        dropped
    }
}

/// The server spans of the requests that were kept last.
#[derive(Debug, Default)]
struct Kept {
    order: VecDeque<(SpanId, Worth)>,
    /// Those of them that were there at the last question: where requests have no children nobody asks, and a place in a
    /// table larger than a cache costs a tenth of a span. Ids are of our own workers, so no stranger can choose two that
    /// collide.
    known: FxHashMap<SpanId, Worth>,
}

impl Kept {
    fn worth(&mut self, request: SpanId) -> Option<Worth> {
        // They are the first; an id that came twice is counted once and looked at again.
        self.known.extend(self.order.range(self.known.len()..).copied());
        self.known.get(&request).copied()
    }

    fn insert(&mut self, request: SpanId, worth: Worth) {
        self.order.push_back((request, worth));
        if self.order.len() > MOST_KEPT
            && let Some((oldest, _)) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

fn is_old(held: &Held, now: Instant) -> bool {
    now.saturating_duration_since(held.since) >= OLD
}

fn span_bytes(record: &SpanRecord) -> usize {
    let attributes = record.attributes.iter().map(|(key, value)| {
        let text = if let OwnedValue::Str(text) = value { text.len() } else { 0 };
        size_of::<(String, OwnedValue)>() + key.len() + text
    });
    size_of::<SpanRecord>() + record.name.len() + attributes.sum::<usize>()
}

/// Children of one request.
const MOST_OF_REQUEST: usize = 128;
/// Children of all requests.
const MOST: usize = 32_768;
const MOST_BYTES: usize = 16 * 1024 * 1024;
const MOST_KEPT: usize = 16_384;
const OLD: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use saola_observability::TraceId;
    use saola_observability::closed::{SpanKind, SpanStatus};

    use super::*;

    fn child(request: u64, number: u64) -> SpanRecord {
        SpanRecord {
            start_ns: number,
            duration_ns: 1,
            trace: TraceId([1; 16]),
            span: SpanId(number.to_be_bytes()),
            parent: SpanId(request.to_be_bytes()),
            request: SpanId(request.to_be_bytes()),
            kind: SpanKind::Internal,
            status: SpanStatus::Unset,
            status_text: String::new(),
            name: "step".into(),
            attributes: Vec::new(),
        }
    }

    fn held(children: &mut Children, request: u64, number: u64, now: Instant) -> usize {
        match children.span(child(request, number), Ticket::default(), now) {
            Arrived::Held { dropped } => dropped,
            Arrived::Late(..) => panic!("its request has not ended"),
        }
    }

    #[test]
    fn a_request_gets_its_own_children_and_no_others() {
        let (mut children, now) = (Children::default(), Instant::now());
        for number in 0..10 {
            assert_eq!(held(&mut children, number % 2 + 1, number, now), 0);
        }
        let ended = children.end(SpanId(1_u64.to_be_bytes()), Some(Worth::Sampled)).unwrap();
        assert_eq!(ended.spans.len(), 5);
        assert!(ended.spans.iter().all(|(span, _)| span.start_ns % 2 == 0));
        assert_eq!(children.spans, 5);
    }

    #[test]
    fn a_child_of_a_kept_request_that_has_ended_goes_out_at_once() {
        let (mut children, now) = (Children::default(), Instant::now());
        assert!(children.end(SpanId(1_u64.to_be_bytes()), Some(Worth::Notable)).is_none());
        let late = children.span(child(1, 7), Ticket::default(), now);
        assert!(matches!(late, Arrived::Late(span, _, Worth::Notable) if span.start_ns == 7));
    }

    #[test]
    fn the_last_kept_requests_are_known_whenever_somebody_asks() {
        let id = |number: usize| SpanId(u64::try_from(number).unwrap().to_be_bytes());
        for asks_every in [1, 7, MOST_KEPT, usize::MAX] {
            let mut kept = Kept::default();
            for number in 1..=2 * MOST_KEPT {
                kept.insert(id(number), Worth::Sampled);
                // An id that comes twice is as new as its first.
                if number == MOST_KEPT {
                    kept.insert(id(number), Worth::Sampled);
                }
                if number % asks_every == 0 {
                    assert_eq!(kept.worth(id(number)), Some(Worth::Sampled));
                }
            }
            for number in 1..=2 * MOST_KEPT {
                assert_eq!(kept.worth(id(number)).is_some(), number > MOST_KEPT, "{number}");
            }
        }
    }

    #[test]
    fn each_bound_drops_and_counts() {
        let (mut children, now) = (Children::default(), Instant::now());
        let count = u64::try_from(MOST_OF_REQUEST).unwrap();
        let dropped: usize = (0..count + 3).map(|number| held(&mut children, 1, number, now)).sum();
        assert_eq!(dropped, 3);
        let mut produced = 0;
        let mut dropped = 0;
        for request in 2..600 {
            for number in 0..count {
                produced += 1;
                dropped += held(&mut children, request, number, now);
            }
        }
        assert!(children.spans <= MOST && dropped > 0);
        assert_eq!(produced + MOST_OF_REQUEST, dropped + children.spans);
        let ended = children.end(SpanId(1_u64.to_be_bytes()), None).unwrap();
        assert_eq!((ended.spans.len(), ended.dropped), (0, 3 + u32::try_from(count).unwrap()));
    }

    #[test]
    fn what_belongs_to_nobody_expires_and_settles() {
        let (mut children, now) = (Children::default(), Instant::now());
        let ticket = Ticket::default();
        let fate = ticket.fate();
        children.span(child(1, 1), ticket, now);
        held(&mut children, 2, 2, now);
        assert!(!children.has_old(now) && children.has_old(now + OLD));
        let running = HashSet::from([SpanId(2_u64.to_be_bytes())]);
        assert_eq!(children.expire(now + OLD, &running), 1);
        assert!(fate.is_settled());
        assert_eq!((children.spans, children.held.len()), (1, 1));
    }
}

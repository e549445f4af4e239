//! Samples of a while, folded: each stack of each worker stands once, with the sum of its weights. Bounded, whatever comes.

use std::collections::{HashMap, HashSet, VecDeque};

use saola_observability::samples::Sample;
use saola_observability::{SpanId, TraceId, clock};

use crate::lost::LostSamples;
use crate::metrics;

/// A stack of a worker, while working for a request or for none.
#[derive(Clone, Eq, PartialEq, Hash, Debug)]
pub(crate) struct Key {
    pub(crate) worker: u32,
    pub(crate) span: SpanId,
    /// Program counters, innermost first; empty is `[other]`.
    pub(crate) frames: Box<[u64]>,
}

/// A request that samples were taken of.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) trace: TraceId,
    pub(crate) route: String,
    weight: u64,
    is_kept: bool,
}

/// The samples since it was begun.
#[derive(Debug)]
pub(crate) struct Window {
    since_ns: u64,
    until_ns: u64,
    stacks: HashMap<Key, u64>,
    requests: HashMap<SpanId, Request>,
    bytes: usize,
    /// Spans whose samples left with an earlier window.
    left: Left,
}

/// A bounded memory of spans.
#[derive(Clone, Default, Debug)]
struct Left {
    spans: HashSet<SpanId>,
    order: VecDeque<SpanId>,
}

impl Window {
    pub(crate) fn new(since_ns: u64) -> Self {
        Self {
            since_ns,
            until_ns: since_ns,
            stacks: HashMap::new(),
            requests: HashMap::new(),
            bytes: 0,
            left: Left::default(),
        }
    }

    pub(crate) fn add(&mut self, worker: u32, route: &str, sample: &Sample) {
        let frames = sample.frames.get(..usize::from(sample.depth)).unwrap_or(&sample.frames);
        let weight = u64::from(sample.weight);
        if !sample.span.is_none() {
            let request = self.requests.entry(sample.span).or_insert_with(|| Request {
                trace: sample.trace,
                route: route.to_owned(),
                weight: 0,
                is_kept: false,
            });
            request.weight += weight;
            // The first may have been taken before a route was matched.
            if request.route != route {
                route.clone_into(&mut request.route);
            }
        }
        self.put(Key { worker, span: sample.span, frames: frames.into() }, weight);
        if self.stacks.len() > MOST_STACKS || self.bytes > MOST_BYTES {
            self.shrink();
        }
    }

    /// The trace of this request is kept: its samples leave with its ids. Says whether there are any, or were.
    pub(crate) fn keep(&mut self, span: SpanId) -> bool {
        let found = self.requests.get_mut(&span);
        let is_here = found.is_some();
        if let Some(request) = found {
            request.is_kept = true;
        }
        is_here || self.left.spans.contains(&span)
    }

    /// Takes everything out, with the ids of requests that are not kept taken off, and begins anew.
    pub(crate) fn take(&mut self) -> Self {
        let now = clock::wall_ns();
        let mut fresh = Self::new(now);
        fresh.left = std::mem::take(&mut self.left);
        for (span, _) in self.requests.iter().filter(|(_, request)| request.is_kept) {
            fresh.left.insert(*span);
        }
        let mut taken = std::mem::replace(self, fresh);
        taken.until_ns = now;
        let unkept: HashSet<_> = taken
            .requests
            .iter()
            .filter(|(_, request)| !request.is_kept)
            .map(|(span, _)| *span)
            .collect();
        taken.unlabel(&unkept);
        taken
    }

    /// Stacks with their weights.
    pub(crate) fn stacks(&self) -> impl Iterator<Item = (&Key, u64)> {
        self.stacks.iter().map(|(key, weight)| (key, *weight))
    }

    pub(crate) fn request(&self, span: SpanId) -> Option<&Request> {
        self.requests.get(&span)
    }

    /// The sum of all weights.
    pub(crate) fn weight(&self) -> u64 {
        self.stacks.values().sum()
    }

    /// When it begins and how long it is, wall clock nanoseconds.
    pub(crate) fn span_ns(&self) -> (u64, u64) {
        (self.since_ns, self.until_ns.saturating_sub(self.since_ns))
    }

    fn put(&mut self, key: Key, weight: u64) {
        let bytes = key_bytes(&key);
        let stack = self.stacks.entry(key).or_insert_with(|| {
            self.bytes += bytes;
            0
        });
        *stack += weight;
    }

    /// Makes room: first the ids of the requests with the least weight go, which costs no CPU time, then the smallest stacks
    /// become `[other]` (O61).
    fn shrink(&mut self) {
        let mut spans: Vec<_> = self
            .requests
            .iter()
            .map(|(span, request)| (request.is_kept, request.weight, *span))
            .collect();
        spans.sort_unstable();
        for chunk in spans.chunks(spans.len().div_ceil(4).max(1)) {
            self.unlabel(&chunk.iter().map(|(.., span)| *span).collect());
            if self.has_room() {
                return;
            }
        }
        let mut stacks: Vec<_> = self.stacks.drain().collect();
        stacks.sort_unstable_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        let folded = stacks.split_off((stacks.len() / 2).min(MOST_STACKS / 2));
        self.bytes = 0;
        for (key, weight) in stacks {
            self.put(key, weight);
        }
        for (key, weight) in folded {
            metrics::samples_dropped(LostSamples::Folded, weight);
            self.put(
                Key { worker: key.worker, span: SpanId::NONE, frames: Box::default() },
                weight,
            );
        }
    }

    fn has_room(&self) -> bool {
        self.stacks.len() <= MOST_STACKS / 4 * 3 && self.bytes <= MOST_BYTES / 4 * 3
    }

    /// Takes the ids of these requests off their samples, which stay.
    fn unlabel(&mut self, spans: &HashSet<SpanId>) {
        if spans.is_empty() {
            return;
        }
        let labelled: Vec<_> = self.stacks.extract_if(|key, _| spans.contains(&key.span)).collect();
        for (key, weight) in labelled {
            self.bytes -= key_bytes(&key);
            self.put(Key { span: SpanId::NONE, ..key }, weight);
        }
        self.requests.retain(|span, _| !spans.contains(span));
    }
}

impl Left {
    fn insert(&mut self, span: SpanId) {
        if self.spans.insert(span) {
            self.order.push_back(span);
        }
        if self.order.len() > MOST_LEFT
            && let Some(oldest) = self.order.pop_front()
        {
            self.spans.remove(&oldest);
        }
    }
}

fn key_bytes(key: &Key) -> usize {
    size_of::<(Key, u64)>() + size_of_val::<[u64]>(&key.frames)
}

const MOST_STACKS: usize = 16_000;
const MOST_BYTES: usize = 3_584 * 1024;
const MOST_LEFT: usize = 4_096;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(span: u64, frames: &[u64], weight: u32) -> Sample {
        let mut all = [0; saola_observability::samples::MOST_FRAMES];
        all[..frames.len()].copy_from_slice(frames);
        Sample {
            time_ns: 1,
            span: SpanId(span.to_be_bytes()),
            trace: TraceId([9; 16]),
            route: 1,
            weight,
            thread: 1,
            image: 1,
            depth: u16::try_from(frames.len()).unwrap(),
            is_cut: false,
            frames: all,
        }
    }

    fn id(span: u64) -> SpanId {
        SpanId(span.to_be_bytes())
    }

    #[test]
    fn samples_leave_with_the_ids_of_kept_requests_only() {
        let mut window = Window::new(0);
        window.add(0, "unmatched", &sample(1, &[10, 20], 1));
        window.add(0, "/a", &sample(1, &[10, 20], 2));
        window.add(0, "/b", &sample(2, &[10, 20], 4));
        window.add(0, "", &sample(0, &[10, 20], 8));
        assert!(window.keep(id(1)));
        assert!(!window.keep(id(3)), "nothing was sampled of it");
        let taken = window.take();
        let mut weights: Vec<_> = taken.stacks().map(|(key, weight)| (key.span, weight)).collect();
        weights.sort_by_key(|(_, weight)| *weight);
        assert_eq!(weights, [(id(1), 3), (SpanId::NONE, 12)]);
        assert_eq!(taken.request(id(1)).unwrap().route, "/a");
        assert!(window.keep(id(1)), "its samples have left with its ids");
        assert!(!window.keep(id(2)), "they left without");
        assert_eq!(window.weight(), 0);
    }

    #[test]
    fn a_window_is_bounded_and_loses_no_time() {
        let mut window = Window::new(0);
        let mut added = 0;
        for number in 0..100_000_u64 {
            let frames = [number, number * 7, number % 13];
            window.add(
                u32::try_from(number % 8).unwrap(),
                "/",
                &sample(number % 9_000, &frames, 2),
            );
            added += 2;
            assert!(window.stacks.len() <= MOST_STACKS + 1 && window.bytes <= MOST_BYTES + 1_024);
        }
        assert_eq!(window.weight(), added);
        let counted: usize = window.stacks.keys().map(key_bytes).sum();
        assert_eq!(counted, window.bytes);
    }

    #[test]
    fn labels_go_before_stacks() {
        let mut window = Window::new(0);
        for number in 0..u64::try_from(MOST_STACKS).unwrap() + 10 {
            window.add(0, "/", &sample(number + 1, &[5, 6], 1));
        }
        assert!(window.stacks().all(|(key, _)| !key.frames.is_empty()), "one stack is no crowd");
        assert!(window.requests.len() < MOST_STACKS);
    }
}

//! The ring of profile samples in a worker's slot file (F53, F54): written by signal handlers, read by the observer.
//!
//! An entry: sequence, time, span, trace (2), route u32 with weight u32, thread u32 with depth u16 and flags u16, image, then
//! 64 program counters: 72 words. Position `p` stands in entry `p % 512` and is whole once its sequence is `p + 1`.
//!
//! Writing takes no lock, allocates nothing and makes no system call, so a signal handler may do it. It overwrites what
//! nobody has read in a second; the reader sees that by the sequence. A handler that stood still while the whole ring went round
//! may spoil one entry: then a stack is wrong, never an access.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::ids::{SpanId, TraceId};
use crate::layout::{SAMPLE_BYTES, SAMPLES_HEAD_AT, Section, halves, join, long, size};
use crate::map::Map;
use crate::sync::fence;

/// Program counters that a sample keeps; deeper stacks are cut.
pub const MOST_FRAMES: usize = 64;
const FRAMES: usize = 8;
const WORDS: usize = FRAMES + MOST_FRAMES;

/// One profile sample.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Sample {
    /// When it was taken, monotonic nanoseconds.
    pub time_ns: u64,
    /// The server span that ran, or none.
    pub span: SpanId,
    /// Its trace, or none.
    pub trace: TraceId,
    /// Its route, as the id of a string of the slot.
    pub route: u32,
    /// Timer ticks that it stands for: 1, and one more for each that overran.
    pub weight: u32,
    /// The thread it was taken of.
    pub thread: u32,
    /// The program image of the process, as in the slot's header: the program counters mean something only in the same one.
    pub image: u64,
    /// Program counters that are valid.
    pub depth: u16,
    /// Whether the stack was deeper.
    pub is_cut: bool,
    /// Program counters, innermost first; only the first `depth` mean something.
    pub frames: [u64; MOST_FRAMES],
}

/// Where the ring of a file stands.
#[derive(Copy, Clone)]
pub(crate) struct SampleRing {
    section: Section,
}

/// What a reader found at a position.
#[derive(Clone, PartialEq, Debug)]
pub enum Found {
    /// A whole sample.
    Sample(Box<Sample>),
    /// It was claimed and is not written yet; it never will be if its owner is dead.
    Unfinished,
    /// It was written over before it was read.
    Overwritten,
}

impl SampleRing {
    /// The ring of a file; `None` if it has none.
    pub(crate) fn new(section: Section) -> Option<Self> {
        (section.capacity >= SAMPLE_BYTES).then_some(Self { section })
    }

    pub(crate) fn entries(self) -> u64 {
        long(self.section.capacity / SAMPLE_BYTES)
    }

    pub(crate) fn head(map: &Map) -> u64 {
        map.word(SAMPLES_HEAD_AT).load(Acquire)
    }

    /// Writes a sample, or says that three others were faster: then it is to be counted as dropped.
    #[must_use]
    pub(crate) fn push(self, map: &Map, sample: &Sample) -> bool {
        let Some(position) = claim(map) else { return false };
        let words = map.words(self.offset(position), WORDS);
        let [first, second] = halves(sample.trace.0);
        let depth = usize::from(sample.depth).min(MOST_FRAMES);
        let frames = words.iter().skip(FRAMES).zip(&sample.frames).take(depth);
        // Not whole until the last store: a reader must not take the entry that stood here for it.
        words[0].store(0, Relaxed);
        fence(Release);
        for (at, value) in [
            (1, sample.time_ns),
            (2, u64::from_ne_bytes(sample.span.0)),
            (3, first),
            (4, second),
            (5, u64::from(sample.route) | u64::from(sample.weight) << 32),
            (6, u64::from(sample.thread) | long(depth) << 32 | u64::from(sample.is_cut) << 48),
            (7, sample.image),
        ] {
            words[at].store(value, Relaxed);
        }
        frames.for_each(|(word, frame)| word.store(*frame, Relaxed));
        words[0].store(position.wrapping_add(1), Release);
        true
    }

    /// What stands at a position below the head. Trusts no byte.
    pub(crate) fn read(self, map: &Map, position: u64) -> Found {
        let words = map.words(self.offset(position), WORDS);
        let before = words[0].load(Acquire);
        let mut copy = [0; WORDS];
        for (to, from) in copy.iter_mut().zip(words) {
            *to = from.load(Relaxed);
        }
        fence(Acquire);
        let (whole, after) = (position.wrapping_add(1), words[0].load(Relaxed));
        // One that became whole during the copy is still unfinished here.
        if before != whole && before.max(after) <= whole {
            return Found::Unfinished;
        }
        if (before, after) != (whole, whole) {
            return Found::Overwritten;
        }
        let [_, time_ns, span, first, second, route, thread, image, frames @ ..] = copy;
        let [r0, r1, r2, r3, w0, w1, w2, w3] = route.to_le_bytes();
        let [t0, t1, t2, t3, d0, d1, flags, _] = thread.to_le_bytes();
        let depth = usize::from(u16::from_le_bytes([d0, d1])).min(MOST_FRAMES);
        Found::Sample(Box::new(Sample {
            time_ns,
            span: SpanId(span.to_ne_bytes()),
            trace: TraceId(join(first, second)),
            route: u32::from_le_bytes([r0, r1, r2, r3]),
            weight: u32::from_le_bytes([w0, w1, w2, w3]),
            thread: u32::from_le_bytes([t0, t1, t2, t3]),
            image,
            depth: u16::try_from(depth).unwrap_or(0),
            is_cut: flags & 1 != 0,
            frames,
        }))
    }

    fn offset(self, position: u64) -> usize {
        let entry = size(position).checked_rem(size(self.entries())).unwrap_or(0);
        self.section.offset + entry * SAMPLE_BYTES
    }
}

/// Takes a position for its own. Three tries: a handler must end.
fn claim(map: &Map) -> Option<u64> {
    let head = map.word(SAMPLES_HEAD_AT);
    (0..3).find_map(|_| {
        let position = head.load(Relaxed);
        let next = position.checked_add(1)?;
        head.compare_exchange(position, next, AcqRel, Relaxed).ok()
    })
}

const _: () = assert!(WORDS * 8 <= SAMPLE_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::closed::Role;
    use crate::layout::Shape;

    fn sample(number: u64) -> Sample {
        let mut frames = [0; MOST_FRAMES];
        frames[..3].copy_from_slice(&[number, number * 2, number * 3]);
        Sample {
            time_ns: number,
            span: SpanId(number.to_ne_bytes()),
            trace: TraceId([9; 16]),
            route: 7,
            weight: 1,
            thread: 3,
            image: 11,
            depth: 3,
            is_cut: number.is_multiple_of(2),
            frames,
        }
    }

    fn ring() -> (Map, SampleRing) {
        let sections = Shape::default().sections(Role::Worker);
        let file = tempfile::tempfile().unwrap();
        file.set_len(long(sections.samples.end())).unwrap();
        let map = Map::writable(&file, sections.samples.end()).unwrap();
        (map, SampleRing::new(sections.samples).unwrap())
    }

    #[test]
    fn samples_read_back_until_they_are_written_over() {
        let (map, ring) = ring();
        for number in 0..700 {
            assert!(ring.push(&map, &sample(number)));
        }
        assert_eq!(SampleRing::head(&map), 700);
        assert_eq!(ring.read(&map, 0), Found::Overwritten);
        for number in 700 - ring.entries()..700 {
            let Found::Sample(found) = ring.read(&map, number) else { panic!("{number}") };
            assert_eq!(found.frames[..3], [number, number * 2, number * 3]);
            assert_eq!((found.time_ns, found.depth, found.is_cut), (number, 3, number % 2 == 0));
        }
    }

    #[test]
    fn a_claim_that_was_never_written_is_told_apart() {
        let (map, ring) = ring();
        assert!(ring.push(&map, &sample(1)));
        assert_eq!(claim(&map), Some(1));
        assert_eq!(ring.read(&map, 1), Found::Unfinished);
    }

    #[test]
    fn threads_that_write_at_once_tear_nothing() {
        let (map, ring) = ring();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (map, ring) = (&map, ring);
                let numbers = thread * 10_000 + 1..thread * 10_000 + 5_001;
                scope.spawn(move || {
                    numbers.filter(|number| ring.push(map, &sample(*number))).count()
                });
            }
            let mut position = 0;
            while position < 5_000 {
                let head = SampleRing::head(&map);
                position = position.max(head.saturating_sub(ring.entries() / 2));
                if position < head
                    && let Found::Sample(found) = ring.read(&map, position)
                {
                    let number = found.time_ns;
                    assert_eq!(found.frames[..3], [number, number * 2, number * 3]);
                }
                position += u64::from(position < head);
            }
        });
    }
}

//! Passes over the rings of all slots: each record becomes a line and, if its trace is kept, a span.
//!
//! The two stages have a cursor each, so that neither waits for the other: a stdout that nobody reads costs lines, a
//! collector that hangs costs spans, and only a dead observer fills a ring. Where both stand at one place, one reading does.

mod files;
mod lines;
mod marks;
mod open;
mod rings;
mod stacks;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

pub(crate) use files::{Files, Lag, LogCursors, News};
pub(crate) use lines::Lines;

use crate::logfmt::Origin;
use crate::lost::LostLines;
use crate::otlp::Traces;
use crate::profile::{Profiles, Symbols};
use marks::Marks;
use open::Open;
pub(crate) use rings::{Kept, Rings, Stage};

/// What a pass found.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug)]
pub(crate) enum Found {
    /// Nothing new.
    Nothing,
    /// Some records.
    Some,
    /// A ring that is filling: look again at once.
    Plenty,
}

/// The reader: rings in, lines and spans out.
pub(crate) struct Reader<R: Rings> {
    pub(crate) rings: R,
    pub(crate) lines: Lines<R::Position>,
    pub(crate) traces: Option<Traces>,
    pub(crate) profiles: Profiles,
    /// For the stacks of hung workers.
    symbols: Symbols,
    /// Per source: what this pass reads of it.
    turns: Vec<Turn<R::Position>>,
    /// The sources that have something to read, by the time of their next record: the earliest is read first.
    next: BinaryHeap<Reverse<(u64, usize)>>,
    /// Per source: the last record read for lines, and the cursor as it was last stored.
    marks: Vec<Marks<R::Position>>,
    /// Per source: what was read for spans whose fate is open.
    open: Vec<Open<R::Position>>,
}

/// What one pass reads of a source.
struct Turn<P> {
    origin: Origin,
    /// Records that may still be read.
    left: usize,
    /// If spans have read it as far as lines: that far. What is behind is read for both.
    spans_at: Option<P>,
}

impl<R: Rings> Reader<R> {
    pub(crate) fn new(
        rings: R,
        lines: Lines<R::Position>,
        traces: Option<Traces>,
        profiles: Profiles,
    ) -> Self {
        Self {
            rings,
            lines,
            traces,
            profiles,
            symbols: Symbols::default(),
            turns: Vec::new(),
            next: BinaryHeap::new(),
            marks: Vec::new(),
            open: Vec::new(),
        }
    }

    /// One pass over all slots.
    pub(crate) fn pass(&mut self) -> Found {
        self.rings.refresh();
        self.marks.resize_with(self.rings.sources(), Marks::default);
        self.open.resize_with(self.rings.sources(), Open::default);
        self.commit_written();
        let is_filling = (0..self.rings.sources()).any(|source| {
            let unread =
                self.rings.unread(source, Stage::Log).max(self.rings.unread(source, Stage::Otlp));
            unread > self.rings.capacity(source) / 4
        });
        // Before the records: when a request is read that has ended, its samples are known (O15).
        self.take_samples();
        if let Some(traces) = &self.traces {
            traces.expire_children(|| self.rings.running(false));
            self.profiles.keep_running(|| self.rings.running(true));
        }
        let (lines, is_read) = self.pass_lines();
        let spans = self.pass_spans(is_read);
        match lines.max(spans) {
            Found::Some if is_filling => Found::Plenty,
            found => found,
        }
    }

    /// Reads the profile samples that have come since the last pass.
    pub(crate) fn take_samples(&mut self) {
        self.rings.samples(&mut self.profiles);
    }

    /// Whether every record was read, turned into a line and written.
    pub(crate) fn has_written_all(&mut self) -> bool {
        self.lines.is_idle()
            && (0..self.rings.sources()).all(|source| self.rings.unread(source, Stage::Log) == 0)
    }

    /// Whether every span of the rings is queued.
    pub(crate) fn has_queued_all(&mut self) -> bool {
        (0..self.rings.sources()).all(|source| self.rings.unread(source, Stage::Otlp) == 0)
    }

    /// At the end: counts what no longer becomes a line. Returns how many lines that is.
    pub(crate) fn give_up_lines(&mut self) -> u64 {
        let mut count = self.lines.give_up();
        for source in 0..self.rings.sources() {
            while self.rings.unread(source, Stage::Log) > 0 {
                let mut read = 0;
                let (rings, lines) = (&mut self.rings, &mut self.lines);
                rings.look(source);
                rings.read(source, PER_PASS, |_, record| {
                    read += 1;
                    count += u64::from(lines.lose(LostLines::Shutdown, &record));
                });
                if read == 0 {
                    break;
                }
            }
        }
        count
    }

    fn commit_written(&mut self) {
        let (rings, marks) = (&mut self.rings, &mut self.marks);
        self.lines.finish(&mut |source, position| {
            if let Some(mark) = marks.get_mut(source)
                && mark.committed < Some(position)
            {
                mark.committed = Some(position);
                rings.commit(source, Stage::Log, position);
            }
        });
    }

    /// Says too whether the rings were read: not while lines are held up.
    fn pass_lines(&mut self) -> (Found, bool) {
        let has_room = self.lines.has_room();
        let mut found = Found::Nothing;
        if has_room {
            self.begin_turns();
            while self.lines.has_room()
                && let Some(earliest) = self.next.peek()
            {
                found = Found::Some;
                let Reverse((time, source)) = *earliest;
                self.read_next(source);
                self.go_on(time, source);
            }
            self.end_turns();
        }
        // While the output is full the last chunk is not, and more lines for it are waiting.
        if has_room && self.next.is_empty() {
            self.lines.flush();
        }
        self.relieve(has_room);
        (found, has_room)
    }

    /// Gives each source a part of this pass, and looks when its first record was written down.
    fn begin_turns(&mut self) {
        let sources = self.rings.sources();
        let left = (PER_PASS / sources.max(1)).clamp(PER_RING.0, PER_RING.1);
        self.turns.clear();
        self.next.clear();
        for source in 0..sources {
            self.rings.look(source);
            let spans_at = self.rings.read_to(source, Stage::Otlp);
            let is_together = spans_at >= self.rings.read_to(source, Stage::Log);
            let origin = self.rings.origin(source);
            self.turns.push(Turn { origin, left, spans_at: is_together.then_some(spans_at) });
            if let Some(time) = self.rings.next_wall_ns(source) {
                self.next.push(Reverse((time, source)));
            }
        }
    }

    /// A record becomes its line, and its span where both are read together.
    fn read_next(&mut self, source: usize) {
        let (mark, symbols) = (&mut self.marks[source], &mut self.symbols);
        let (turn, open) = (&mut self.turns[source], &mut self.open[source]);
        let (lines, profiles) = (&mut self.lines, &mut self.profiles);
        let traces = &self.traces;
        turn.left -= 1;
        let mut is_record = false;
        self.rings.read(source, 1, |position, mut record| {
            is_record = true;
            mark.reached = Some(position);
            stacks::name(&mut record, symbols);
            lines.add(source, position, turn.origin, &record);
            if let Some(traces) = traces
                && turn.spans_at.is_some_and(|spans_at| position > spans_at)
            {
                let fate = traces.record(turn.origin.worker, record, profiles);
                open.read(position, fate);
            }
        });
        if !is_record {
            // What cannot be read is done with, too: a cursor in front of it would keep the ring full.
            let end = self.rings.read_to(source, Stage::Log);
            mark.reached = Some(end);
            lines.reached(source, end);
            if turn.spans_at.is_some_and(|spans_at| end > spans_at) {
                open.read(end, None);
            }
        }
    }

    /// Puts the source whose turn it was where its next record belongs.
    fn go_on(&mut self, time: u64, source: usize) {
        let Some(mut earliest) = self.next.peek_mut() else { return };
        let time_of_next = self.rings.next_wall_ns(source).filter(|_| self.turns[source].left > 0);
        match time_of_next {
            // Never before the one that was read: each source keeps its own order, whatever its clock did.
            Some(next) => *earliest = Reverse((next.max(time), source)),
            None => _ = PeekMut::pop(earliest),
        }
    }

    /// What was read for both is not to be read for spans once more.
    fn end_turns(&mut self) {
        for (source, turn) in self.turns.iter().enumerate() {
            if turn.spans_at.is_some()
                && let Some(reached) = self.marks[source].reached
            {
                self.rings.skip_to(source, Stage::Otlp, reached);
            }
        }
    }

    /// Keeps each cursor within half a ring; while nobody reads stdout that costs the oldest lines.
    ///
    /// While lines find room the cursor waits for them, until the ring is nearly full: if it went ahead of them, a death would
    /// take lines that nobody has counted, and after a death rings are full.
    fn relieve(&mut self, has_room: bool) {
        for source in 0..self.rings.sources() {
            let capacity = self.rings.capacity(source);
            let half = capacity / 2;
            let most = if has_room { capacity / 8 * 7 } else { half };
            if self.rings.uncommitted(source, Stage::Log) <= most {
                continue;
            }
            self.rings.look(source);
            while !has_room && self.rings.unread(source, Stage::Log) > half {
                let before = self.rings.read_to(source, Stage::Log);
                let (rings, lines, mark) =
                    (&mut self.rings, &mut self.lines, &mut self.marks[source]);
                rings.read(source, PER_RING.0, |_, record| {
                    lines.lose(LostLines::Blocked, &record);
                });
                let reached = self.rings.read_to(source, Stage::Log);
                if reached <= before {
                    break;
                }
                mark.reached = Some(reached);
            }
            // What is encoded or pending stays in memory and is written later: only a crash of the observer can
            // take it now.
            let mark = &mut self.marks[source];
            if let Some(reached) = mark.reached.filter(|reached| mark.committed < Some(*reached)) {
                mark.committed = Some(reached);
                self.rings.commit(source, Stage::Log, reached);
            }
        }
    }

    /// Reads for spans what the lines have not read for both, and moves the cursors of spans.
    fn pass_spans(&mut self, is_read: bool) -> Found {
        let mut found = Found::Nothing;
        for source in 0..self.rings.sources() {
            if self.traces.is_none() {
                if let Some(last) = self.marks[source].spans_follow() {
                    self.rings.commit(source, Stage::Otlp, last);
                }
                continue;
            }
            let [lines, spans] =
                [Stage::Log, Stage::Otlp].map(|stage| self.rings.unread(source, stage));
            if !is_read || spans > lines {
                found = found.max(self.read_kept(source));
            }
            if let Some(position) = self.open[source].settled() {
                self.rings.commit(source, Stage::Otlp, position);
            }
            // Never more than half a ring behind. What is released stays in memory; only its safety from a death of the
            // observer is given up, when a collector is away for longer than the ring is deep.
            let half = self.rings.capacity(source) / 2;
            while self.rings.uncommitted(source, Stage::Otlp) > half
                && let Some(position) = self.open[source].release()
            {
                self.rings.commit(source, Stage::Otlp, position);
            }
        }
        found
    }

    fn read_kept(&mut self, source: usize) -> Found {
        let mut found = Found::Nothing;
        let Some(traces) = &self.traces else { return found };
        let worker = self.rings.origin(source).worker;
        let mut last = self.rings.read_to(source, Stage::Otlp);
        let (open, profiles) = (&mut self.open[source], &mut self.profiles);
        self.rings.read_kept(source, PER_RING.1, |position, kept| {
            found = Found::Some;
            let fate = match kept {
                Kept::Record(record) => traces.record(worker, record, profiles),
                Kept::Not(request) => {
                    traces.forget(request);
                    None
                }
            };
            open.read(position, fate);
            last = position;
        });
        let end = self.rings.read_to(source, Stage::Otlp);
        if end > last {
            open.read(end, None);
        }
        found
    }
}

/// Records of one ring in one pass, at least and at most.
const PER_RING: (usize, usize) = (32, 256);
/// Records of all rings in one pass, if the parts of each allow.
const PER_PASS: usize = 2_048;

#[cfg(test)]
mod tests;

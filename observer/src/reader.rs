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

use std::collections::VecDeque;
use std::ops::Range;

use saola_observability::closed::Level;

pub(crate) use files::{Files, Lag, LogCursors, News};
pub(crate) use lines::Lines;

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
    /// Per source: what was read for lines and is not yet on its way to stdout.
    pending: Vec<VecDeque<Pending<R::Position>>>,
    /// The lines of these. A record becomes its line as soon as it is read: it is large, and its texts are memory of their own.
    drafts: Vec<u8>,
    /// The order in which they go: by time, with the source of each.
    order: VecDeque<(u64, usize)>,
    /// Per source: the last record read for lines, and the cursor as it was last stored.
    marks: Vec<Marks<R::Position>>,
    /// Per source: what was read for spans whose fate is open.
    open: Vec<Open<R::Position>>,
}

/// A record that was read for lines.
struct Pending<P> {
    position: P,
    /// The level of its line and where that stands among the drafts; `None` if it has none.
    line: Option<(Level, Range<usize>)>,
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
            pending: Vec::new(),
            drafts: Vec::new(),
            order: VecDeque::new(),
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
        self.order.is_empty()
            && self.lines.is_idle()
            && (0..self.rings.sources()).all(|source| self.rings.unread(source, Stage::Log) == 0)
    }

    /// Whether every span of the rings is queued.
    pub(crate) fn has_queued_all(&mut self) -> bool {
        (0..self.rings.sources()).all(|source| self.rings.unread(source, Stage::Otlp) == 0)
    }

    /// At the end: counts what no longer becomes a line. Returns how many lines that is.
    pub(crate) fn give_up_lines(&mut self) -> u64 {
        let mut count = self.lines.give_up();
        self.order.clear();
        let pending = std::mem::take(&mut self.pending).into_iter().flatten();
        let drafts = pending.filter(|pending| pending.line.is_some()).count();
        self.lines.count_lost(LostLines::Shutdown, drafts);
        count += u64::try_from(drafts).unwrap_or(u64::MAX);
        for source in 0..self.rings.sources() {
            while self.rings.unread(source, Stage::Log) > 0 {
                let mut read = 0;
                let (rings, lines) = (&mut self.rings, &mut self.lines);
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
        let is_read = has_room && self.order.is_empty();
        if is_read {
            self.fill();
        }
        let mut found = Found::Nothing;
        while self.lines.has_room()
            && let Some((_, source)) = self.order.pop_front()
        {
            found = Found::Some;
            let Some(next) = self.pending[source].pop_front() else { continue };
            let line = next.line.map(|(level, draft)| (level, &self.drafts[draft]));
            self.lines.take(source, next.position, line);
        }
        // While the output is full the last chunk is not, and more lines for it are waiting.
        if has_room && self.order.is_empty() {
            self.lines.flush();
        }
        self.relieve(has_room);
        (found, is_read)
    }

    /// Reads a part of each ring, and merges by time what different slots wrote. A ring that spans have read as far as lines
    /// is read for both at once.
    fn fill(&mut self) {
        let sources = self.rings.sources();
        let most = (PER_PASS / sources.max(1)).clamp(PER_RING.0, PER_RING.1);
        let (order, drafts, lines) = (&mut self.order, &mut self.drafts, &self.lines);
        drafts.clear();
        drafts.shrink_to(DRAFT_BYTES);
        self.pending.resize_with(sources, VecDeque::new);
        for source in 0..sources {
            // Never smaller than the one before in the same source: sorting keeps the order of each.
            let mut time = 0;
            let origin = self.rings.origin(source);
            let spans_at = self.rings.read_to(source, Stage::Otlp);
            let lines_at = self.rings.read_to(source, Stage::Log);
            let is_together = spans_at >= lines_at;
            let traces = self.traces.as_ref().filter(|_| is_together);
            let (mark, symbols) = (&mut self.marks[source], &mut self.symbols);
            let (pending, open) = (&mut self.pending[source], &mut self.open[source]);
            self.rings.read(source, most, |position, mut record| {
                time = record.wall_ns().max(time);
                mark.reached = Some(position);
                stacks::name(&mut record, symbols);
                let begin = drafts.len();
                let level = lines.draft(drafts, origin, &record);
                let line = level.map(|level| (level, begin..drafts.len()));
                order.push_back((time, source));
                pending.push_back(Pending { position, line });
                if let Some(traces) = traces.filter(|_| position > spans_at) {
                    let fate = traces.record(origin.worker, record, &mut self.profiles);
                    open.read(position, fate);
                }
            });
            // What cannot be read is done with, too: a cursor in front of it would keep the ring full.
            let end = self.rings.read_to(source, Stage::Log);
            if Some(end) > mark.reached.max(Some(lines_at)) {
                mark.reached = Some(end);
                order.push_back((time, source));
                pending.push_back(Pending { position: end, line: None });
                if is_together {
                    open.read(end, None);
                }
            }
            if let Some(reached) = mark.reached.filter(|_| is_together) {
                self.rings.skip_to(source, Stage::Otlp, reached);
            }
        }
        // Stable; and what is sorted is small: the lines stay where they are.
        order.make_contiguous().sort_by_key(|(time, _)| *time);
    }

    /// Keeps each cursor within half a ring; while nobody reads stdout that costs the oldest lines.
    fn relieve(&mut self, has_room: bool) {
        for source in 0..self.rings.sources() {
            let half = self.rings.capacity(source) / 2;
            if self.rings.uncommitted(source, Stage::Log) <= half {
                continue;
            }
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
/// Records whose lines wait for those that are older.
const PER_PASS: usize = 2_048;
/// Room for such lines that is kept from pass to pass: only hostile ones want more.
const DRAFT_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests;

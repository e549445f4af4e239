//! From records to chunks on their way to stdout, and the account of lines that did not make it.

use std::collections::VecDeque;

use saola_observability::Event;
use saola_observability::clock::wall_ns;
use saola_observability::closed::Level;
use saola_observability::ids::{SpanId, TraceId};
use saola_observability::record::{Record, Value};

use crate::filter::LineFilter;
use crate::logfmt::{Encoder, LINE_BYTES, Origin, time};
use crate::lost::LostLines;
use crate::metrics;
use crate::output::{Chunk, Output};

/// Where the cursors may go once a chunk is done with.
type Cursors<P> = Vec<(usize, P)>;

/// Encodes records and hands whole chunks to the output.
pub(crate) struct Lines<P> {
    encoder: Encoder,
    filter: LineFilter,
    own: Origin,
    output: Output<Cursors<P>>,
    chunk: Chunk<Cursors<P>>,
    /// Chunks that are done with, for their buffers.
    spare: Vec<Chunk<Cursors<P>>>,
    /// Full chunks that the output does not have yet: they go to it together, and its thread is woken once.
    held: VecDeque<Chunk<Cursors<P>>>,
    untold: [Untold; LostLines::ALL.len()],
    written: u64,
    lost: u64,
}

/// Lines lost since the last line that said so.
#[derive(Copy, Clone, Default)]
struct Untold {
    count: u64,
    since_ns: u64,
}

impl<P: Copy + Send + 'static> Lines<P> {
    pub(crate) fn new(
        encoder: Encoder,
        filter: LineFilter,
        own: Origin,
        output: Output<Cursors<P>>,
    ) -> Self {
        Self {
            encoder,
            filter,
            own,
            output,
            chunk: empty_chunk(),
            spare: Vec::new(),
            held: VecDeque::new(),
            untold: [Untold::default(); LostLines::ALL.len()],
            written: 0,
            lost: 0,
        }
    }

    /// Whether a record may be taken now.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.held.len() >= TOGETHER {
            self.output.offer(&mut self.held);
        }
        self.held.len() < TOGETHER
    }

    /// Appends the line of a record, if it has one. The cursor of its source follows when that is written.
    pub(crate) fn add(&mut self, source: usize, position: P, origin: Origin, record: &Record<'_>) {
        self.say_what_was_lost(&[LostLines::Blocked]);
        if let Some(level) = self.level(record) {
            let begin = self.chunk.bytes.len();
            let (out, encoder) = (&mut self.chunk.bytes, &self.encoder);
            match record {
                Record::Request(request) => encoder.request_of(level, out, origin, request),
                Record::Lost(lost) => encoder.lost(out, lost),
                Record::Event(event) => encoder.event_record(out, origin, event),
                Record::Panic(panic) => encoder.panic(out, origin, panic),
                Record::Span(_) => {}
            }
            self.appended(level, begin);
        }
        self.reached(source, position);
    }

    /// Everything up to here is done with as soon as the lines before it are written.
    pub(crate) fn reached(&mut self, source: usize, position: P) {
        match self.chunk.tag.iter_mut().find(|(other, _)| *other == source) {
            Some((_, reached)) => *reached = position,
            None => self.chunk.tag.push((source, position)),
        }
    }

    /// Hands out what was taken, also when it does not fill a chunk.
    pub(crate) fn flush(&mut self) {
        if !self.chunk.bytes.is_empty() || !self.chunk.tag.is_empty() {
            let chunk = self.take_chunk();
            self.held.push_back(chunk);
        }
        self.output.offer(&mut self.held);
    }

    /// Accounts for the chunks that are done with.
    pub(crate) fn finish(&mut self, commit: &mut dyn FnMut(usize, P)) {
        for mut done in self.output.finished() {
            self.written += u64::try_from(done.written).unwrap_or(0);
            match done.failure {
                None if done.chunk.levels.is_empty() => {}
                None => self.say_what_was_lost(&[LostLines::Closed, LostLines::WriteError]),
                Some(failure) => {
                    self.note_lost(failure.into(), done.chunk.levels.len() - done.written);
                }
            }
            for (slot, position) in done.chunk.tag.drain(..) {
                commit(slot, position);
            }
            done.chunk.bytes.clear();
            done.chunk.levels.clear();
            self.spare.push(done.chunk);
        }
    }

    /// Counts the line that this record will not become; false if it would have had none.
    pub(crate) fn lose(&mut self, reason: LostLines, record: &Record<'_>) -> bool {
        let has_line = self.level(record).is_some();
        if has_line {
            self.count_lost(reason, 1);
        }
        has_line
    }

    /// At the end: counts what is encoded and not written. Returns how many lines that is.
    pub(crate) fn give_up(&mut self) -> u64 {
        let chunk = self.take_chunk();
        let waiting = self.held.drain(..).chain([chunk]);
        let lines: usize = waiting.map(|chunk| chunk.levels.len()).sum();
        let queued = self.output.give_up();
        self.count_lost(LostLines::Shutdown, lines + queued);
        u64::try_from(lines + queued).unwrap_or(u64::MAX)
    }

    /// Adds a line of the observer itself, past the rings.
    pub(crate) fn say(&mut self, level: Level, message: &str, fields: &[(&str, Value<'_>)]) {
        let begin = self.chunk.bytes.len();
        let event = Event {
            wall_ns: wall_ns(),
            level,
            target: "saola::observer",
            message,
            trace: TraceId::NONE,
            span: SpanId::NONE,
            request_id: "",
            fields,
        };
        self.encoder.event(&mut self.chunk.bytes, self.own, &event);
        self.appended(level, begin);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.chunk.levels.is_empty() && self.output.is_idle()
    }

    pub(crate) fn output(&self) -> &Output<Cursors<P>> {
        &self.output
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// The level of the line that a record becomes.
    fn level(&self, record: &Record<'_>) -> Option<Level> {
        match record {
            Record::Request(request) => {
                let level = self.encoder.level(request);
                self.filter.allows_request(request, level).then_some(level)
            }
            // Somebody's request died: no filter hides that.
            Record::Lost(_) | Record::Panic(_) => Some(Level::Error),
            Record::Event(event) => {
                self.filter.levels.allows(&event.target, event.level).then_some(event.level)
            }
            Record::Span(_) => None,
        }
    }

    /// A line was encoded behind those of the chunk; if there is no room for it, it begins the next one.
    fn appended(&mut self, level: Level, begin: usize) {
        if begin > 0 && self.chunk.bytes.len() > LINE_BYTES {
            let mut full = self.take_chunk();
            self.chunk.bytes.extend_from_slice(&full.bytes[begin..]);
            full.bytes.truncate(begin);
            self.held.push_back(full);
        }
        self.chunk.levels.push(level);
    }

    #[inline]
    fn say_what_was_lost(&mut self, reasons: &[LostLines]) {
        if self.untold.iter().any(|untold| untold.count > 0) {
            self.say_now_what_was_lost(reasons);
        }
    }

    #[cold]
    fn say_now_what_was_lost(&mut self, reasons: &[LostLines]) {
        for reason in reasons {
            let untold = self.untold(*reason);
            let Untold { count, since_ns } = std::mem::take(untold);
            if count == 0 {
                continue;
            }
            let mut since = Vec::new();
            time(&mut since, since_ns);
            let fields = [
                ("count", Value::U64(count)),
                ("since", Value::Str(std::str::from_utf8(&since).unwrap_or_default())),
                ("reason", Value::Str(reason.as_str())),
            ];
            self.say(Level::Warn, "log lines dropped", &fields);
        }
    }

    /// Counts lines that nobody will get.
    fn count_lost(&mut self, reason: LostLines, count: usize) {
        metrics::lines_dropped(reason, count);
        self.note_lost(reason, count);
    }

    /// Remembers such lines, to tell of them.
    fn note_lost(&mut self, reason: LostLines, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        if count == 0 {
            return;
        }
        let untold = self.untold(reason);
        if untold.count == 0 {
            untold.since_ns = wall_ns();
        }
        untold.count += count;
        self.lost += count;
    }

    fn untold(&mut self, reason: LostLines) -> &mut Untold {
        match reason {
            LostLines::Blocked => &mut self.untold[0],
            LostLines::Closed => &mut self.untold[1],
            LostLines::WriteError => &mut self.untold[2],
            LostLines::Shutdown => &mut self.untold[3],
        }
    }

    fn take_chunk(&mut self) -> Chunk<Cursors<P>> {
        // There are never more than the output's queue holds.
        let next = self.spare.pop().unwrap_or_else(empty_chunk);
        std::mem::replace(&mut self.chunk, next)
    }
}

/// Chunks that go to the output at once: as many as a pipe holds.
const TOGETHER: usize = 16;

fn empty_chunk<P>() -> Chunk<Cursors<P>> {
    Chunk { bytes: Vec::with_capacity(2 * LINE_BYTES), levels: Vec::new(), tag: Vec::new() }
}

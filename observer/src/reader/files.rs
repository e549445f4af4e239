//! The rings of a run directory as the reader's sources: where each stage reads on, and where its cursor stands.

mod news;
mod samples;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use saola_observability::closed::Role;
use saola_observability::reader::ReadError;
use saola_observability::record::Record;
use saola_observability::rings::{self, Alarm, Cursor, Position, RawEntry, Reading};
use saola_observability::{Entry, RingName, SpanId};

use super::{Kept, Rings, Stage};
use crate::logfmt::Origin;
use crate::profile::Profiles;
use crate::voice::Reminder;
pub(crate) use news::News;

/// All rings of one run directory.
pub(crate) struct Files {
    run_dir: PathBuf,
    /// The one in use.
    rings: rings::Rings,
    /// Those of a supervisor that died with its observer (F10): none once its files are gone.
    leftovers: Vec<(u64, Option<rings::Rings>)>,
    opened: Instant,
    sources: Vec<Source>,
    refreshed: Instant,
    damaged: u64,
    cursors: LogCursors,
}

/// The cursors of lines, one for each source, moved by the thread that writes them.
#[derive(Clone, Default)]
pub(crate) struct LogCursors(Arc<Mutex<Vec<Option<Cursor>>>>);

impl LogCursors {
    /// Everything up to these positions was written, or counted as not.
    pub(crate) fn advance(&self, reached: &[(usize, Position)]) {
        let cursors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (source, position) in reached {
            // A cursor that could not be mapped is moved by the next pass.
            if let Some(Some(cursor)) = cursors.get(*source) {
                cursor.advance(*position);
            }
        }
    }

    fn add(&self, cursor: Option<Cursor>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(cursor);
    }
}

/// How far the two stages are behind in one ring, in bytes.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Lag {
    pub(crate) role: Role,
    /// The slot of a worker.
    pub(crate) worker: Option<u32>,
    pub(crate) ring: RingName,
    pub(crate) log: u64,
    pub(crate) otlp: u64,
}

/// One ring.
struct Source {
    /// Of a leftover: its place among them.
    leftover: Option<usize>,
    slot: usize,
    ring: RingName,
    read: [Position; 2],
    committed: [Position; 2],
    /// How far it was written at the last look.
    head: Position,
    /// What is read next for lines, if it was asked when that was written down.
    ahead: RawEntry,
    /// Where it stood.
    ahead_at: Option<Position>,
    /// Whether no good record has come since a rest of it could not be read.
    is_bad: bool,
    /// Such rests that nobody was told of.
    untold: u64,
    told: Reminder,
}

impl Files {
    pub(crate) fn open(run_dir: &Path) -> Result<Self, ReadError> {
        let rings = rings::Rings::open(run_dir)?;
        let now = Instant::now();
        let mut files = Self {
            run_dir: run_dir.to_owned(),
            rings,
            leftovers: Vec::new(),
            opened: now,
            sources: Vec::new(),
            refreshed: now,
            damaged: 0,
            cursors: LogCursors::default(),
        };
        files.open_leftovers();
        files.add_sources();
        Ok(files)
    }

    /// Rings whose rest had to be skipped because it could not be read.
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The cursors that the writer of lines moves.
    pub(crate) fn log_cursors(&self) -> LogCursors {
        self.cursors.clone()
    }

    /// Looks for new slots now: at the end there is no later.
    pub(crate) fn refresh_now(&mut self) {
        self.refreshed = Instant::now();
        if self.opened.elapsed() < LEFTOVERS_STAY {
            self.open_leftovers();
        }
        // The supervisor deletes one that is read, and after a minute all.
        for (_, rings) in &mut self.leftovers {
            rings.take_if(|rings| rings.refresh().is_err());
        }
        // A directory that is gone has no new slots; those that are mapped are read on.
        if self.rings.refresh().is_ok() {
            self.add_sources();
        }
    }

    /// What ends a sleep, if nobody serves and nothing is left to read. The order matters: who writes after the last look
    /// rings.
    pub(crate) fn alarm_if_idle(&mut self) -> Option<Alarm> {
        let alarm = self.rings.alarm()?;
        let is_read = (0..self.sources.len()).all(|source| {
            self.unread(source, Stage::Log).max(self.unread(source, Stage::Otlp)) == 0
        });
        (is_read && self.running(false).is_empty()).then_some(alarm)
    }

    /// Says whether a worker lives.
    pub(crate) fn has_live_worker(&mut self) -> bool {
        self.rings.slots().iter().any(|slot| slot.role() == Role::Worker && slot.is_live())
    }

    /// Bytes of each ring of this epoch that lines and spans have not committed yet.
    pub(crate) fn lags(&self) -> Vec<Lag> {
        let slots = self.rings.all();
        let lag = |source: &Source| {
            let slot = slots.get(source.slot)?;
            let behind = |position: Position| slot.head(source.ring).saturating_sub(position);
            let [log, otlp] = source.committed.map(behind);
            let worker = (slot.role() == Role::Worker).then_some(slot.number());
            Some(Lag { role: slot.role(), worker, ring: source.ring, log, otlp })
        };
        let of_this_epoch = |source: &&Source| source.leftover.is_none();
        self.sources.iter().filter(of_this_epoch).filter_map(lag).collect()
    }

    /// The slots, for those who show them.
    pub(crate) fn slots(&mut self) -> &mut [rings::Slot] {
        self.rings.slots()
    }

    fn add_sources(&mut self) {
        let known = self.sources.iter().filter(|source| source.leftover.is_none()).count() / RINGS;
        let slots = self.rings.slots().iter().enumerate().skip(known);
        for (number, slot) in slots {
            self.sources.extend(sources_of(slot, (None, number), &self.cursors));
        }
    }

    /// Epochs whose observer has died too: nobody else reads what they hold.
    fn open_leftovers(&mut self) {
        for epoch in rings::leftovers(&self.run_dir) {
            if self.leftovers.iter().any(|(known, _)| *known == epoch) {
                continue;
            }
            let rings = rings::Rings::open_epoch(&self.run_dir, epoch).ok();
            let place = Some(self.leftovers.len());
            let slots = rings.iter().flat_map(rings::Rings::all).enumerate();
            for (number, slot) in slots {
                self.sources.extend(sources_of(slot, (place, number), &self.cursors));
            }
            self.leftovers.push((epoch, rings));
        }
    }

    fn slot(&mut self, source: usize) -> Option<(&mut Source, &mut rings::Slot)> {
        let source = self.sources.get_mut(source)?;
        let rings = match source.leftover {
            None => &mut self.rings,
            Some(place) => self.leftovers.get_mut(place)?.1.as_mut()?,
        };
        let slot = source.slot;
        Some((source, rings.slots().get_mut(slot)?))
    }

    fn behind(&mut self, source: usize, position: impl Fn(&Source) -> Position) -> u64 {
        let Some((source, slot)) = self.slot(source) else { return 0 };
        slot.head(source.ring).saturating_sub(position(source))
    }
}

impl Rings for Files {
    type Position = Position;

    fn refresh(&mut self) {
        if self.refreshed.elapsed() >= REFRESH_EVERY {
            self.refresh_now();
        }
    }

    fn sources(&self) -> usize {
        self.sources.len()
    }

    fn origin(&mut self, source: usize) -> Origin {
        let Some((_, slot)) = self.slot(source) else { return Origin::default() };
        let pid = slot.seen().pid;
        Origin {
            worker: (slot.role() == Role::Worker).then_some(slot.number()),
            pid: (pid != 0).then_some(pid),
        }
    }

    fn look(&mut self, source: usize) {
        if let Some((source, slot)) = self.slot(source) {
            source.head = slot.head(source.ring);
        }
    }

    fn next_wall_ns(&mut self, source: usize) -> Option<u64> {
        let (source, slot) = self.slot(source)?;
        let read = source.read[Stage::Log.index()];
        let is_there = slot.copy(source.ring, read..source.head, &mut source.ahead);
        source.ahead_at = is_there.then_some(read);
        is_there.then(|| source.ahead.wall_ns())
    }

    fn read(&mut self, source: usize, most: usize, mut take: impl FnMut(Position, Record<'_>)) {
        let Some((source, slot)) = self.slot(source) else { return };
        let (mut has_good, mut unreadable) = (false, None);
        let read = &mut source.read[Stage::Log.index()];
        for _ in 0..most {
            let is_copied = source.ahead_at.take() == Some(*read);
            if !is_copied && !slot.copy(source.ring, *read..source.head, &mut source.ahead) {
                break;
            }
            let (position, entry) = source.ahead.decode();
            *read = position;
            match entry {
                Entry::Record(record) => {
                    has_good = true;
                    take(position, record);
                }
                Entry::Unkept(_) | Entry::Unknown => {}
                // Nothing stands behind it: it takes all up to the head.
                Entry::Damaged(kind) => unreadable = Some(kind),
            }
        }
        if has_good && source.is_bad {
            source.is_bad = false;
            slot.set_good(source.ring);
        }
        if let Some(kind) = unreadable {
            source.is_bad = true;
            source.untold += 1;
            slot.set_bad(source.ring, kind);
            self.damaged += 1;
        }
    }

    fn read_kept(&mut self, source: usize, most: usize, mut take: impl FnMut(Position, Kept<'_>)) {
        let Some((source, slot)) = self.slot(source) else { return };
        let mut left = most;
        let read = &mut source.read[Stage::Otlp.index()];
        *read = slot.read_kept(source.ring, *read, |position, entry| {
            match entry {
                Entry::Record(record) => take(position, Kept::Record(record)),
                Entry::Unkept(request) => take(position, Kept::Not(request)),
                // Counted where it is read for lines.
                Entry::Unknown | Entry::Damaged(_) => {}
            }
            on(&mut left)
        });
    }

    fn read_to(&mut self, source: usize, stage: Stage) -> Position {
        self.sources.get(source).map_or(0, |source| source.read[stage.index()])
    }

    fn skip_to(&mut self, source: usize, stage: Stage, position: Position) {
        if let Some(source) = self.sources.get_mut(source) {
            let read = &mut source.read[stage.index()];
            *read = position.max(*read);
        }
    }

    fn commit(&mut self, source: usize, stage: Stage, position: Position) {
        let Some((source, slot)) = self.slot(source) else { return };
        source.committed[stage.index()] = position;
        // Who commits without reading has nothing to read there any more.
        source.read[stage.index()] = source.read[stage.index()].max(position);
        slot.commit(source.ring, STAGES[stage.index()], position);
    }

    fn unread(&mut self, source: usize, stage: Stage) -> u64 {
        self.behind(source, |source| source.read[stage.index()])
    }

    fn uncommitted(&mut self, source: usize, stage: Stage) -> u64 {
        self.behind(source, |source| source.committed[stage.index()])
    }

    fn capacity(&mut self, source: usize) -> u64 {
        self.slot(source).map_or(0, |(source, slot)| slot.capacity(source.ring))
    }

    fn running(&mut self, sampled: bool) -> HashSet<SpanId> {
        let entries = self.rings.slots().iter_mut().flat_map(rings::Slot::in_flight);
        entries.filter(|entry| entry.sampled || !sampled).map(|entry| entry.span).collect()
    }

    fn samples(&mut self, profiles: &mut Profiles) {
        for slot in self.rings.slots() {
            samples::read(slot, profiles);
        }
    }
}

/// Says whether to read on, with so many entries left.
fn on(left: &mut usize) -> Reading {
    *left = left.saturating_sub(1);
    if *left == 0 { Reading::Stop } else { Reading::On }
}

impl Stage {
    fn index(self) -> usize {
        match self {
            Self::Log => 0,
            Self::Otlp => 1,
        }
    }
}

fn sources_of(
    slot: &rings::Slot,
    (leftover, number): (Option<usize>, usize),
    cursors: &LogCursors,
) -> [Source; RINGS] {
    [RingName::Owner, RingName::Shared].map(|ring| {
        let starts = STAGES.map(|stage| slot.start(ring, stage));
        cursors.add(slot.cursor(ring, STAGES[Stage::Log.index()]).ok());
        Source {
            leftover,
            slot: number,
            ring,
            read: starts,
            committed: starts,
            head: 0,
            ahead: RawEntry::default(),
            ahead_at: None,
            is_bad: slot.is_bad(ring),
            untold: 0,
            told: Reminder::default(),
        }
    })
}

/// The cursors of a file, in the order of [`Stage::index`].
const STAGES: [saola_observability::Stage; 2] =
    [saola_observability::Stage::Log, saola_observability::Stage::Otlp];
/// A slot has so many sources, one behind the other.
const RINGS: usize = 2;
/// A line is to come out within 100 ms, also the first one of a new slot.
const REFRESH_EVERY: Duration = Duration::from_millis(100);
/// After that the supervisor has deleted them.
const LEFTOVERS_STAY: Duration = Duration::from_mins(1);

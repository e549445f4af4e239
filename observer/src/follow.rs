//! `saola log`: what the rings still hold, and then what comes, for whoever asks and without any server noticing (O74, O76).

mod filter;
mod skipped;
mod tree;

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use saola_observability::closed::Role;
use saola_observability::reader::ReadError;
use saola_observability::record::Record;
use saola_observability::rings::{Position, Reading, Rings, Slot, in_use};
use saola_observability::{Entry, RingName, clock};

pub use filter::{Filter, FilterError};
use skipped::{Passed, Skipped};
use tree::Trees;

use crate::logfmt::{Encoder, Format, Origin};

/// What to show.
#[derive(Clone, Debug)]
pub struct Follow {
    /// The run directory of the server.
    pub run_dir: PathBuf,
    /// How lines look.
    pub encoder: Encoder,
    /// Which lines are wanted.
    pub filter: Filter,
    /// How many of the wanted lines that are there already; `None` is all.
    pub last: Option<usize>,
    /// How old they may be.
    pub since: Option<Duration>,
    /// Whether to go on with what comes.
    pub follows: bool,
    /// Whether traces are shown as trees, with their child spans.
    pub groups: bool,
}

/// A record, and who wrote it.
struct Read {
    origin: Origin,
    record: Record<'static>,
}

/// Shows what is asked for on `out` until that is closed, the server has ended, or all is shown.
///
/// # Errors
///
/// [`ReadError`] if no server runs there or its files may not be read.
pub fn follow(asked: &Follow, out: &mut (impl Write + AsFd)) -> Result<(), ReadError> {
    let mut guest = Guest::open(&asked.run_dir)?;
    let mut json = asked.encoder.clone();
    json.format = Format::Json;
    let mut shown = Shown { asked, json, trees: Trees::default(), text: Vec::new() };
    // Nobody has missed what was overwritten before there was anything to show.
    let mut skipped = Skipped::default();
    let oldest = asked.since.map_or(0, |since| {
        clock::wall_ns().saturating_sub(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    });
    let history = guest.read().0.into_iter().filter(|read| read.record.wall_ns() >= oldest);
    shown.history(history);
    loop {
        if !asked.follows {
            shown.trees.write(&asked.encoder, &mut shown.text, Instant::now(), true);
        }
        if !shown.flush(out) || !asked.follows {
            return Ok(());
        }
        let is_over = !guest.refresh();
        let (reads, passed) = guest.read();
        let is_idle = reads.is_empty();
        skipped.add(passed);
        shown.text.extend(skipped.note(Instant::now(), is_idle).unwrap_or_default().into_bytes());
        shown.trees.write(&asked.encoder, &mut shown.text, Instant::now(), is_over);
        for read in reads {
            shown.take(read);
        }
        if is_over && is_idle {
            shown.flush(out);
            return Ok(());
        }
        if is_idle && is_closed(out) {
            return Ok(());
        }
    }
}

/// Waits a moment; says whether nobody reads any more.
fn is_closed(out: &impl AsFd) -> bool {
    let mut out = [PollFd::new(out.as_fd(), PollFlags::empty())];
    let pause = PollTimeout::from(PAUSE_MS);
    // An interrupted wait is a short one.
    poll(&mut out, pause).is_ok_and(|count| count > 0)
}

/// Reads every ring and commits nothing.
struct Guest {
    run_dir: PathBuf,
    /// Oldest first. There are two while workers answer on whose files were given up because one of them was damaged.
    epochs: Vec<Epoch>,
}

/// The rings of an epoch, and how far each is read.
struct Epoch {
    rings: Rings,
    places: HashMap<(Role, u32, RingName), Position>,
    is_gone: bool,
}

impl Guest {
    fn open(run_dir: &Path) -> Result<Self, ReadError> {
        Ok(Self { run_dir: run_dir.to_owned(), epochs: vec![Epoch::open(run_dir)?] })
    }

    /// Finds the slots and the epoch that have come since; says whether anything more can come.
    fn refresh(&mut self) -> bool {
        for epoch in &mut self.epochs {
            epoch.is_gone = epoch.rings.refresh().is_err();
        }
        let newest = self.epochs.last().map(|epoch| epoch.rings.epoch());
        // One that is gone before it was opened had nothing to say.
        if in_use(&self.run_dir).is_some_and(|in_use| newest != Some(in_use))
            && let Ok(epoch) = Epoch::open(&self.run_dir)
        {
            self.epochs.push(epoch);
        }
        self.epochs.iter().any(|epoch| !epoch.is_gone)
    }

    /// What came since the last call, by its time, and what of it was too fast.
    fn read(&mut self) -> (Vec<Read>, Passed) {
        let (mut reads, mut passed) = (Vec::new(), Passed::default());
        self.epochs.retain_mut(|epoch| {
            let before = reads.len();
            epoch.read(&mut reads, &mut passed);
            // Files that are deleted are still mapped: they are read to their end.
            !epoch.is_gone || reads.len() > before
        });
        reads.sort_by_key(|read| read.record.wall_ns());
        passed.records = u64::try_from(reads.len()).unwrap_or(u64::MAX);
        (reads, passed)
    }
}

impl Epoch {
    fn open(run_dir: &Path) -> Result<Self, ReadError> {
        Ok(Self { rings: Rings::open_as_guest(run_dir)?, places: HashMap::new(), is_gone: false })
    }

    fn read(&mut self, reads: &mut Vec<Read>, passed: &mut Passed) {
        for slot in self.rings.slots() {
            for ring in [RingName::Owner, RingName::Shared] {
                let key = (slot.role(), slot.number(), ring);
                let from = *self.places.entry(key).or_insert_with(|| slot.oldest(ring));
                let (next, left_out) = read_ring(slot, ring, from, reads);
                self.places.insert(key, next);
                passed.left_out += left_out;
                passed.bytes += next.saturating_sub(from).saturating_sub(left_out);
            }
        }
    }
}

fn read_ring(
    slot: &mut Slot,
    ring: RingName,
    from: Position,
    reads: &mut Vec<Read>,
) -> (Position, u64) {
    let pid = slot.seen().pid;
    let worker = (slot.role() == Role::Worker).then_some(slot.number());
    let origin = Origin { worker, pid: (pid != 0).then_some(pid) };
    slot.read_as_guest(ring, from, |_, entry| {
        if let Entry::Record(record) = entry {
            reads.push(Read { origin, record: record.into_owned() });
        }
        Reading::On
    })
}

/// What is on its way to the terminal.
struct Shown<'a> {
    asked: &'a Follow,
    /// What filters are asked of.
    json: Encoder,
    trees: Trees,
    text: Vec<u8>,
}

impl Shown<'_> {
    /// The wanted ones of what is there already, and of these the last ones.
    fn history(&mut self, reads: impl Iterator<Item = Read>) {
        if self.asked.groups {
            reads.for_each(|read| self.take(read));
            return;
        }
        let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
        for read in reads {
            let Some(line) = self.wanted(&read) else { continue };
            kept.push_back(line);
            if self.asked.last.is_some_and(|last| kept.len() > last) {
                kept.pop_front();
            }
        }
        self.text.extend(kept.into_iter().flatten());
    }

    fn take(&mut self, read: Read) {
        let line = self.wanted(&read);
        if !self.asked.groups {
            self.text.extend(line.unwrap_or_default());
        } else if self.trees.take(read, line.is_some(), Instant::now()).is_some() {
            // It belongs to no trace: a line of its own.
            self.text.extend(line.unwrap_or_default());
        }
    }

    /// The line of a record, if it has one and that is wanted.
    fn wanted(&self, read: &Read) -> Option<Vec<u8>> {
        let facts = line(&self.json, read)?;
        let facts = serde_json::from_slice(&facts).ok()?;
        self.asked.filter.wants(&facts).then(|| line(&self.asked.encoder, read)).flatten()
    }

    /// Writes what is there; false when nobody reads any more.
    fn flush(&mut self, out: &mut impl Write) -> bool {
        let written = out.write_all(&self.text).and_then(|()| out.flush());
        self.text.clear();
        // A closed pipe is the end of the wish; so is a full disk.
        written.is_ok() || written.is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
    }
}

/// The line of a record; child spans have none.
fn line(encoder: &Encoder, read: &Read) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    match &read.record {
        Record::Request(request) => encoder.request(&mut line, read.origin, request),
        Record::Lost(lost) => encoder.lost(&mut line, lost),
        Record::Event(event) => encoder.event_record(&mut line, read.origin, event),
        Record::Panic(panic) => encoder.panic(&mut line, read.origin, panic),
        Record::Span(_) => return None,
    }
    Some(line)
}

const PAUSE_MS: u8 = 50;

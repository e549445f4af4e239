//! What the reader wants of the rings: those of a run directory, or pretended ones in tests.

use std::collections::HashSet;

use saola_observability::SpanId;
use saola_observability::record::Record;

use crate::logfmt::Origin;
use crate::profile::Profiles;

/// Who reads a ring; each has its own cursor in the file.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Stage {
    /// Lines. Its cursor moves when `write(2)` has returned.
    Log,
    /// Spans. Its cursor moves when the span is queued.
    Otlp,
}

/// The rings of all slots, two for each, as the reader needs them: a *source* is one ring.
pub(crate) trait Rings {
    /// A place in a ring.
    type Position: Copy + Ord + Send + 'static;

    /// Looks for slots that appeared or vanished.
    fn refresh(&mut self);

    /// How many sources there are; they keep their numbers.
    fn sources(&self) -> usize;

    /// Who writes there.
    fn origin(&mut self, source: usize) -> Origin;

    /// Looks how far the source is written: until the next look nothing behind that is read for lines.
    fn look(&mut self, source: usize);

    /// When the next entry to be read for lines was written down; 0 if it cannot be read, none if there is none.
    fn next_wall_ns(&mut self, source: usize) -> Option<u64>;

    /// Hands out at most `most` records that have not been read for lines, in order.
    fn read(&mut self, source: usize, most: usize, take: impl FnMut(Self::Position, Record<'_>));

    /// Hands out at most `most` records that have not been read for spans, in order.
    fn read_kept(&mut self, source: usize, most: usize, take: impl FnMut(Self::Position, Kept<'_>));

    /// Behind the last record that the stage has read.
    fn read_to(&mut self, source: usize, stage: Stage) -> Self::Position;

    /// Says that the stage has got everything up to here without reading it.
    fn skip_to(&mut self, source: usize, stage: Stage, position: Self::Position);

    /// Stores the stage's cursor: all before and at this record is done with.
    fn commit(&mut self, source: usize, stage: Stage, position: Self::Position);

    /// Bytes that the stage has not read yet.
    fn unread(&mut self, source: usize, stage: Stage) -> u64;

    /// Bytes that the stage has not committed yet.
    fn uncommitted(&mut self, source: usize, stage: Stage) -> u64;

    /// Bytes that the source holds.
    fn capacity(&mut self, source: usize) -> u64;

    /// The server spans of the requests being served now; of `sampled` ones only, or of all.
    fn running(&mut self, sampled: bool) -> HashSet<SpanId>;

    /// Hands the profile samples that are new to `profiles`.
    fn samples(&mut self, profiles: &mut Profiles);
}

/// What there is to read for spans.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on the reader's stack")]
pub(crate) enum Kept<'a> {
    /// A record.
    Record(Record<'a>),
    /// The end of a request whose trace is not kept, by its server span.
    Not(SpanId),
}

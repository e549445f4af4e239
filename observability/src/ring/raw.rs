//! An entry of a ring as a reader has copied it: its time is asked before it is decoded, so each record is fetched once.
#![expect(
    clippy::inline_always,
    reason = "a request is made where it is read: each call would move its 300 bytes"
)]

use super::{Entry, Wants};
use crate::record::Kind;
use crate::record::decode::{Header, decode, is_known, unkept, wall_ns};
use crate::record::encode::HEADER;

/// An entry of a ring, copied and not yet decoded. Used again and again, so that reading allocates nothing.
#[derive(Debug)]
pub struct RawEntry {
    /// With the header.
    pub(crate) bytes: Vec<u8>,
    /// Its header, or what cannot be read there.
    pub(super) found: Result<Header, Kind>,
    /// The position behind it: the head, if nothing can be read up to there.
    pub(super) end: u64,
    /// How far the ring was written.
    pub(super) head: u64,
}

impl Default for RawEntry {
    /// One that nothing was copied into: it reads as damaged.
    fn default() -> Self {
        Self { bytes: Vec::new(), found: Err(Kind::Event), end: 0, head: 0 }
    }
}

impl RawEntry {
    /// When it was written down: [`Record::wall_ns`](crate::Record::wall_ns), without decoding all of it. 0 if it is no record.
    pub fn wall_ns(&self) -> u64 {
        self.found.ok().and_then(|header| wall_ns(header.kind, self.payload())).unwrap_or(0)
    }

    /// The position behind it, and what it is.
    #[inline(always)]
    pub fn decode(&self) -> (u64, Entry<'_>) {
        self.decode_as(Wants::All)
    }

    /// As [`RawEntry::decode`], for who does not want all of it.
    #[inline(always)]
    pub(crate) fn decode_as(&self, wants: Wants) -> (u64, Entry<'_>) {
        let header = match self.found {
            Ok(header) => header,
            Err(kind) => return (self.end, Entry::Damaged(kind)),
        };
        if wants == Wants::Kept
            && let Some(span) = unkept(header.kind, self.payload())
        {
            return (self.end, Entry::Unkept(span));
        }
        match decode(header.kind, self.payload()) {
            Some(record) => (self.end, Entry::Record(record)),
            None if is_known(header.kind) => (self.head, Entry::Damaged(header.counted_as())),
            None => (self.end, Entry::Unknown),
        }
    }

    fn payload(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }
}

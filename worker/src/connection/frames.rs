//! What a client of HTTP/2 may send besides requests and bodies (W80). Only frame headers are read; hyper reads the rest.
//!
//! `h2` bounds resets, CONTINUATION and header lists, but answers or ignores any number of the other frames.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use tokio::time::Instant;

/// Counts the frames that come in on one connection.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes before the next frame header.
    skip: usize,
    header: [u8; HEADER],
    filled: usize,
    tokens: u64,
    since: Instant,
}

const HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const CONTINUATION: u8 = 9;

/// Frames that a client may send without a request.
const BURST: u64 = 1000;
/// How many of them are given back each second.
const PER_SECOND: u64 = 100;
/// What a request adds.
const PER_HEADERS: u64 = 20;
/// What each DATA frame that we send adds: the client answers with updates of its windows.
const PER_DATA: u64 = 4;
/// No more is ever kept.
const MOST: u64 = 20_000;
/// Bytes of a DATA frame, as large as any client must take.
const DATA_FRAME: u64 = 16_384;

impl Frames {
    /// Counts what comes behind a preface of so many bytes.
    pub(super) fn new(preface: usize, now: Instant) -> Self {
        Self { skip: preface, header: [0; HEADER], filled: 0, tokens: BURST, since: now }
    }

    /// Looks at the next bytes; `false` when there are too many frames in them.
    pub(super) fn take(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        self.refill(now);
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip = self.skip.saturating_sub(skipped);
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = HEADER.saturating_sub(self.filled).min(bytes.len());
            let (part, rest) = bytes.split_at(wanted);
            let end = self.filled.saturating_add(wanted);
            if let Some(place) = self.header.get_mut(self.filled..end) {
                place.copy_from_slice(part);
            }
            self.filled = end;
            bytes = rest;
            if self.filled == HEADER && !self.count() {
                return false;
            }
        }
        true
    }

    /// A whole frame header has come.
    fn count(&mut self) -> bool {
        let [high, middle, low, kind, ..] = self.header;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.filled = 0;
        self.skip = usize::try_from(length).unwrap_or(usize::MAX);
        match kind {
            HEADERS => self.earn(PER_HEADERS),
            // A request that was taken back has given nothing: else resets in step with us would be free.
            RESET => self.tokens = self.tokens.saturating_sub(PER_HEADERS),
            _ => {}
        }
        // These are what a connection is for; how many of them may come is hyper's and the body's matter.
        if matches!(kind, DATA | HEADERS | CONTINUATION) && length > 0 {
            return true;
        }
        let left = self.tokens.checked_sub(1);
        self.tokens = left.unwrap_or(0);
        left.is_some()
    }

    /// So many bytes of a response body have been handed over.
    pub(super) fn sends(&mut self, bytes: u64) {
        let frames = bytes.div_ceil(DATA_FRAME).max(1);
        self.earn(frames.saturating_mul(PER_DATA));
    }

    fn earn(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_add(tokens).min(MOST);
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        if seconds > 0 {
            self.since = now;
            let refilled = self.tokens.saturating_add(seconds.saturating_mul(PER_SECOND));
            self.tokens = refilled.min(BURST.max(self.tokens));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ping() -> Vec<u8> {
        vec![0, 0, 0, 6, 0, 0, 0, 0, 0]
    }

    #[test]
    fn pings_are_counted_wherever_the_reads_end() {
        let now = Instant::now();
        for size in [1, 2, 8, 9, 10, 17, 1000] {
            let mut frames = Frames::new(24, now);
            let bytes = [vec![0; 24], ping().repeat(1000)].concat();
            assert!(bytes.chunks(size).all(|part| frames.take(part, now)), "{size}");
            assert!(!frames.take(&ping(), now), "{size}");
        }
    }

    #[test]
    fn requests_and_time_give_room_and_bodies_take_none() {
        let now = Instant::now();
        let mut frames = Frames::new(0, now);
        assert!(frames.take(&[0, 0, 1, DATA, 0, 0, 0, 0, 1, b'x'].repeat(5000), now));
        assert!(frames.take(&ping().repeat(1000), now));
        assert!(frames.take(&[0, 0, 1, HEADERS, 4, 0, 0, 0, 1, 0x82], now));
        assert!(frames.take(&ping().repeat(20), now) && !frames.take(&ping(), now));
        let later = now + Duration::from_secs(2);
        assert!(frames.take(&ping().repeat(200), later) && !frames.take(&ping(), later));
        frames.sends(16_385);
        assert!(frames.take(&ping().repeat(8), later) && !frames.take(&ping(), later));
    }
}

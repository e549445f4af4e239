//! A request as the words of a ring: put together in a register and stored there, with no copy between.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::layout::long;
use crate::record::encode::{CUT, HEADER, REQUEST, header};
use crate::record::ended::{Ended, REQUEST_FIXED, Texts};

/// Bytes of the last word of the fixed part.
const REQUEST_BEGUN: usize = REQUEST_FIXED % 8;

/// Bytes of the record.
#[inline]
pub(crate) fn length(texts: &Texts<'_>) -> usize {
    (HEADER + REQUEST_FIXED + texts.length()).next_multiple_of(8)
}

/// Stores the record of [`length`] bytes that stands at a position.
#[inline]
pub(crate) fn store(request: &Ended<'_>, texts: &Texts<'_>, position: u64, places: &[AtomicU64]) {
    let flags = if texts.is_cut { CUT } else { 0 };
    let header = header(places.len() * 8, REQUEST, flags);
    let [whole @ .., last] = request.fixed();
    let Some(([first, second], places)) = places.split_first_chunk() else { return };
    let Some((fixed, places)) = places.split_first_chunk::<{ REQUEST_FIXED / 8 }>() else { return };
    first.store(header, Relaxed);
    second.store(position, Relaxed);
    for (place, word) in fixed.iter().zip(whole) {
        place.store(word, Relaxed);
    }
    let mut words = Words { places, word: last, bits: 8 * REQUEST_BEGUN };
    for text in &texts.texts {
        words.put_text(text);
    }
    if words.bits > 0 {
        words.store(words.word);
    }
}

/// Texts on their way into words.
struct Words<'m> {
    places: &'m [AtomicU64],
    /// What is not stored yet, as a little-endian number whose other bytes are zero.
    word: u64,
    /// Of it, and whole bytes: 0 to 56.
    bits: usize,
}

impl Words<'_> {
    /// Puts a text behind its length.
    #[inline]
    fn put_text(&mut self, text: &[u8]) {
        self.put_some(long(text.len()), 16); // none is longer than its bound
        if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
            // The word that was begun takes some of the first bytes; all words behind it are the text's as they stand there.
            self.store(self.word | u64::from_le_bytes(*first) << self.bits);
            let taken = (64 - self.bits) / 8;
            let (whole, rest) = text.get(taken..).unwrap_or_default().as_chunks();
            let (places, left) = self.places.split_at(whole.len().min(self.places.len()));
            for (place, bytes) in places.iter().zip(whole) {
                place.store(u64::from_ne_bytes(*bytes), Relaxed);
            }
            self.places = left;
            self.bits = 8 * rest.len();
            self.word = u64::from_le_bytes(*last) >> (56 - self.bits) >> 8;
        } else if !text.is_empty() {
            // In a register: of bytes put together in memory the processor would wait before it loads the word.
            let all = text.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            self.put_some(all, 8 * text.len());
        }
    }

    /// Puts less than 64 bits: the first ones of a little-endian number whose others are zero.
    #[inline]
    fn put_some(&mut self, some: u64, bits: usize) {
        let before = self.bits;
        self.word |= some << before;
        self.bits += bits;
        if self.bits >= 64 {
            self.store(self.word);
            self.word = some >> (56 - before) >> 8;
            self.bits -= 64;
        }
    }

    #[inline]
    fn store(&mut self, word: u64) {
        if let Some((place, left)) = self.places.split_first() {
            place.store(word, Relaxed);
            self.places = left;
        }
    }
}

//! A slot file in memory: 64-bit words behind atomics, never a plain reference to bytes that another process may write.
//!
//! Everything above this file is safe code: each access is checked against the length of the mapping.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};

use crate::bus::Watch;

/// A shared mapping of the first bytes of a file. If the file is truncated under it, it becomes private memory (F57).
pub(crate) struct Map {
    watch: Watch, // dropped before the mapping that it watches
    raw: MmapRaw,
}

impl Map {
    /// Maps the first `length` bytes for reading and writing.
    pub(crate) fn writable(file: &File, length: usize) -> io::Result<Self> {
        Ok(Self::watched(MmapOptions::new().len(length).map_raw(file)?))
    }

    /// Maps the first `length` bytes for reading. A store through it would be SIGSEGV: readers only load.
    pub(crate) fn read_only(file: &File, length: usize) -> io::Result<Self> {
        Ok(Self::watched(MmapOptions::new().len(length).map_raw_read_only(file)?))
    }

    fn watched(raw: MmapRaw) -> Self {
        Self { watch: Watch::new(raw.as_ptr(), raw.len()), raw }
    }

    /// Says whether the file was cut under the mapping: what is read since is not its contents.
    pub(crate) fn is_lost(&self) -> bool {
        self.watch.is_lost()
    }

    /// Leaves this mapping out of children, so that no child can touch another slot (F14).
    pub(crate) fn keep_from_children(&self) -> io::Result<()> {
        self.raw.advise(memmap2::Advice::DontFork)
    }

    /// The address of its first byte.
    pub(crate) fn start(&self) -> usize {
        self.raw.as_ptr().addr()
    }

    pub(crate) fn length(&self) -> usize {
        self.raw.len()
    }

    /// The `count` words at byte `offset`.
    ///
    /// # Panics
    ///
    /// If they are not aligned or not inside the mapping: offsets that come from a file are checked before.
    pub(crate) fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        let end = count.checked_mul(8).and_then(|bytes| bytes.checked_add(offset));
        assert!(offset.is_multiple_of(8) && end.is_some_and(|end| end <= self.raw.len()));
        #[expect(unsafe_code, reason = "the one place where mapped memory becomes words")]
        // SAFETY: `from_raw_parts` asks for memory that is aligned, initialised, inside one allocation and, while the
        // slice lives, changed only through it. The mapping is page-aligned and `offset` is a multiple of 8; the
        // assertion keeps the range inside; any bit pattern is a u64; the mapping lives as long as `self`; and
        // AtomicU64 allows changes from elsewhere, also by another process. A read-only mapping is only loaded from.
        unsafe {
            std::slice::from_raw_parts(self.raw.as_ptr().wrapping_add(offset).cast(), count)
        }
    }

    /// The word at byte `offset`; panics as [`Self::words`].
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        &self.words(offset, 1)[0]
    }

    /// The low half of the word at byte `offset`, for the futex of the bell; panics as [`Self::words`].
    pub(crate) fn half(&self, offset: usize) -> &AtomicU32 {
        let word: *const AtomicU64 = self.word(offset);
        #[expect(unsafe_code, reason = "a futex is 32 bits wide")]
        // SAFETY: the pointer is that of a live word of the mapping, which is aligned for half of it and lives as long
        // as `self`. No code accesses this word with 64 bits, so accesses of two widths never meet.
        unsafe {
            &*word.cast::<AtomicU32>()
        }
    }

    pub(crate) fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Relaxed)
    }

    pub(crate) fn store(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Relaxed);
    }

    /// The byte offset of one of its words.
    pub(crate) fn offset_of(&self, word: &AtomicU64) -> usize {
        std::ptr::from_ref(word).addr().wrapping_sub(self.start())
    }

    /// Fetches the cache lines of some words, for whoever is going to store there: lines that another processor has read since
    /// take long to come back, and a store that waits for one holds up those behind it. Changes nothing.
    pub(crate) fn fetch_to_write(&self, offset: usize, words: usize) {
        let lines = self.words(offset, words).as_chunks::<LINE_WORDS>().0;
        #[cfg(not(target_arch = "x86_64"))]
        let _: &[[AtomicU64; LINE_WORDS]] = lines;
        #[cfg(target_arch = "x86_64")]
        for line in lines {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            #[expect(unsafe_code, reason = "the standard library has no safe function for it")]
            // SAFETY: a hint, which reads and writes nothing and is allowed for any address; processors that do not know it
            // do nothing (Intel SDM, PREFETCHW).
            unsafe {
                _mm_prefetch::<_MM_HINT_ET0>(std::ptr::from_ref(line).cast());
            }
        }
    }

    /// Copies bytes in at an aligned offset; the last word is filled up with zeros.
    pub(crate) fn copy_in(&self, offset: usize, bytes: &[u8]) {
        copy_into(self.words(offset, bytes.len().div_ceil(8)), bytes);
    }

    /// Makes `bytes` the `length` bytes from an aligned offset on.
    pub(crate) fn copy_out(&self, offset: usize, length: usize, bytes: &mut Vec<u8>) {
        bytes.resize(length.next_multiple_of(8), 0);
        let words = self.words(offset, length.div_ceil(8));
        for (word, copy) in words.iter().zip(bytes.as_chunks_mut().0) {
            *copy = word.load(Relaxed).to_ne_bytes();
        }
        bytes.truncate(length);
    }
}

/// Words of a cache line.
const LINE_WORDS: usize = 8;

/// Copies bytes into words as far as these go; the last word is filled up with zeros.
pub(crate) fn copy_into(words: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<8>();
    // The compiler does not unroll a loop over atomic stores by itself.
    let copied = words.len().min(whole.len());
    let (words_by_four, last_words) = words[..copied].as_chunks::<4>();
    let (by_four, last) = whole[..copied].as_chunks::<4>();
    for ([a, b, c, d], [e, f, g, h]) in words_by_four.iter().zip(by_four) {
        a.store(u64::from_ne_bytes(*e), Relaxed);
        b.store(u64::from_ne_bytes(*f), Relaxed);
        c.store(u64::from_ne_bytes(*g), Relaxed);
        d.store(u64::from_ne_bytes(*h), Relaxed);
    }
    for (word, chunk) in last_words.iter().zip(last) {
        word.store(u64::from_ne_bytes(*chunk), Relaxed);
    }
    if !rest.is_empty()
        && let Some(word) = words.get(whole.len())
    {
        // Put together in a register: of one in memory the processor would wait for its bytes before it loads it.
        let last = match bytes.last_chunk() {
            Some(last) => u64::from_le_bytes(*last) >> (64 - 8 * rest.len()),
            None => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        word.store(last.to_le(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_copied_into_words_as_they_stand_and_filled_up_with_zeros() {
        let bytes: Vec<u8> = (1..=75).collect();
        for length in 0..=bytes.len() {
            let words: Vec<AtomicU64> = (0..10).map(|_| AtomicU64::new(u64::MAX)).collect();
            copy_into(&words, &bytes[..length]);
            let read: Vec<u8> =
                words.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
            let (copied, rest) = read.split_at(length.next_multiple_of(8));
            assert_eq!(copied[..length], bytes[..length]);
            assert!(copied[length..].iter().all(|byte| *byte == 0), "{length}: {copied:?}");
            assert!(rest.iter().all(|byte| *byte == 0xff), "{length}: {rest:?}");
        }
        // What finds no word is left out.
        let word = [AtomicU64::new(0)];
        copy_into(&word, &bytes);
        assert_eq!(word[0].load(Relaxed).to_ne_bytes(), bytes[..8]);
    }
}

//! Some parts of a slot file, as far as a model needs them.

use std::sync::atomic::Ordering::Relaxed;

use crate::sync::{AtomicU32, AtomicU64};

/// Words at some offsets of a file, and the one half word of the bell.
pub(crate) struct Map {
    parts: Vec<(usize, Vec<AtomicU64>)>,
    bell: AtomicU32,
}

impl Map {
    /// Zeros: so many words at each of the offsets.
    pub(crate) fn of(parts: &[(usize, usize)]) -> Self {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        let parts = parts.iter().map(|(offset, words)| (*offset, zeros(*words))).collect();
        Self { parts, bell: AtomicU32::new(0) }
    }

    /// For the tests beside the sources, which are compiled with them and not run here.
    pub(crate) fn writable(_: &std::fs::File, _: usize) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        let found = self.parts.iter().find_map(|(start, words)| {
            let first = offset.checked_sub(*start)? / 8;
            words.get(first..first + count)
        });
        found.unwrap_or_else(|| panic!("the model has no {count} words at {offset:#x}"))
    }

    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        &self.words(offset, 1)[0]
    }

    pub(crate) fn half(&self, _: usize) -> &AtomicU32 {
        &self.bell
    }

    pub(crate) fn length(&self) -> usize {
        self.parts.iter().map(|(start, words)| start + words.len() * 8).max().unwrap_or(0)
    }

    pub(crate) fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Relaxed)
    }

    pub(crate) fn store(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Relaxed);
    }

    pub(crate) fn offset_of(&self, word: &AtomicU64) -> usize {
        let offset = |(start, words): &(usize, Vec<AtomicU64>)| {
            let at = words.iter().position(|other| std::ptr::eq(other, word))?;
            Some(start + at * 8)
        };
        self.parts.iter().find_map(offset).unwrap()
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as the real one")]
    pub(crate) fn keep_from_children(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// A hint, which no model sees.
    pub(crate) fn fetch_to_write(&self, offset: usize, words: usize) {
        self.words(offset, words);
    }

    pub(crate) fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let words = self.words(offset, bytes.len() / 8);
        for (word, chunk) in words.iter().zip(bytes.as_chunks().0) {
            word.store(u64::from_ne_bytes(*chunk), Relaxed);
        }
    }

    pub(crate) fn copy_out(&self, offset: usize, length: usize, bytes: &mut Vec<u8>) {
        bytes.clear();
        for word in self.words(offset, length / 8) {
            bytes.extend_from_slice(&word.load(Relaxed).to_ne_bytes());
        }
    }
}

//! Asking a worker for a profile of its heap: a word in its slot, and a file beside it.

use std::path::{Path, PathBuf};

use super::Slot;
use crate::epoch_files::{CURRENT, HEAP};
use crate::layout::HEAP_QUESTION_AT;

/// Where the owner of a worker's slot puts a profile of its heap: with the slot files, which are removed with all that
/// stands beside them.
pub fn heap_file(run_dir: &Path, slot: u32) -> PathBuf {
    run_dir.join(CURRENT).join(format!("{HEAP}{slot:04}"))
}

impl Slot {
    /// Asks the owner for a profile of its heap, at [`heap_file`]; 0 asks for none any more. Not for guests.
    pub fn ask_heap(&self, question: u64) {
        self.view.map.store(HEAP_QUESTION_AT, question);
    }
}

//! The one thread that owns a slot: how it comes to it, and what is its alone.

use std::cell::Cell;
use std::fs::File;

use crate::in_flight::InFlight;
use crate::slot::{Slot, SlotError, SlotFiles, memory};

thread_local! {
    /// The owner's private state, on the one thread that may use plain stores.
    static OWNED: Cell<Option<&'static InFlight>> = const { Cell::new(None) };
}

impl Slot {
    /// Takes the slot over for this process: locks it, finishes what a dead owner had begun, and from now on every metric
    /// of this process counts there. The calling thread becomes the owner, the one that serves.
    ///
    /// A child calls this before any code that counts.
    ///
    /// # Errors
    ///
    /// [`SlotError::Locked`] if another process holds the slot, [`SlotError::Bad`] if the file is damaged,
    /// [`SlotError::System`] if it cannot be mapped.
    pub fn attach(files: SlotFiles) -> Result<&'static Self, SlotError> {
        let slot = Self::own(files.file, Some(&files.bell))?;
        crate::metrics::bind(slot);
        Ok(slot)
    }

    /// A slot in private memory, for tests and tools: the same layout, no file that others could read. The calling thread is
    /// its owner. The metrics of the process do not go there.
    ///
    /// # Panics
    ///
    /// If the system has no memory for it.
    #[expect(clippy::expect_used, reason = "a tool or a test can do nothing without it")]
    pub fn in_memory() -> &'static Self {
        memory()
            .and_then(|file| Self::own(file, None))
            .expect("64 MiB of address space and 2 MiB of memory are there")
    }

    fn own(file: File, bell: Option<&File>) -> Result<&'static Self, SlotError> {
        let slot = Self::open(file, bell)?;
        OWNED.set(Some(InFlight::new(slot)));
        Ok(slot)
    }

    /// The table of running requests.
    ///
    /// # Panics
    ///
    /// On any thread but the one that attached: the table has one writer.
    #[expect(clippy::panic, reason = "a second writer would break the exactness of every count")]
    pub fn in_flight(&'static self) -> &'static InFlight {
        match self.owned() {
            Some(in_flight) => in_flight,
            None => {
                panic!("requests begin and end on the thread that attached slot {}", self.number())
            }
        }
    }

    pub(crate) fn owned(&self) -> Option<&'static InFlight> {
        OWNED.get().filter(|in_flight| std::ptr::eq(in_flight.slot(), self))
    }
}

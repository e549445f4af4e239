//! Profiles of the heap, for whoever asks the observer. Only jemalloc takes any: a build with the feature of that name has it
//! in the place of the system's allocator.

use std::io;
use std::path::{Path, PathBuf};

use saola_observability::Slot;
use saola_observability::closed::Level;

use crate::worker::event;

/// Why a program cannot say what its heap holds.
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
pub enum NoHeapProfiles {
    /// Its allocator does not know.
    #[error("heap profiles need another allocator: build the program with the feature jemalloc")]
    NotBuilt,
    /// Its allocator was not told at the start of the program to remember who asked for memory.
    #[error(
        "heap profiles are off: start the server with _RJEM_MALLOC_CONF=prof:true in its environment"
    )]
    Off,
}

/// The questions of one life that were heard.
pub(crate) struct Questions {
    slot: &'static Slot,
    file: Option<PathBuf>,
    heard: u64,
}

impl Questions {
    pub(crate) fn new(slot: &'static Slot, file: Option<PathBuf>) -> Self {
        Self { slot, file, heard: 0 }
    }

    /// Answers a question that has come, off the event loop.
    pub(crate) fn look(&mut self) {
        let (question, slot) = (self.slot.heap_question(), self.slot);
        if question == self.heard {
            return;
        }
        self.heard = question;
        if question == 0 {
            return;
        }
        let Some(file) = self.file.clone() else { return };
        tokio::task::spawn_blocking(move || {
            if let Err(error) = write(&file) {
                let fields = [("error", &*error.to_string())];
                event(slot, Level::Error, "cannot write a profile of the heap", None, &fields);
            }
        });
    }
}

/// Under another name first: who finds the file finds it whole.
fn write(file: &Path) -> io::Result<()> {
    let part = file.with_added_extension("part");
    jemalloc::dump(&part)?;
    std::fs::rename(part, file)
}

/// Says whether the allocator of this program writes profiles.
///
/// # Errors
///
/// [`NoHeapProfiles`] says why it does not, and what to do about that.
pub fn heap_profiles() -> Result<(), NoHeapProfiles> {
    jemalloc::profiles()
}

#[cfg(feature = "jemalloc")]
mod jemalloc {
    use std::ffi::CString;
    use std::io;
    use std::path::Path;
    use std::ptr::null_mut;

    use tikv_jemalloc_sys::mallctl;

    use super::NoHeapProfiles;

    #[global_allocator]
    static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

    #[expect(
        unsafe_code,
        reason = "a call of C, for which there is no wrapper worth its dependencies"
    )]
    pub(super) fn profiles() -> Result<(), NoHeapProfiles> {
        let (mut is_on, mut length) = (false, size_of::<bool>());
        let place = (&raw mut is_on).cast();
        // SAFETY: mallctl(3) writes at most `length` bytes of an option to the place it is given, and what it has written
        // into `length`. Both live through the call; `opt.prof` is a bool.
        let error = unsafe { mallctl(c"opt.prof".as_ptr(), place, &raw mut length, null_mut(), 0) };
        if error == 0 && is_on { Ok(()) } else { Err(NoHeapProfiles::Off) }
    }

    /// Has the allocator write what it holds, and for whom.
    #[expect(unsafe_code, reason = "as above")]
    pub(super) fn dump(file: &Path) -> io::Result<()> {
        let file = CString::new(file.as_os_str().as_encoded_bytes())?;
        let mut path = file.as_ptr();
        let (place, length) = ((&raw mut path).cast(), size_of_val(&path));
        // SAFETY: mallctl(3) reads `length` bytes of the new value; that of `prof.dump` is a `const char *`, a path that ends
        // with a zero. Pointer and path live through the call, and it keeps neither.
        let error =
            unsafe { mallctl(c"prof.dump".as_ptr(), null_mut(), null_mut(), place, length) };
        if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
    }
}

#[cfg(not(feature = "jemalloc"))]
mod jemalloc {
    use std::io;
    use std::path::Path;

    use super::NoHeapProfiles;

    pub(super) fn profiles() -> Result<(), NoHeapProfiles> {
        Err(NoHeapProfiles::NotBuilt)
    }

    pub(super) fn dump(_file: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

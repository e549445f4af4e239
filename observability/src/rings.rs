//! All rings of a run directory, as the observer reads them: with cursors that outlive it.

mod guest;
mod heap;
mod slot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::guest::in_use;
pub use self::heap::heap_file;
pub use self::slot::{Cursor, Position, Reading, Slot};
use crate::barrier::Barrier;
use crate::bell::Bell;
use crate::closed::Role;
use crate::epoch_files::{BadSlot, ReadError, current, epochs, open_new};
pub use crate::ring::RawEntry;
use crate::view::{View, file_name};

/// The rings of one epoch.
///
/// ```no_run
/// use saola_observability::rings::{Reading, Rings};
/// use saola_observability::{Entry, Record, RingName, Stage};
///
/// let mut rings = Rings::open("/dev/shm/saola-0/shop-127.0.0.1_8000".as_ref())?;
/// for slot in rings.slots() {
///     let start = slot.start(RingName::Owner, Stage::Log);
///     let stop = slot.read(RingName::Owner, start, |_, entry| {
///         if let Entry::Record(Record::Request(request)) = entry {
///             println!("{} {}", request.route, request.path);
///         }
///         Reading::On
///     });
///     slot.commit(RingName::Owner, Stage::Log, stop); // only when what was read has had its effect
/// }
/// # Ok::<(), saola_observability::reader::ReadError>(())
/// ```
///
/// A cursor stands in the file: who reads after a death of the reader goes on where it was committed last, so a record may be
/// read twice and none is left out. Reading stops no writer, and damaged bytes are skipped and counted.
pub struct Rings {
    directory: PathBuf,
    epoch: u64,
    slots: Vec<Slot>,
    bell: Option<Arc<Bell>>,
    is_guest: bool,
}

impl Rings {
    /// Opens the rings of the epoch in use.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if no server runs there or its files may not be read.
    pub fn open(run_dir: &Path) -> Result<Self, ReadError> {
        let (directory, epoch) = current(run_dir)?;
        let mut rings = Self { directory, epoch, slots: Vec::new(), bell: None, is_guest: false };
        rings.refresh()?;
        Ok(rings)
    }

    /// Opens the rings of the epoch in use to look at only: nothing can be committed, and the files are mapped read-only.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if no server runs there or its files may not be read.
    pub fn open_as_guest(run_dir: &Path) -> Result<Self, ReadError> {
        let (directory, epoch) = current(run_dir)?;
        let mut rings = Self { directory, epoch, slots: Vec::new(), bell: None, is_guest: true };
        rings.refresh()?;
        Ok(rings)
    }

    /// Opens the rings of a named epoch: one of [`leftovers`], to be read to the end.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if it is gone or its files may not be read.
    pub fn open_epoch(run_dir: &Path, epoch: u64) -> Result<Self, ReadError> {
        let directory = run_dir.join(format!("epoch-{epoch:06}"));
        let mut rings = Self { directory, epoch, slots: Vec::new(), bell: None, is_guest: false };
        rings.refresh()?;
        Ok(rings)
    }

    /// Opens slots that have come since. Call it when workers may have been added: once a second is soon enough.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the directory is gone.
    pub fn refresh(&mut self) -> Result<Vec<BadSlot>, ReadError> {
        let is_open = |role, number| {
            self.slots.iter().any(|slot| (slot.role(), slot.number()) == (role, number))
        };
        let (views, bad) = open_new(&self.directory, self.epoch, !self.is_guest, is_open)?;
        self.slots.extend(views.into_iter().map(Slot::new));
        if self.bell.is_none() && !self.is_guest {
            let path = self.directory.join(file_name(Role::Supervisor, 0));
            let supervisor = View::open(&path, self.epoch, Role::Supervisor, 0, true);
            self.bell =
                supervisor.ok().map(|view| Arc::new(Bell::new(view.map, Barrier::of_reader())));
        }
        Ok(bad)
    }

    /// The slots, to look at.
    pub fn all(&self) -> &[Slot] {
        &self.slots
    }

    /// The slots, to read from: supervisor and observer first.
    pub fn slots(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    /// Asks the workers to ring when they have finished a request. Whoever asks looks at all rings once more, and then waits
    /// with the alarm. `None` while the file of the supervisor is not open, and if the kernel refuses what makes sure that the
    /// workers see it: there is nothing to wait with.
    pub fn alarm(&self) -> Option<Alarm> {
        let alarm = Alarm(Arc::clone(self.bell.as_ref()?));
        alarm.0.set().then_some(alarm)
    }

    /// Number of the epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// A sleep that workers end; dropped, nobody rings any more. Made by [`Rings::alarm`].
///
/// One request of a server that has been idle costs a worker one `futex(2)`; while nobody sleeps it costs a look at a word.
pub struct Alarm(Arc<Bell>);

impl Alarm {
    /// Returns when a worker has rung since the alarm was made, or after `timeout`; says whether one has.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.0.wait(timeout)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl std::fmt::Debug for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alarm").finish_non_exhaustive()
    }
}

/// The epochs that a dead supervisor left in a run directory, oldest first, without one that its own observer still reads.
///
/// Read each to its end and commit: the supervisor then deletes it. That happens within a minute in any case, and
/// [`Rings::refresh`] fails from then on.
pub fn leftovers(run_dir: &Path) -> Vec<u64> {
    let Ok((_, in_use)) = current(run_dir) else { return Vec::new() };
    let is_observed = |directory: &Path| {
        let path = directory.join(file_name(Role::Observer, 0));
        std::fs::File::open(path).is_ok_and(|file| crate::lock::is_held(&file))
    };
    let others = epochs(run_dir).into_iter().filter(|(epoch, _)| *epoch < in_use);
    others.filter(|(_, path)| !is_observed(path)).map(|(epoch, _)| epoch).collect()
}

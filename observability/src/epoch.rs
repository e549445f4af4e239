//! The supervisor's side: makes the slot files of an epoch, gives them to children, and reports what died with them.

mod adoption;
mod burial;
mod leftovers;

use std::fs::{self, File};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fchmodat, fstatat, mkdirat};
use nix::unistd::UnlinkatFlags;

use crate::bell::Bell;
use crate::clock::{monotonic_ns, wall_ns};
use crate::closed::{Role, SlotState};
use crate::epoch::burial::set_state;
pub use crate::epoch::burial::{Buried, Death};
pub use crate::epoch::leftovers::Finished;
use crate::epoch_files::{CURRENT, number, remove_epoch};
use crate::header::{self, Identity};
use crate::in_flight::entry::InFlightEntry;
use crate::layout::{
    FILE_BYTES, GENERATION_AT, IMAGE_AT, LOOP_LAG_MAX_AT, SLOTS_AT, STARTED_BEFORE_AT, Shape, long,
};
use crate::run_dir::RunDir;
use crate::slot::{Slot, SlotError, SlotFiles, reopen};
use crate::view::{Seen, View, file_name};

/// One set of slot files that counts from zero together.
///
/// The supervisor makes it, a worker takes a slot of it over, and anybody of the same user reads it, while the worker lives
/// and after its death:
///
/// ```
/// use saola_observability::metrics::Counter;
/// use saola_observability::reader::Reader;
/// use saola_observability::{Choice, Death, Epoch, LostReason, RunDir, Shape, Slot, SlotState};
///
/// static ORDERS: Counter = Counter::new("shop_orders_total", "Orders taken.");
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("run");
/// let choice = Choice { given: Some(path.clone()), slots_at_peak: 2, ..Choice::default() };
/// let mut run_dir = RunDir::choose(&choice)?.dir;
/// run_dir.lock("1.2.3")?;
/// let mut epoch = Epoch::create(&run_dir, Shape::default())?;
/// epoch.publish()?;
/// let files = epoch.open_worker(0, 1)?; // of slot 0 and generation 1; now the supervisor forks
///
/// let slot = Slot::attach(files)?; // in the worker, before any other code
/// slot.set_state(SlotState::Ready);
/// ORDERS.inc();
///
/// let mut reader = Reader::open(&path)?;
/// let orders = reader.read()?.list().iter().find(|family| family.name == "shop_orders_total");
/// assert_eq!(orders.map(|family| family.series[0].value.as_f64()), Some(1.0));
///
/// let death = Death { pid: 4711, signal: Some(9), exit_code: None, reason: LostReason::Crash };
/// let buried = epoch.bury(0, &death); // after waitpid, before the slot is given out again
/// assert_eq!(buried.count(), 0); // no request died with it
/// epoch.remove();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Epoch {
    path: PathBuf,
    directory: std::os::fd::OwnedFd,
    run_dir: PathBuf,
    number: u64,
    created_ns: u64,
    /// When this process began to use it, monotonic.
    begun_ns: u64,
    image: u64,
    shape: Shape,
    supervisor: &'static Slot,
    /// The file of `supervisor` as others find it.
    supervisor_file: View,
    observer: View,
    workers: Vec<Option<View>>,
}

impl Epoch {
    /// Makes the next epoch in a locked run directory: its directory, the supervisor's and the observer's file. The calling
    /// process takes the supervisor's file over: its metrics count there from now on.
    ///
    /// # Errors
    ///
    /// [`SlotError::System`] says what could not be made.
    pub fn create(run_dir: &RunDir, shape: Shape) -> Result<Self, SlotError> {
        let number = next_number(run_dir);
        let name = format!("epoch-{number:06}");
        let failed = |errno: Errno| {
            SlotError::system(format!("make {name} in {}", run_dir.path().display()), errno)
        };
        mkdirat(run_dir.descriptor(), name.as_str(), Mode::S_IRWXU).map_err(failed)?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory =
            openat(run_dir.descriptor(), name.as_str(), flags, Mode::empty()).map_err(failed)?;
        fchmod(&directory, Mode::S_IRWXU).map_err(failed)?; // the umask may have taken more bits than it should
        let created_ns = wall_ns();
        let identity = |role| Identity { epoch: number, created_ns, number: 0, role };
        let supervisor = make(&directory, identity(Role::Supervisor), shape)?;
        let observer = make(&directory, identity(Role::Observer), shape)?;
        let supervisor_file = view(reopen(&directory, "supervisor")?, identity(Role::Supervisor))?;
        let bell = reopen(&directory, "supervisor")?;
        let supervisor = Slot::attach(SlotFiles { file: supervisor, bell })?;
        keep_slot_from_children(supervisor)?;
        supervisor.set_state(SlotState::Ready);
        let observer = view(observer, identity(Role::Observer))?;
        Ok(Self {
            path: run_dir.path().join(&name),
            directory,
            run_dir: run_dir.path().to_owned(),
            number,
            created_ns,
            begun_ns: monotonic_ns(),
            image: random(),
            shape,
            supervisor,
            supervisor_file,
            observer,
            workers: Vec::new(),
        })
    }

    /// Makes this the epoch that readers find, in one step.
    ///
    /// # Errors
    ///
    /// [`SlotError::System`] if the link cannot be made.
    pub fn publish(&self) -> Result<(), SlotError> {
        let (link, new) = (self.run_dir.join(CURRENT), self.run_dir.join("current.new"));
        let _ = fs::remove_file(&new); // left by one who was killed here
        let target = format!("epoch-{:06}", self.number);
        std::os::unix::fs::symlink(target, &new).and_then(|()| fs::rename(&new, &link)).map_err(
            |error| SlotError::system(format!("point {} at the new epoch", link.display()), error),
        )
    }

    /// Removes the epoch and its link, at an orderly end. The lock of the run directory is released by its owner, last.
    pub fn remove(self) {
        // What stays is removed by the next start.
        let _ = fs::remove_file(self.run_dir.join(CURRENT));
        remove_epoch(&self.path);
    }

    /// Its number: one more than that of any epoch before it in the run directory.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The slot of the supervisor: its lines and metrics.
    pub fn supervisor(&self) -> &'static Slot {
        self.supervisor
    }

    /// Fresh descriptions for an observer that is about to be forked.
    ///
    /// # Errors
    ///
    /// [`SlotError::System`] if they cannot be opened.
    pub fn open_observer(&self) -> Result<SlotFiles, SlotError> {
        self.observer.map.store(IMAGE_AT, self.image);
        self.files("observer")
    }

    /// Fresh descriptions for a worker that is about to be forked into a slot, which is made at its first use. The slot is
    /// `starting` from now on; if the fork fails, bury it.
    ///
    /// # Errors
    ///
    /// [`SlotError::System`] if there is no space for a new slot or it cannot be opened.
    pub fn open_worker(&mut self, slot: u32, generation: u64) -> Result<SlotFiles, SlotError> {
        let at = crate::layout::wide(slot);
        if self.workers.len() <= at {
            self.workers.resize_with(at + 1, || None);
        }
        if self.workers[at].is_none() {
            let created_ns = self.created_ns;
            let identity =
                Identity { epoch: self.number, created_ns, number: slot, role: Role::Worker };
            let file = make(&self.directory, identity, self.shape)?;
            self.workers[at] = Some(view(file, identity)?);
            // Readers that see the number must find the file: it is complete.
            let made = long(self.workers.iter().flatten().count());
            self.supervisor.map.word(SLOTS_AT).store(made, std::sync::atomic::Ordering::Release);
        }
        if let Some(view) = &mut self.workers[at] {
            // Its burial says how many requests it has served. A damaged key region only takes that away.
            let _ = view.new_keys(|_, _| ());
            view.map.store(STARTED_BEFORE_AT, view.started());
            view.map.store(GENERATION_AT, generation);
            view.map.store(IMAGE_AT, self.image);
            set_state(view, SlotState::Starting);
        }
        self.files(&file_name(Role::Worker, slot))
    }

    /// What a worker's header says; `None` if the slot was never used.
    pub fn seen(&self, slot: u32) -> Option<Seen> {
        self.worker(slot).map(View::seen)
    }

    /// What the observer's header says.
    pub fn observer_seen(&self) -> Seen {
        self.observer.seen()
    }

    /// Marks that the greatest loop lag was looked at.
    pub fn forget_loop_lag(&self, slot: u32) {
        if let Some(view) = self.worker(slot) {
            view.map.store(LOOP_LAG_MAX_AT, 0);
        }
    }

    /// The requests that a worker is serving now, oldest first.
    pub fn in_flight(&mut self, slot: u32) -> Vec<InFlightEntry> {
        let view = self.workers.get_mut(crate::layout::wide(slot)).and_then(Option::as_mut);
        view.map(View::in_flight).unwrap_or_default()
    }

    /// After `waitpid`, and before the slot is given out again (F43): finishes what the dead worker had committed, records
    /// and counts each of its running requests as lost, and frees the slot. For a fork that failed it only frees.
    pub fn bury(&mut self, slot: u32, death: &Death) -> Buried {
        let supervisor = self.supervisor;
        let Some(view) = self.workers.get_mut(crate::layout::wide(slot)).and_then(Option::as_mut)
        else {
            return Buried::default();
        };
        burial::bury(supervisor, slot, view, death)
    }

    /// Looks at every file, as the supervisor does once a second, also of slots that nobody owns now: one that another process
    /// cut, deleted, replaced or overwrote, by its role and, of a worker, its slot.
    pub fn damaged(&self) -> Option<(Role, u32)> {
        let own = [&self.supervisor_file, &self.observer];
        let mut views = own.into_iter().chain(self.workers.iter().flatten());
        let damaged = views.find(|view| view.check().is_err() || !self.is_in_place(view))?;
        Some((damaged.role, damaged.number))
    }

    /// Whether a file still has its name, and no other file has it.
    fn is_in_place(&self, view: &View) -> bool {
        let name = file_name(view.role, view.number);
        let named = fstatat(&self.directory, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        let open = nix::sys::stat::fstat(&view.file);
        matches!((named, open), (Ok(named), Ok(open))
            if (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino))
    }

    fn worker(&self, slot: u32) -> Option<&View> {
        self.workers.get(crate::layout::wide(slot))?.as_ref()
    }

    fn files(&self, name: &str) -> Result<SlotFiles, SlotError> {
        Ok(SlotFiles {
            file: reopen(&self.directory, name)?,
            bell: reopen(&self.directory, "supervisor")?,
        })
    }
}

fn make(
    directory: &std::os::fd::OwnedFd,
    identity: Identity,
    shape: Shape,
) -> Result<File, SlotError> {
    let name = file_name(identity.role, identity.number);
    let attempt = format!("make the slot file {name}");
    let flags =
        OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let file = openat(directory, name.as_str(), flags, mode)
        .map_err(|errno| SlotError::system(&attempt, errno))?;
    // The umask may have taken more bits than it should.
    fchmodat(directory, name.as_str(), mode, nix::sys::stat::FchmodatFlags::FollowSymlink)
        .map_err(|errno| SlotError::system(&attempt, errno))?;
    let file = File::from(file);
    header::create(&file, identity, shape).map_err(|error| {
        // Else its name would be taken when there is space again, and readers would wait for it to be finished.
        let _ = nix::unistd::unlinkat(directory, name.as_str(), UnlinkatFlags::NoRemoveDir);
        SlotError::system(&attempt, error)
    })?;
    Ok(file)
}

fn view(file: File, identity: Identity) -> Result<View, SlotError> {
    let bad = |why| SlotError::Bad { number: identity.number, why };
    let view = View::of(file, identity.epoch, identity.role, identity.number, true).map_err(bad)?;
    keep_from_children(&view.map)?;
    debug_assert_eq!(view.map.length(), FILE_BYTES);
    Ok(view)
}

fn keep_slot_from_children(slot: &Slot) -> Result<(), SlotError> {
    keep_from_children(&slot.map)?;
    slot.bell().map_or(Ok(()), Bell::keep_from_children).map_err(kept)
}

fn keep_from_children(map: &crate::map::Map) -> Result<(), SlotError> {
    map.keep_from_children().map_err(kept)
}

fn kept(error: std::io::Error) -> SlotError {
    SlotError::system("keep a slot file from children", error)
}

/// One more than the greatest that is there: readers that hold an old epoch never take the new one for it.
fn next_number(run_dir: &RunDir) -> u64 {
    let entries = fs::read_dir(run_dir.path()).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str().and_then(number));
    numbers.max().unwrap_or(0) + 1
}

/// Tells this image's addresses from another's.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness the start time serves: two images of one server never start in the same nanosecond.
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => wall_ns(),
    }
}

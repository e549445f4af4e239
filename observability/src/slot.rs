//! The owner's side of a slot file: a process takes it over, counts and records in it, and leaves it to be read.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Mutex, PoisonError};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::barrier::Barrier;
use crate::bell::Bell;
use crate::clock::{keep_wall_ns, monotonic_ns, wall_ns};
use crate::closed::{Role, SlotState};
use crate::header::{self, Identity, WhyBad};
use crate::keys::Family;
use crate::layout::{
    ACCEPTED_AT, BIRTHS_AT, CONNECTIONS_AT, CONNECTIONS_LIMIT_AT, EPOCH_AT, FILE_BYTES,
    HANDLER_NS_AT, HEADER_BYTES, HEAP_QUESTION_AT, HEARTBEAT_AT, IMAGE_AT, IN_FLIGHT_OVERFLOW_AT,
    LOOP_BUSY_AT, LOOP_LAG_AT, LOOP_LAG_MAX_AT, NUMBER_AT, PID_AT, SAMPLES_DROPPED_AT, SINCE_AT,
    START_TIME_AT, STATE_AT, Sections, Shape, UPDATES_CONFLICT_AT, UPDATES_NO_SPACE_AT, long,
};
use crate::lock;
use crate::map::Map;
use crate::redo;
use crate::ring::{Producer, Ring, RingName};
use crate::samples::{Sample, SampleRing};
use crate::series::{Found, Place, Refusal, Series};

/// What a child needs of its slot: fresh descriptions of its own file and of the bell's page.
///
/// The parent makes it just before the fork and drops it just after, so that exactly one process holds them (F13).
#[derive(Debug)]
pub struct SlotFiles {
    pub(crate) file: File,
    pub(crate) bell: File,
}

impl SlotFiles {
    /// The descriptors that a child must keep open until it has attached.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.file.as_fd(), self.bell.as_fd()]
    }
}

/// A slot file could not be taken over or made.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// Somebody holds it: a worker that was believed dead.
    #[error("slot {0} is still locked by another process")]
    Locked(u32),
    /// It is not what it should be.
    #[error("cannot use the file of slot {number}: {why}")]
    Bad {
        /// The slot.
        number: u32,
        /// What is wrong with it.
        why: WhyBad,
    },
    /// The system refused.
    #[error("cannot {attempt}")]
    System {
        /// What was attempted.
        attempt: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl SlotError {
    pub(crate) fn system(attempt: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { attempt: attempt.into(), source: source.into() }
    }
}

/// A slot file that this process owns. There is one for each process, for all of its life. [`Epoch`](crate::Epoch) shows how
/// a process comes to it.
///
/// What is stored here outlives the process, whatever ends it: each method below is one or a few plain stores into mapped
/// memory and takes effect whole.
pub struct Slot {
    pub(crate) map: Map,
    pub(crate) file: File,
    bell: Option<Bell>,
    sections: Sections,
    number: u32,
    role: Role,
    series: Mutex<Series>,
    shared: Mutex<Shared>,
}

impl Slot {
    /// A slot in private memory that no thread owns: all updates there are atomic.
    pub(crate) fn ownerless() -> Result<&'static Self, SlotError> {
        Self::open(memory()?, None)
    }

    /// Takes a file over: locks it and finishes what a dead owner had begun.
    pub(crate) fn open(file: File, bell: Option<&File>) -> Result<&'static Self, SlotError> {
        let length =
            file.metadata().map_err(|error| SlotError::system("look at a slot file", error))?.len();
        if length < long(FILE_BYTES) {
            // A touch behind the end would be SIGBUS. Its number is not known either.
            return Err(SlotError::Bad { number: 0, why: WhyBad::TooShort });
        }
        let mapped = |error| {
            SlotError::system("map a slot file (64 MiB of address space; see RLIMIT_AS)", error)
        };
        let map = Map::writable(&file, FILE_BYTES).map_err(mapped)?;
        let [a, b, c, d, role, ..] = map.load(NUMBER_AT).to_ne_bytes();
        let number = u32::from_ne_bytes([a, b, c, d]);
        let bad = |why| SlotError::Bad { number, why };
        let role = Role::from_number(role).ok_or(bad(WhyBad::Header))?;
        let is_ours =
            lock::take(&file).map_err(|errno| SlotError::system("lock a slot file", errno))?;
        if !is_ours {
            return Err(SlotError::Locked(number));
        }
        let epoch = map.load(EPOCH_AT);
        let sections = header::check(&map, length, epoch, number, role).map_err(bad)?;
        redo::replay(&map);
        let place = Place { map: &map, file: &file, sections: &sections };
        let series = Series::take_over(place).map_err(|_| bad(WhyBad::Contents))?;
        let bell = bell
            .map(|file| {
                Map::writable(file, HEADER_BYTES).map(|map| Bell::new(map, Barrier::of_writer()))
            })
            .transpose()
            .map_err(mapped)?;
        let shared = Mutex::new(Shared::resume(&map, &sections));
        let series = Mutex::new(series);
        let slot: &'static Self =
            Box::leak(Box::new(Self { map, file, bell, sections, number, role, series, shared }));
        slot.take_over();
        Ok(slot)
    }

    /// Writes the owner's line of the header. The state is left to the one who forked, but for those that nobody forked.
    fn take_over(&self) {
        let map = &self.map;
        map.store(PID_AT, u64::from(std::process::id()));
        map.store(START_TIME_AT, crate::process::start_time(std::process::id()).unwrap_or(0));
        map.store(BIRTHS_AT, map.load(BIRTHS_AT).wrapping_add(1));
        for cell in
            [LOOP_LAG_AT, LOOP_LAG_MAX_AT, LOOP_BUSY_AT, CONNECTIONS_AT, IN_FLIGHT_OVERFLOW_AT]
        {
            map.store(cell, 0);
        }
        map.store(HEARTBEAT_AT, monotonic_ns());
        self.set_state(SlotState::Starting);
    }

    /// The number of the slot: the label `worker`.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The kind of process that owns it.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Says to readers how far the life of the owner is.
    pub fn set_state(&self, state: SlotState) {
        self.map.store(SINCE_AT, wall_ns());
        self.map.word(STATE_AT).store(u64::from(state.number()), Release);
    }

    /// Writes a profile sample; `false` and a count if there is no room or three others were faster. A signal handler may
    /// call it: no lock, no allocation, no system call.
    pub fn push_sample(&self, sample: &Sample) -> bool {
        let ring = SampleRing::new(self.sections.samples);
        let is_written = ring.is_some_and(|ring| ring.push(&self.map, sample));
        if !is_written {
            self.count(SAMPLES_DROPPED_AT);
        }
        is_written
    }

    /// The cells by which the supervisor sees that the owner lives.
    pub fn liveness(&self) -> Liveness<'_> {
        Liveness { map: &self.map }
    }

    pub(crate) fn sections(&self) -> &Sections {
        &self.sections
    }

    pub(crate) fn bell(&self) -> Option<&Bell> {
        self.bell.as_ref()
    }

    pub(crate) fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cells of a label set, made if they are new. A refusal is counted, and is no error of the caller.
    pub(crate) fn find(&self, family: &Family<'_>, values: &[&str]) -> Option<Found> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        self.counted(series.find(self.place(), family, values))
    }

    /// The cells that all threads but the owner write, of a label set that was found at this key.
    pub(crate) fn find_foreign(&self, own: usize) -> Option<Found> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        self.counted(series.find_foreign(self.place(), own))
    }

    fn counted(&self, found: Result<Found, Refusal>) -> Option<Found> {
        found
            .inspect_err(|refusal| match refusal {
                Refusal::NoSpace => self.count(UPDATES_NO_SPACE_AT),
                Refusal::Conflict => self.count(UPDATES_CONFLICT_AT),
            })
            .ok()
    }

    /// As [`Self::find`], but where there is no space the overflow series of the family serves: for counts that must agree
    /// with others.
    pub(crate) fn find_or_other(&self, family: &Family<'_>, values: &[&str]) -> Option<Found> {
        let others = vec![crate::series::OTHER; values.len()];
        self.find(family, values).or_else(|| self.find(family, &others))
    }

    pub(crate) fn string(&self, text: &str) -> u32 {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.string(self.place(), text)
    }

    /// Adds 1 to a cell of the header that several threads write.
    pub(crate) fn count(&self, cell: usize) {
        self.map.word(cell).fetch_add(1, Relaxed);
    }

    /// The observer's question for a profile of the heap that has no answer yet; 0 is none. To be answered by a file at
    /// [`crate::rings::heap_file`].
    pub fn heap_question(&self) -> u64 {
        self.map.load(HEAP_QUESTION_AT)
    }

    /// Tells the addresses of this program image from another's.
    pub fn image(&self) -> u64 {
        self.map.load(IMAGE_AT)
    }

    /// Adds to the time that the profiler has taken.
    pub(crate) fn add_handler_ns(&self, ns: u64) {
        self.map.word(HANDLER_NS_AT).fetch_add(ns, Relaxed);
    }

    fn place(&self) -> Place<'_> {
        Place { map: &self.map, file: &self.file, sections: &self.sections }
    }
}

/// The file of a slot that nobody else can open: the same layout, in private memory.
pub(crate) fn memory() -> Result<File, SlotError> {
    let attempt = "make a slot in memory";
    let file = memfd_create(c"saola-slot", MFdFlags::MFD_CLOEXEC)
        .map(File::from)
        .map_err(|errno| SlotError::system(attempt, errno))?;
    let identity = Identity { epoch: 1, created_ns: wall_ns(), number: 0, role: Role::Worker };
    header::create(&file, identity, Shape::default())
        .map_err(|error| SlotError::system(attempt, error))?;
    Ok(file)
}

/// The shared ring's writing end and its buffer, behind the slot's lock. The owner's thread never takes that lock.
pub(crate) struct Shared {
    pub(crate) producer: Producer,
    pub(crate) bytes: Vec<u8>,
}

impl Shared {
    fn resume(map: &Map, sections: &Sections) -> Self {
        let ring = Ring::new(sections, RingName::Shared);
        Self { producer: Producer::resume(map, ring), bytes: Vec::new() }
    }
}

/// The cells of the liveness line, each a plain store of the owner's; times are nanoseconds.
#[derive(Copy, Clone)]
pub struct Liveness<'s> {
    map: &'s Map,
}

impl Liveness<'_> {
    /// Says that the event loop turns, at monotonic nanoseconds.
    pub fn beat(self, now_ns: u64) {
        self.map.store(HEARTBEAT_AT, now_ns);
        keep_wall_ns(wall_ns());
    }

    /// How late the last tick of the loop was, in nanoseconds; the greatest since the supervisor looked is kept beside it.
    pub fn set_loop_lag_ns(self, lag_ns: u64) {
        self.map.store(LOOP_LAG_AT, lag_ns);
        self.map.word(LOOP_LAG_MAX_AT).fetch_max(lag_ns, Relaxed);
    }

    /// Nanoseconds of the last second that the loop was busy.
    pub fn set_loop_busy_ns(self, busy_ns: u64) {
        self.map.store(LOOP_BUSY_AT, busy_ns);
    }

    /// Connections accepted, ever, by this and earlier owners of the slot.
    pub fn add_accepted(self, connections: u64) {
        self.map.store(ACCEPTED_AT, self.map.load(ACCEPTED_AT).wrapping_add(connections));
    }

    /// Connections open now, and how many may be.
    pub fn set_connections(self, open: u64, limit: u64) {
        self.map.store(CONNECTIONS_AT, open);
        self.map.store(CONNECTIONS_LIMIT_AT, limit);
    }
}

/// A second description of a file that this process has open, which shares no lock with the first.
pub(crate) fn reopen(directory: &OwnedFd, name: &str) -> Result<File, SlotError> {
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::Mode;
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty())
        .map(File::from)
        .map_err(|errno| SlotError::system(format!("open the slot file {name}"), errno))
}

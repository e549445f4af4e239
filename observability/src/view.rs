//! One slot file as others see it: opened, checked, mapped, and never written (but for the cursors of the observer).

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering::Acquire;

use rustc_hash::FxHashMap;

use crate::closed::{Method, Role, SlotState};
use crate::header::{self, WhyBad};
use crate::http_metrics::STARTED;
use crate::in_flight::entry::{self, InFlightEntry};
use crate::in_flight::{entries_in, entry_offset};
use crate::keys::{Damaged, Key, Walk};
use crate::layout::{
    ACCEPTED_AT, BIRTHS_AT, CONNECTIONS_AT, CONNECTIONS_LIMIT_AT, CREATED_AT, EPOCH_AT, FILE_BYTES,
    GENERATION_AT, HANDLER_NS_AT, HEARTBEAT_AT, IMAGE_AT, IN_FLIGHT_OVERFLOW_AT, KEYS_LENGTH_AT,
    LOOP_BUSY_AT, LOOP_LAG_AT, LOOP_LAG_MAX_AT, PID_AT, SINCE_AT, STATE_AT, Section, Sections,
};
use crate::lock;
use crate::map::Map;
use crate::series::{OTHER, absolute};
use crate::slot::Slot;

/// A file of an epoch directory.
pub(crate) struct View {
    pub(crate) map: Map,
    pub(crate) file: File,
    pub(crate) sections: Sections,
    pub(crate) number: u32,
    pub(crate) role: Role,
    /// Interned strings by their ids, as far as the keys were read.
    pub(crate) strings: FxHashMap<u32, String>,
    /// Up to where the keys were read.
    pub(crate) keys_read: usize,
    /// Where requests are counted that begin.
    started: Started,
    /// Set for good once its keys made no sense: a slot that was bad never comes back in part.
    pub(crate) damage: Option<WhyBad>,
    /// Whether it had a name when it was opened; memory without a file never has one.
    is_named: bool,
}

/// The counters of requests that begin, one for each method.
#[derive(Default)]
struct Started {
    /// Offset of their family's record.
    family: Option<u32>,
    /// Their offsets in the file.
    cells: Vec<usize>,
}

impl Started {
    fn learn(&mut self, at: usize, key: &Key<'_>, values: Section) {
        match key {
            Key::Family(family) if family.is(&STARTED) => self.family = u32::try_from(at).ok(),
            Key::Series(series) if self.family == Some(series.family) => {
                self.cells.extend(absolute(values, series.value, 1));
            }
            Key::Family(_) | Key::Series(_) | Key::String(_) => {}
        }
    }
}

/// What the header says of an owner at one moment.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Seen {
    /// How far its life is.
    pub state: SlotState,
    /// When the state changed, wall clock nanoseconds.
    pub since_wall_ns: u64,
    /// Its pid; 0 before the first owner.
    pub pid: u32,
    /// The generation it belongs to.
    pub generation: u64,
    /// Owners that the slot has had.
    pub births: u64,
    /// Its last beat, monotonic nanoseconds.
    pub heartbeat_ns: u64,
    /// How late its loop was at the last tick.
    pub loop_lag_ns: u64,
    /// Nanoseconds that the profiler's handler has taken, ever.
    pub handler_ns: u64,
    /// Tells the program image of the owner from another's.
    pub image: u64,
    /// The greatest lag since the supervisor looked.
    pub loop_lag_max_ns: u64,
    /// Nanoseconds of the last second that its loop was busy.
    pub loop_busy_ns: u64,
    /// Connections accepted in this slot, ever.
    pub accepted: u64,
    /// Connections open now.
    pub connections: u64,
    /// Connections it may have open.
    pub connections_limit: u64,
    /// Running requests that found no room in the table.
    pub in_flight_overflow: u64,
}

/// The name of a slot's file.
pub(crate) fn file_name(role: Role, number: u32) -> String {
    match role {
        Role::Supervisor => "supervisor".to_owned(),
        Role::Observer => "observer".to_owned(),
        Role::Worker => format!("slot-{number:04}"),
    }
}

/// What a file of that name is; `None` for a foreign file.
pub(crate) fn named(name: &str) -> Option<(Role, u32)> {
    match name {
        "supervisor" => Some((Role::Supervisor, 0)),
        "observer" => Some((Role::Observer, 0)),
        other => {
            let number = other.strip_prefix("slot-")?;
            number.parse().ok().filter(|_| number.len() >= 4).map(|number| (Role::Worker, number))
        }
    }
}

impl Slot {
    /// This file as a reader sees it, for a process that reads itself.
    pub(crate) fn view(&self) -> Result<View, WhyBad> {
        let file = self.file.try_clone().map_err(|_| WhyBad::NoSlotFile)?;
        View::of(file, self.map.load(EPOCH_AT), self.role(), self.number(), false)
    }
}

impl View {
    /// Opens a file read-only; `writable` is for the one who moves cursors or buries.
    pub(crate) fn open(
        path: &Path,
        epoch: u64,
        role: Role,
        number: u32,
        writable: bool,
    ) -> Result<Self, WhyBad> {
        use std::os::unix::fs::OpenOptionsExt;
        let no_follow = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK; // a FIFO in its place must not stop us
        let opened = File::options().read(true).write(writable).custom_flags(no_follow).open(path);
        let file = opened.map_err(|_| WhyBad::NoSlotFile)?;
        Self::of(file, epoch, role, number, writable)
    }

    pub(crate) fn of(
        file: File,
        epoch: u64,
        role: Role,
        number: u32,
        writable: bool,
    ) -> Result<Self, WhyBad> {
        let metadata = file.metadata().map_err(|_| WhyBad::NoSlotFile)?;
        if !metadata.is_file() {
            return Err(WhyBad::NoSlotFile);
        }
        let bytes = metadata.len();
        if bytes < crate::layout::long(FILE_BYTES) {
            return Err(if bytes == 0 { WhyBad::BeingMade } else { WhyBad::TooShort });
        }
        let is_named = metadata.nlink() > 0;
        let map = if writable {
            Map::writable(&file, FILE_BYTES)
        } else {
            Map::read_only(&file, FILE_BYTES)
        };
        let map = map.map_err(|_| WhyBad::NoSlotFile)?;
        let sections = header::check(&map, bytes, epoch, number, role)?;
        Ok(Self {
            map,
            file,
            sections,
            number,
            role,
            strings: FxHashMap::default(),
            keys_read: 0,
            started: Started::default(),
            damage: None,
            is_named,
        })
    }

    /// Looks again whether the file is still whole (F57).
    pub(crate) fn check(&self) -> Result<(), WhyBad> {
        if let Some(why) = self.damage {
            return Err(why);
        }
        let metadata = self.file.metadata().map_err(|_| WhyBad::NoSlotFile)?;
        if metadata.len() < crate::layout::long(FILE_BYTES) || self.map.is_lost() {
            return Err(WhyBad::TooShort);
        }
        if self.is_named && metadata.nlink() == 0 {
            return Err(WhyBad::Gone);
        }
        header::check_contents(&self.map, &self.sections, self.map.load(EPOCH_AT))
    }

    /// Reads the keys that have come since the last call.
    pub(crate) fn new_keys(&mut self, mut each: impl FnMut(usize, Key<'_>)) -> Result<(), Damaged> {
        let length = self.map.word(KEYS_LENGTH_AT).load(Acquire);
        let mut walk = Walk::new(&self.map, self.sections.keys, self.keys_read, length);
        while let Some((at, key)) = walk.next()? {
            match key {
                Key::String(text) => {
                    self.strings.insert(u32::try_from(at).unwrap_or(0), text.to_owned());
                }
                other => {
                    self.started.learn(at, &other, self.sections.values);
                    each(at, other);
                }
            }
        }
        self.keys_read = crate::layout::size(length);
        Ok(())
    }

    /// As [`Self::string`], and looks for strings that came since.
    pub(crate) fn new_string(&mut self, id: u32) -> String {
        if id != 0 && !self.strings.contains_key(&id) {
            // A damaged key region names nothing.
            let _ = self.new_keys(|_, _| ());
        }
        self.string(id)
    }

    /// Reads its keys from the beginning the next time.
    pub(crate) fn forget_keys(&mut self) {
        self.keys_read = 0;
        self.started = Started::default();
        self.strings.clear();
    }

    /// Requests that have begun in this slot, as far as its keys were read.
    pub(crate) fn started(&self) -> u64 {
        self.started.cells.iter().map(|at| self.map.load(*at)).fold(0, u64::wrapping_add)
    }

    pub(crate) fn string(&self, id: u32) -> String {
        self.strings.get(&id).map_or(OTHER, String::as_str).to_owned()
    }

    pub(crate) fn seen(&self) -> Seen {
        let load = |at| self.map.word(at).load(Acquire);
        let state = u8::try_from(load(STATE_AT)).ok().and_then(SlotState::from_number);
        Seen {
            state: state.unwrap_or(SlotState::Free),
            since_wall_ns: load(SINCE_AT),
            pid: u32::try_from(load(PID_AT)).unwrap_or(0),
            generation: load(GENERATION_AT),
            births: load(BIRTHS_AT),
            heartbeat_ns: load(HEARTBEAT_AT),
            loop_lag_ns: load(LOOP_LAG_AT),
            handler_ns: load(HANDLER_NS_AT),
            image: load(IMAGE_AT),
            loop_lag_max_ns: load(LOOP_LAG_MAX_AT),
            loop_busy_ns: load(LOOP_BUSY_AT),
            accepted: load(ACCEPTED_AT),
            connections: load(CONNECTIONS_AT),
            connections_limit: load(CONNECTIONS_LIMIT_AT),
            in_flight_overflow: load(IN_FLIGHT_OVERFLOW_AT),
        }
    }

    pub(crate) fn created_ns(&self) -> u64 {
        self.map.load(CREATED_AT)
    }

    /// Says whether a process owns the slot now (F17): its state says so and its lock is held. Pids are never asked.
    pub(crate) fn is_live(&self) -> bool {
        self.seen().state != SlotState::Free && lock::is_held(&self.file)
    }

    /// The running requests, oldest first. Strings that are new are read first.
    pub(crate) fn in_flight(&mut self) -> Vec<InFlightEntry> {
        // A damaged key region names no routes; the requests stand in the table all the same.
        let _ = self.new_keys(|_, _| ());
        let offsets = self.entry_offsets();
        let mut entries: Vec<_> =
            offsets.filter_map(|at| entry::read(&self.map, at, |id| self.string(id))).collect();
        entries.sort_by_key(|entry| entry.start_ns);
        entries
    }

    /// Method and route string of each running request.
    pub(crate) fn active(&self) -> impl Iterator<Item = (Method, u32)> {
        self.entry_offsets().filter_map(|at| entry::read_kind(&self.map, at))
    }

    pub(crate) fn entry_offsets(&self) -> impl Iterator<Item = usize> + use<> {
        let section = self.sections.in_flight;
        (0..entries_in(section.capacity)).map(move |entry| section.offset + entry_offset(entry))
    }
}

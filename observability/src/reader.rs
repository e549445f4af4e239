//! Reads the metrics of a whole server from its slot files: one number from all workers, living and dead.
//!
//! A reader keeps its index between reads: a scrape parses only keys that are new, and allocates only for them.

mod by_slot;
mod derived;
mod family;
mod merge;
mod procfs;
mod series;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Acquire;

pub use crate::cells::exemplar::Exemplar;
use crate::closed::Role;
pub use crate::epoch_files::{BadSlot, ReadError};
use crate::epoch_files::{current, open_new};
use crate::header::WhyBad;
use crate::layout::SLOTS_AT;
pub use crate::reader::by_slot::{Durations, SlotRead};
pub use crate::reader::family::{FamilyRead, Shown};
pub use crate::reader::merge::{Conflict, Families};
pub use crate::reader::series::{SeriesRead, ValueRead};
use crate::slot::Slot;
use crate::view::{Seen, View};

/// Aggregates the slot files of a run directory.
///
/// ```no_run
/// use saola_observability::exposition::{self, Format};
/// use saola_observability::reader::Reader;
///
/// let mut reader = Reader::open("/dev/shm/saola-0/shop-127.0.0.1_8000".as_ref())?;
/// for family in reader.read()?.list() {
///     println!("{}: {} series", family.name, family.series.len());
/// }
/// let text = exposition::text(reader.families(), Format::Text); // as a scraper gets it
/// # Ok::<(), saola_observability::reader::ReadError>(())
/// ```
///
/// It maps the files read-only and waits for nobody: a writer may be stopped or killed in the middle of any store. Keep it:
/// a first read parses all keys and takes ten times as long as those after it. It may stand behind a mutex; do not make one
/// for each scrape ([`Scraper`](crate::scraper::Scraper) does this).
pub struct Reader {
    run_dir: PathBuf,
    directory: PathBuf,
    epoch: u64,
    views: Vec<View>,
    families: Families,
    bad: Vec<BadSlot>,
    /// The birth of the supervisor for which the version was read.
    version_of: Option<u64>,
}

impl Reader {
    /// Opens the epoch in use.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if no server runs there or its files may not be read.
    pub fn open(run_dir: &Path) -> Result<Self, ReadError> {
        let (directory, epoch) = current(run_dir)?;
        Ok(Self {
            run_dir: run_dir.to_owned(),
            directory,
            epoch,
            views: Vec::new(),
            families: Families::default(),
            bad: Vec::new(),
            version_of: None,
        })
    }

    /// Reads every cell once. Counters of dead workers count on; gauges of dead workers are gone.
    ///
    /// While any slot is damaged there are no counters and no histograms: a gap, because a sum without one slot would be a
    /// fall, and every rate takes a fall for a restart of all.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the server is gone.
    pub fn read(&mut self) -> Result<&Families, ReadError> {
        let (directory, epoch) = current(&self.run_dir)?;
        if epoch != self.epoch {
            (self.directory, self.epoch) = (directory, epoch);
            self.views.clear();
            self.families = Families::default();
            self.version_of = None;
        }
        let views = &self.views;
        let is_open =
            |role, number| views.iter().any(|view| (view.role, view.number) == (role, number));
        let (new, mut bad) = open_new(&self.directory, self.epoch, false, is_open)?;
        self.views.extend(new);
        bad.extend(self.missing(bad.len())?);
        let files = bad.len();
        self.index(&mut bad);
        if let Some(anew) = self.families.anew() {
            self.families = anew;
            self.views.sort_by_key(|view| (view.role, view.number));
            self.views.iter_mut().for_each(View::forget_keys);
            bad.truncate(files);
            self.index(&mut bad);
        }
        self.read_version();
        read_values(&mut self.families, &self.views, bad.len());
        self.bad = bad;
        Ok(&self.families)
    }

    /// Takes the new keys of all slots into the index.
    fn index(&mut self, bad: &mut Vec<BadSlot>) {
        for (at, view) in self.views.iter_mut().enumerate() {
            if let Err(why) = self.families.index(at, view) {
                view.damage = view.damage.or(matches!(why, WhyBad::Contents).then_some(why));
                let name = crate::view::file_name(view.role, view.number);
                bad.push(BadSlot { path: self.directory.join(name), why });
            }
        }
    }

    /// The version stands in the lock of the run directory. It changes only with a new image of the supervisor, which takes
    /// its slot over anew.
    fn read_version(&mut self) {
        let supervisor = self.views.iter().find(|view| view.role == Role::Supervisor);
        let birth = supervisor.map(|view| view.seen().births);
        if birth.is_some() && birth != self.version_of {
            self.families.version = crate::run_dir::version(&self.run_dir);
            self.version_of = birth.filter(|_| self.families.version.is_some());
        }
    }

    /// Files that the epoch has and the directory does not: without them the sums would fall (F57).
    fn missing(&mut self, bad: usize) -> Result<Vec<BadSlot>, ReadError> {
        let slots = |views: &[View]| {
            let supervisor = views.iter().find(|view| view.role == Role::Supervisor)?;
            Some(wide_slots(supervisor.map.word(SLOTS_AT).load(Acquire)))
        };
        let workers =
            |views: &[View]| views.iter().filter(|view| view.role == Role::Worker).count();
        let is_short = |views: &[View], bad: usize| {
            slots(views).is_none_or(|slots| workers(views) + bad < slots)
        };
        if !is_short(&self.views, bad) {
            return Ok(Vec::new());
        }
        // A slot may have come between the listing and the number.
        let views = &self.views;
        let is_open =
            |role, number| views.iter().any(|view| (view.role, view.number) == (role, number));
        let (new, again) = open_new(&self.directory, self.epoch, false, is_open)?;
        self.views.extend(new);
        let is_short = is_short(&self.views, again.len());
        let missing = BadSlot { path: self.directory.clone(), why: WhyBad::Gone };
        Ok(is_short.then_some(missing).into_iter().collect())
    }

    /// What the last read has read.
    pub fn families(&self) -> &Families {
        &self.families
    }

    /// The slots that could not be read the last time.
    pub fn bad(&self) -> &[BadSlot] {
        &self.bad
    }

    /// The owners of all slots, as the last read found the files: slot number of workers, and what their header says.
    pub fn workers(&self) -> Vec<(u32, Seen)> {
        let workers = self.views.iter().filter(|view| view.role == crate::closed::Role::Worker);
        workers.map(|view| (view.number, view.seen())).collect()
    }
}

/// What cells say, and then what is derived.
fn read_values(families: &mut Families, views: &[View], damaged: usize) {
    let live: Vec<bool> = views.iter().map(View::is_live).collect();
    families.read(views, &live, damaged);
    derived::read(families, views, &live, damaged);
}

/// A damaged number is no reason to look for more files than there can be.
fn wide_slots(slots: u64) -> usize {
    usize::try_from(slots).unwrap_or(usize::MAX).min(1 << 16)
}

/// Reads what a process without a slot has counted: for unit tests. [`metrics::local`](crate::metrics::local) makes it.
pub struct Local {
    slot: Option<&'static Slot>,
}

impl Local {
    pub(crate) fn new(slot: Option<&'static Slot>) -> Self {
        Self { slot }
    }

    /// The sum of a counter or gauge over the label sets whose text contains `labels`; the count of a histogram.
    pub fn sum(&self, name: &str, labels: &str) -> f64 {
        let Some(slot) = self.slot else { return 0.0 };
        let mut families = Families::default();
        let Ok(mut view) = slot.view() else { return 0.0 };
        if families.index(0, &mut view).is_err() {
            return 0.0;
        }
        read_values(&mut families, &[view], 0);
        let family = families.list().iter().find(|family| family.name == name);
        let series = family.into_iter().flat_map(|family| &family.series);
        series
            .filter(|series| series.labels.contains(labels))
            .map(|series| series.value.as_f64())
            .sum()
    }
}

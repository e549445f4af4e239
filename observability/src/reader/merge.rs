//! The index of a reader: which cells of which slots make one number, and the numbers as they were read last.

use rustc_hash::FxHashMap;

use crate::closed::Role;
use crate::header::WhyBad;
use crate::keys::{CellKind, FamilyKey, GaugeMode, Key, SeriesKey};
use crate::layout::Section;
use crate::reader::family::{FamilyRead, Shown};
use crate::reader::procfs::PrivateMemory;
use crate::reader::series::Source;
use crate::series::absolute;
use crate::view::{View, file_name};

/// Every family of a server, by name, with the values of the last read.
#[derive(Default)]
pub struct Families {
    list: Vec<FamilyRead>,
    by_name: FxHashMap<String, usize>,
    /// Per view and family offset in its keys: which family it belongs to, none when its definition conflicts.
    by_offset: FxHashMap<(usize, u32), Option<usize>>,
    pub(crate) created_ns: u64,
    conflicts: Vec<Conflict>,
    /// A lower slot has come with another definition: the index is to be made anew, lowest slot first.
    is_stale: bool,
    /// Of the server, once it is known.
    pub(crate) version: Option<String>,
    pub(crate) private_memory: PrivateMemory,
    nowhere: Option<FamilyRead>,
}

/// A family that two slots define differently: the lowest slot's definition is shown, the other's series are left out.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Conflict {
    /// The family's name.
    pub family: String,
    /// The file whose definition is shown: `slot-0000`.
    pub kept: String,
    /// The file whose series are left out.
    pub left_out: String,
}

impl Families {
    /// The families, sorted by name.
    pub fn list(&self) -> &[FamilyRead] {
        &self.list
    }

    /// When the epoch began, wall clock nanoseconds: every counter counts since then.
    pub fn created_ns(&self) -> u64 {
        self.created_ns
    }

    /// The version of the application that serves, once it is known.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Families that slots define differently, as far as keys were read.
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    /// An empty index, if this one was not made lowest slot first.
    pub(crate) fn anew(&mut self) -> Option<Self> {
        self.is_stale.then(|| Self {
            version: self.version.take(),
            private_memory: std::mem::take(&mut self.private_memory),
            ..Self::default()
        })
    }

    /// Takes the new keys of a view into the index.
    pub(crate) fn index(&mut self, at: usize, view: &mut View) -> Result<(), WhyBad> {
        view.check()?;
        let (origin, values) = ((view.role, view.number), view.sections.values);
        let mut is_sound = true;
        let walked = view.new_keys(|offset, key| {
            is_sound &= match key {
                Key::Family(key) => u32::try_from(offset).is_ok_and(|offset| {
                    let family = self.family(key, origin);
                    self.by_offset.insert((at, offset), family);
                    true
                }),
                Key::Series(key) => self.series((at, origin.1), values, key).is_some(),
                Key::String(_) => true,
            };
        });
        walked.ok().filter(|()| is_sound).ok_or(WhyBad::Contents)
    }

    fn family(&mut self, key: FamilyKey, origin: (Role, u32)) -> Option<usize> {
        if let Some(at) = self.by_name.get(&key.name) {
            let known = self.list.get(*at)?;
            if known.key.as_ref() == Some(&key) {
                return Some(*at);
            }
            self.is_stale |= origin < known.origin;
            let file = |(role, number)| file_name(role, number);
            let (kept, left_out) = (file(known.origin), file(origin));
            self.conflicts.push(Conflict { family: key.name, kept, left_out });
            return None;
        }
        Some(self.insert(FamilyRead::of(key, origin)))
    }

    /// Keeps the list sorted: families are few and new ones rare.
    fn insert(&mut self, family: FamilyRead) -> usize {
        let at = self.list.partition_point(|other| other.name < family.name);
        for place in self.by_name.values_mut().chain(self.by_offset.values_mut().flatten()) {
            *place += usize::from(*place >= at);
        }
        self.by_name.insert(family.name.clone(), at);
        self.list.insert(at, family);
        at
    }

    /// Adds the cells of a series to what makes its number; none if the key cannot be true.
    fn series(
        &mut self,
        (view, slot): (usize, u32),
        values: Section,
        key: SeriesKey<'_>,
    ) -> Option<()> {
        let family = *self.by_offset.get(&(view, key.family))?;
        let Some(family) = family.and_then(|at| self.list.get_mut(at)) else { return Some(()) };
        let Some(definition) = &family.key else { return Some(()) };
        let source = Source { view, offset: absolute(values, key.value, definition.words())? };
        if definition.mode == GaugeMode::PerWorker && definition.kind == CellKind::Gauge {
            let comma = if key.labels.is_empty() { "" } else { "," };
            let labels = format!("{}{comma}worker=\"{slot}\"", key.labels);
            family.entry(&labels).sources.push(source);
        } else {
            family.entry(key.labels).sources.push(source);
        }
        Some(())
    }

    /// Reads the value of every series that has cells. With damaged slots counters and histograms stay unknown.
    pub(crate) fn read(&mut self, views: &[View], live: &[bool], damaged: usize) {
        self.created_ns = views.iter().map(View::created_ns).min().unwrap_or(0);
        // In the order of their names: finished requests, then lost ones, then started ones, so that in no scrape more of them
        // have ended than begun (F42).
        for family in &mut self.list {
            family.read(views, live, damaged);
        }
    }

    /// A family that is made of other things than cells; its series begin anew at each read.
    pub(crate) fn derived(&mut self, name: &str, help: &str, shown: Shown) -> &mut FamilyRead {
        let at = match self.by_name.get(name) {
            Some(at) => *at,
            None => self.insert(FamilyRead::derived(name, help, shown)),
        };
        if self.list[at].key.is_some() {
            // A program's own metric has that name: its is shown, and the derived one goes nowhere.
            return self
                .nowhere
                .get_or_insert_with(|| FamilyRead::derived(name, help, shown))
                .emptied();
        }
        self.list[at].emptied()
    }
}

//! One family as a reader keeps it: what defined it, and its series by their labels.

use rustc_hash::FxHashMap;

use crate::closed::Role;
use crate::keys::{CellKind, FamilyKey};
use crate::numbers::bound_text;
use crate::reader::series::{Heads, SeriesRead, ValueRead, read_family};
use crate::view::View;

/// What a family is to a scraper.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Shown {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket.
    Histogram,
}

/// One family.
pub struct FamilyRead {
    /// Its full name; a counter's ends with `_total`.
    pub name: String,
    /// Its help, one sentence.
    pub help: String,
    /// What it is.
    pub shown: Shown,
    /// Upper bounds of a histogram, `+Inf` left out.
    pub bounds: Vec<f64>,
    /// Its series, in the order in which they were first seen.
    pub series: Vec<SeriesRead>,
    /// Whether its values were read; not so while a slot is damaged.
    pub is_known: bool,
    bound_texts: Vec<String>,
    /// Its definition; none of a derived family, which has no cells.
    pub(crate) key: Option<FamilyKey>,
    /// The file that defined it.
    pub(crate) origin: (Role, u32),
    by_labels: FxHashMap<String, usize>,
    /// The series that is probably asked for next: the one behind the last.
    guess: usize,
}

impl FamilyRead {
    /// A family as a file defines it.
    pub(crate) fn of(key: FamilyKey, origin: (Role, u32)) -> Self {
        let shown = match key.kind {
            CellKind::CounterU64 | CellKind::CounterF64 => Shown::Counter,
            CellKind::Gauge => Shown::Gauge,
            CellKind::Histogram | CellKind::ExemplarHistogram => Shown::Histogram,
        };
        let mut family = Self::derived(&key.name, &key.help, shown);
        family.bounds.clone_from(&key.bounds);
        family.bound_texts = key.bounds.iter().map(|bound| bound_text(*bound)).collect();
        (family.key, family.origin) = (Some(key), origin);
        family
    }

    /// A family that is made of other things than cells.
    pub(crate) fn derived(name: &str, help: &str, shown: Shown) -> Self {
        Self {
            name: name.to_owned(),
            help: help.to_owned(),
            shown,
            bounds: Vec::new(),
            series: Vec::new(),
            is_known: true,
            bound_texts: Vec::new(),
            key: None,
            origin: (Role::Supervisor, 0),
            by_labels: FxHashMap::default(),
            guess: 0,
        }
    }

    /// Reads the value of every series that has cells. With damaged slots counters and histograms stay unknown.
    pub(crate) fn read(&mut self, views: &[View], live: &[bool], damaged: usize) {
        let Some(key) = &self.key else { return };
        self.is_known = damaged == 0 || self.shown == Shown::Gauge;
        read_family(&mut self.series, key, views, live);
    }

    /// The series of these labels, made if they are new.
    pub(crate) fn entry(&mut self, labels: &str) -> &mut SeriesRead {
        // Slots tend to meet label sets in one order: then no look-up is needed.
        let guess = self.series.get(self.guess).filter(|series| series.labels == labels);
        let at = if guess.is_some() { self.guess } else { self.find(labels) };
        self.guess = at + 1;
        &mut self.series[at]
    }

    fn find(&mut self, labels: &str) -> usize {
        if let Some(at) = self.by_labels.get(labels) {
            return *at;
        }
        let heads = match self.shown {
            Shown::Histogram => Heads::histogram(&self.name, labels, &self.bound_texts),
            Shown::Counter | Shown::Gauge => Heads::plain(&self.name, labels),
        };
        let at = self.series.len();
        self.series.push(SeriesRead::new(labels.to_owned(), ValueRead::Absent, heads));
        self.by_labels.insert(labels.to_owned(), at);
        at
    }

    /// Without its series, which are derived anew.
    pub(crate) fn emptied(&mut self) -> &mut Self {
        self.series.clear();
        self.by_labels.clear();
        self
    }

    /// Adds a derived series.
    pub(crate) fn push(&mut self, labels: String, value: ValueRead) {
        let heads = Heads::plain(&self.name, &labels);
        self.series.push(SeriesRead::new(labels, value, heads));
    }
}

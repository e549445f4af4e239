//! One series as a reader keeps it: which cells make its number, the number, and the beginnings of its lines, ready.

use crate::cells::exemplar::{self, EXEMPLAR_WORDS, Exemplar};
use crate::cells::histogram::{BUCKET_WORDS, Histogram};
use crate::cells::{LAST_WORDS, read_last};
use crate::keys::{CellKind, FamilyKey, GaugeMode};
use crate::view::View;

/// One series.
pub struct SeriesRead {
    /// `name="value",…`, escaped as both formats ask; empty without labels.
    pub labels: String,
    /// Its value; none when nobody alive has one.
    pub value: ValueRead,
    /// The exemplar of each bucket that has one, by the bucket's number; empty for families that did not ask for them.
    pub exemplars: Vec<(usize, Exemplar)>,
    pub(crate) sources: Vec<Source>,
    pub(crate) heads: Heads,
}

/// The value of a series.
#[derive(Clone, PartialEq, Debug)]
pub enum ValueRead {
    /// Nobody alive has one.
    Absent,
    /// A whole number.
    U64(u64),
    /// A number.
    F64(f64),
    /// Counts by bucket, not cumulative, `+Inf` last; and the sum.
    Histogram(Vec<u64>, f64),
}

impl ValueRead {
    /// One number: the count of a histogram, 0 for an absent value.
    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        reason = "for assertions and rates, not for counts"
    )]
    pub fn as_f64(&self) -> f64 {
        match self {
            Self::Absent => 0.0,
            Self::U64(number) => *number as f64,
            Self::F64(number) => *number,
            Self::Histogram(buckets, _) => {
                buckets.iter().copied().fold(0, u64::wrapping_add) as f64
            }
        }
    }
}

/// `name{labels} ` of each line of a series, one behind the other: made once, copied at each scrape.
#[derive(Default)]
pub(crate) struct Heads {
    text: String,
    ends: Vec<usize>,
}

impl Heads {
    /// The heads of a plain series: one line.
    pub(crate) fn plain(name: &str, labels: &str) -> Self {
        let mut heads = Self::default();
        heads.push(name, "", labels, None);
        heads
    }

    /// The heads of a histogram: its buckets, sum and count.
    pub(crate) fn histogram(name: &str, labels: &str, bounds: &[String]) -> Self {
        let mut heads = Self::default();
        for bound in bounds {
            heads.push(name, "_bucket", labels, Some(bound));
        }
        heads.push(name, "_bucket", labels, Some("+Inf"));
        heads.push(name, "_sum", labels, None);
        heads.push(name, "_count", labels, None);
        // Kept for as long as the reader: the denser they lie, the faster is a scrape that has all of them.
        heads.text.shrink_to_fit();
        heads.ends.shrink_to_fit();
        heads
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let head = self.text.as_bytes().get(start..*end).unwrap_or_default();
            start = *end;
            head
        })
    }

    /// Bytes that the lines will take, numbers and all.
    pub(crate) fn line_bytes(&self) -> usize {
        self.text.len() + self.ends.len() * 22
    }

    fn push(&mut self, name: &str, suffix: &str, labels: &str, bound: Option<&str>) {
        let text = &mut self.text;
        text.push_str(name);
        text.push_str(suffix);
        if !labels.is_empty() || bound.is_some() {
            text.push('{');
            text.push_str(labels);
            if let Some(bound) = bound {
                text.push_str(if labels.is_empty() { "le=\"" } else { ",le=\"" });
                text.push_str(bound);
                text.push('"');
            }
            text.push('}');
        }
        text.push(' ');
        self.ends.push(text.len());
    }
}

/// Where a part of a series' number stands.
#[derive(Copy, Clone)]
pub(crate) struct Source {
    pub(crate) view: usize,
    pub(crate) offset: usize,
}

/// Reads all series of a family. What is summed is read one file after the other: series by series each would be a look
/// into every file, far from the last one.
pub(crate) fn read_family(
    family: &mut [SeriesRead],
    key: &FamilyKey,
    views: &[View],
    live: &[bool],
) {
    if key.kind == CellKind::Gauge {
        for series in family {
            series.read_gauge(key.mode, views, live);
        }
        return;
    }
    for series in &mut *family {
        series.empty(key);
    }
    let sources = family.iter().map(|series| series.sources.len()).max().unwrap_or(0);
    for source in 0..sources {
        for series in &mut *family {
            series.add(source, views);
        }
    }
    if key.kind == CellKind::ExemplarHistogram {
        for series in family {
            series.read_exemplars(key.bounds.len() + 1, views);
        }
    }
}

impl SeriesRead {
    pub(crate) fn new(labels: String, value: ValueRead, heads: Heads) -> Self {
        Self { labels, value, exemplars: Vec::new(), sources: Vec::new(), heads }
    }

    /// Its labels, each with its value as it was given.
    pub fn label_pairs(&self) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        let mut rest = self.labels.as_str();
        while let Some((name, value)) = rest.split_once("=\"") {
            let mut text = String::new();
            let mut characters = value.char_indices();
            let mut end = value.len();
            while let Some((at, character)) = characters.next() {
                match character {
                    '"' => {
                        end = at;
                        break;
                    }
                    '\\' => match characters.next() {
                        Some((_, 'n')) => text.push('\n'),
                        Some((_, other)) => text.push(other),
                        None => {}
                    },
                    other => text.push(other),
                }
            }
            pairs.push((name.to_owned(), text));
            let behind = value.get(end..).unwrap_or_default();
            rest = behind.strip_prefix("\",").unwrap_or_default();
        }
        pairs
    }

    fn read_gauge(&mut self, mode: GaugeMode, views: &[View], live: &[bool]) {
        let is_live = |source: &&Source| live.get(source.view).copied().unwrap_or(false);
        self.value = if mode == GaugeMode::Last {
            self.last(views)
        } else {
            let cells = self.sources.iter().filter(is_live);
            let values = cells.map(|source| f64::from_bits(source.word(views)));
            combine(mode, values).map_or(ValueRead::Absent, ValueRead::F64)
        };
    }

    /// The value that was set last; of two in the same nanosecond the one of the lower slot.
    fn last(&self, views: &[View]) -> ValueRead {
        let read = |source: &Source| {
            let words = views.get(source.view)?.map.words(source.offset, LAST_WORDS);
            read_last(words).filter(|(time, _)| *time > 0)
        };
        let values = self.sources.iter().filter_map(read);
        let last = values.reduce(|first, next| if next.0 > first.0 { next } else { first });
        last.map_or(ValueRead::Absent, |(_, value)| ValueRead::F64(value))
    }

    /// Counts from zero, in place: a scrape without new series allocates nothing for them.
    fn empty(&mut self, key: &FamilyKey) {
        match (key.kind, &mut self.value) {
            (CellKind::CounterU64, value) => *value = ValueRead::U64(0),
            (CellKind::CounterF64, value) => *value = ValueRead::F64(0.0),
            (_, ValueRead::Histogram(counts, sum)) => {
                counts.fill(0);
                *sum = 0.0;
            }
            (_, value) => *value = ValueRead::Histogram(vec![0; key.bounds.len() + 1], 0.0),
        }
    }

    /// Adds what one of its sources has.
    fn add(&mut self, source: usize, views: &[View]) {
        let Some(source) = self.sources.get(source) else { return };
        let Some(view) = views.get(source.view) else { return };
        match &mut self.value {
            ValueRead::Absent => {}
            ValueRead::U64(count) => *count = count.wrapping_add(view.map.load(source.offset)),
            ValueRead::F64(sum) => *sum += f64::from_bits(view.map.load(source.offset)),
            ValueRead::Histogram(counts, sum) => {
                let words = view.map.words(source.offset, counts.len() * BUCKET_WORDS);
                if let Some(cells) = Histogram::of(words, counts.len()) {
                    *sum += cells.add_to(counts);
                }
            }
        }
    }

    /// The newest exemplar of each bucket.
    fn read_exemplars(&mut self, buckets: usize, views: &[View]) {
        self.exemplars.clear();
        for bucket in 0..buckets {
            let at = (buckets * BUCKET_WORDS + bucket * EXEMPLAR_WORDS) * 8;
            let read = |source: &Source| {
                let view = views.get(source.view)?;
                exemplar::read(view.map.words(source.offset + at, EXEMPLAR_WORDS))
            };
            let newest = self.sources.iter().filter_map(read).max_by_key(|found| found.wall_ns);
            self.exemplars.extend(newest.map(|newest| (bucket, newest)));
        }
    }
}

impl Source {
    fn word(self, views: &[View]) -> u64 {
        views.get(self.view).map_or(0, |view| view.map.load(self.offset))
    }
}

fn combine(mode: GaugeMode, values: impl Iterator<Item = f64>) -> Option<f64> {
    // f64::max and f64::min pass over NaN unless both are.
    match mode {
        GaugeMode::LiveMax => values.reduce(f64::max),
        GaugeMode::LiveMin => values.reduce(f64::min),
        GaugeMode::LiveSum | GaugeMode::PerWorker | GaugeMode::Last => {
            values.reduce(|sum, value| sum + value)
        }
    }
}

//! The key region: what the cells of a slot mean. Records are appended and never change; each carries a checksum.
//!
//! A record: length u32, type u8, kind u8, mode u8, bounds u8; crc32 u32, family u32; value offset u32, two lengths u16;
//! payload, padded to 8 bytes. Bytes come from outside: parsing is total.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod encode;
mod walk;

use crate::cells::exemplar::EXEMPLAR_WORDS;
use crate::cells::histogram::BUCKET_WORDS;
pub(crate) use crate::keys::encode::{
    family_bytes, label_text, raw_values, series_bytes, string_bytes,
};
pub(crate) use crate::keys::walk::Walk;
use crate::layout::{LINE, STEP, wide};

/// Bytes in front of a payload.
pub(crate) const KEY_HEADER: usize = 24;
/// The longest key record: it must fit a step behind the sentinel.
pub(crate) const LONGEST_KEY: usize = STEP - LINE;
/// Separates raw label values and label names; UTF-8 never contains it.
pub(crate) const SEPARATOR: u8 = 0xFF;
/// Mode bit of a series that threads other than the owner write.
pub(crate) const FOREIGN: u8 = 0x80;

const FAMILY: u8 = 1;
const SERIES: u8 = 2;
const STRING: u8 = 3;

/// What the cells of a family are.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum CellKind {
    CounterU64,
    CounterF64,
    Gauge,
    Histogram,
    /// A histogram whose buckets have an exemplar each.
    ExemplarHistogram,
}

impl CellKind {
    const fn number(self) -> u8 {
        match self {
            Self::CounterU64 => 1,
            Self::CounterF64 => 2,
            Self::Gauge => 3,
            Self::Histogram => 4,
            Self::ExemplarHistogram => 5,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::CounterU64),
            2 => Some(Self::CounterF64),
            3 => Some(Self::Gauge),
            4 => Some(Self::Histogram),
            5 => Some(Self::ExemplarHistogram),
            _ => None,
        }
    }
}

/// How the gauges of several workers become one number.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub enum GaugeMode {
    /// The sum over slots with a living owner.
    #[default]
    LiveSum,
    /// The greatest of slots with a living owner; NaN only if all are.
    LiveMax,
    /// The least of slots with a living owner; NaN only if all are.
    LiveMin,
    /// The one set last, by the monotonic clock; survives its writer.
    Last,
    /// One series a slot with a living owner, label `worker="SLOT"`.
    PerWorker,
}

impl GaugeMode {
    const fn number(self) -> u8 {
        match self {
            Self::LiveSum => 0,
            Self::LiveMax => 1,
            Self::LiveMin => 2,
            Self::Last => 3,
            Self::PerWorker => 4,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::LiveSum),
            1 => Some(Self::LiveMax),
            2 => Some(Self::LiveMin),
            3 => Some(Self::Last),
            4 => Some(Self::PerWorker),
            _ => None,
        }
    }
}

/// A family as a program declares it.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(crate) struct Family<'a> {
    pub(crate) name: &'a str,
    pub(crate) help: &'a str,
    pub(crate) kind: CellKind,
    pub(crate) mode: GaugeMode,
    pub(crate) labels: &'a [&'a str],
    pub(crate) bounds: &'a [f64],
}

/// One record of the key region. What there are many of is borrowed: a reader has most of it already.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Key<'a> {
    Family(FamilyKey),
    Series(SeriesKey<'a>),
    String(&'a str),
}

/// A family as it stands in a file.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct FamilyKey {
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) kind: CellKind,
    pub(crate) mode: GaugeMode,
    pub(crate) labels: Vec<String>,
    pub(crate) bounds: Vec<f64>,
}

impl FamilyKey {
    pub(crate) fn is(&self, family: &Family<'_>) -> bool {
        self.name == family.name
            && self.help == family.help
            && (self.kind, self.mode) == (family.kind, family.mode)
            && self.labels == family.labels
            && self.bounds == family.bounds
    }

    /// Words of one series of this family.
    pub(crate) fn words(&self) -> usize {
        words_of(self.kind, self.mode, self.bounds.len())
    }
}

/// A series as it stands in a file.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(crate) struct SeriesKey<'a> {
    /// Offset of its family's record in the key region.
    pub(crate) family: u32,
    /// Offset of its cells in the value region.
    pub(crate) value: u32,
    pub(crate) foreign: bool,
    /// `name="value",…`, already escaped.
    pub(crate) labels: &'a str,
    /// The raw label values with separators between them.
    pub(crate) raw: &'a [u8],
}

/// Words that a series of this kind takes.
pub(crate) fn words_of(kind: CellKind, mode: GaugeMode, bounds: usize) -> usize {
    match (kind, mode) {
        (CellKind::Histogram, _) => bounds.saturating_add(1).saturating_mul(BUCKET_WORDS),
        (CellKind::ExemplarHistogram, _) => {
            bounds.saturating_add(1).saturating_mul(BUCKET_WORDS + EXEMPLAR_WORDS)
        }
        (CellKind::Gauge, GaugeMode::Last) => crate::cells::LAST_WORDS,
        (CellKind::Gauge | CellKind::CounterU64 | CellKind::CounterF64, _) => 1,
    }
}

/// The checksum of a record, its own place taken as zero. It covers the length, so no record reads as another.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..8).unwrap_or_default());
    hasher.update(&[0; 4]);
    hasher.update(bytes.get(12..).unwrap_or_default());
    hasher.finalize()
}

/// Why a key region cannot be read on.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Damaged {
    /// Offset in the key region.
    pub(crate) at: usize,
}

/// Reads one whole record; `None` if it is damaged.
pub(crate) fn parse(bytes: &[u8]) -> Option<Key<'_>> {
    let head: &[u8; KEY_HEADER] = bytes.first_chunk()?;
    let [_, _, _, _, kind, cells, mode, bounds, c0, c1, c2, c3, rest @ ..] = head;
    if checksum(bytes) != u32::from_ne_bytes([*c0, *c1, *c2, *c3]) {
        return None;
    }
    let [f0, f1, f2, f3, v0, v1, v2, v3, a0, a1, b0, b1] = rest;
    let family = u32::from_ne_bytes([*f0, *f1, *f2, *f3]);
    let value = u32::from_ne_bytes([*v0, *v1, *v2, *v3]);
    let first = usize::from(u16::from_ne_bytes([*a0, *a1]));
    let second = usize::from(u16::from_ne_bytes([*b0, *b1]));
    let payload = bytes.get(KEY_HEADER..)?;
    match *kind {
        FAMILY => family_key(payload, *cells, *mode, *bounds, (first, second, wide(value))),
        SERIES => {
            let (labels, rest) = payload.split_at_checked(first)?;
            let raw = rest.get(..second)?;
            let labels = std::str::from_utf8(labels).ok()?;
            Some(Key::Series(SeriesKey { family, value, foreign: *mode == FOREIGN, labels, raw }))
        }
        STRING => Some(Key::String(std::str::from_utf8(payload.get(..first)?).ok()?)),
        _ => None,
    }
}

fn family_key(
    payload: &[u8],
    cells: u8,
    mode: u8,
    bounds: u8,
    lengths: (usize, usize, usize),
) -> Option<Key<'static>> {
    let bounds_bytes = usize::from(bounds).checked_mul(8)?;
    let (bounds, rest) = payload.split_at_checked(bounds_bytes)?;
    let bounds = bounds.as_chunks::<8>().0.iter().map(|bytes| f64::from_ne_bytes(*bytes)).collect();
    let (name, rest) = rest.split_at_checked(lengths.0)?;
    let (help, rest) = rest.split_at_checked(lengths.1)?;
    let labels = rest.get(..lengths.2)?;
    let labels = labels.split(|byte| *byte == SEPARATOR).filter(|name| !name.is_empty());
    let labels = labels.map(|name| std::str::from_utf8(name).map(str::to_owned));
    Some(Key::Family(FamilyKey {
        name: std::str::from_utf8(name).ok()?.to_owned(),
        help: std::str::from_utf8(help).ok()?.to_owned(),
        kind: CellKind::from_number(cells)?,
        mode: GaugeMode::from_number(mode)?,
        labels: labels.collect::<Result<_, _>>().ok()?,
        bounds,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_family_reads_back() {
        let family = Family {
            name: "a_seconds",
            help: "Help.",
            kind: CellKind::Histogram,
            mode: GaugeMode::LiveSum,
            labels: &["x", "y"],
            bounds: &[0.1, 1.0],
        };
        let bytes = family_bytes(&family).unwrap();
        let Some(Key::Family(read)) = parse(&bytes) else { panic!() };
        assert!(read.is(&family));
        assert_eq!(read.words(), 9);
    }

    proptest! {
        #[test]
        fn a_series_reads_back_and_a_flipped_bit_is_seen(
            values in prop::collection::vec(".{0,40}", 1..4),
            at in any::<prop::sample::Index>(),
            flip in 1_u8..,
        ) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let (labels, raw) = (label_text(&["a", "b", "c"], &values), raw_values(&values));
            let series = SeriesKey {
                family: 64,
                value: 128,
                foreign: values.len() == 2,
                labels: &labels,
                raw: &raw,
            };
            let mut bytes = series_bytes(&series).unwrap();
            prop_assert_eq!(parse(&bytes), Some(Key::Series(series)));
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(parse(&bytes), None);
        }
    }
}

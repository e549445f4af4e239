//! From label values to cells, without a lock and without allocating once a label set is known.
//!
//! A table only grows; a larger one replaces it whole. The old ones stay allocated: together they are half of the last.

use std::hash::Hasher;
use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHasher;

use crate::keys::{Family, SEPARATOR, raw_values};
use crate::layout::{long, size};
use crate::metrics::places::HASH_SHIFT;
use crate::metrics::resolved::{Home, Place, Resolved};
use crate::metrics::static_ref::StaticRef;
use crate::record::encode::cut;
use crate::series::{LONGEST_VALUE, SERIES_LIMIT};

/// The label sets of one family that this process has used.
pub(crate) struct Table {
    home: StaticRef<Home>,
    nodes: StaticRef<Vec<StaticRef<Node>>>,
    grow: Mutex<usize>,
}

/// A label set, in 24 bytes if its values are short: there are thousands of them in each worker.
struct Node {
    /// Its place, and the upper bits of its hash.
    word: u64,
    raw: Raw,
}

/// Raw label values, with separators between them. Of the usual length they are one pointer away at most.
enum Raw {
    Short { length: u8, bytes: [u8; SHORT] },
    Usual { length: u8, bytes: Box<[u8; USUAL]> },
    // Twice: a slice would take the node beyond its size.
    Long(Box<Box<[u8]>>),
}

const SHORT: usize = 14;
const USUAL: usize = 56;
const _: () = assert!(size_of::<Node>() == 24);
/// Places of the largest table: a quarter of them is free when the family is full.
const MOST_PLACES: usize = (SERIES_LIMIT + 1) * 4 / 3 + 1;

impl Table {
    pub(crate) const fn new() -> Self {
        Self { home: StaticRef::empty(), nodes: StaticRef::empty(), grow: Mutex::new(0) }
    }

    pub(crate) fn clear(&self) {
        *self.grow.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        self.nodes.clear();
        self.home.clear();
    }

    /// The cells of a label set. `family` is asked once for each slot.
    #[inline]
    pub(crate) fn find<const N: usize>(
        &self,
        values: [&str; N],
        family: impl FnOnce() -> Family<'static>,
    ) -> Option<Resolved> {
        // As the file keeps them: else each longer text would be a node of its own for one series.
        let values = values.map(|value| cut(value, LONGEST_VALUE));
        let hash = hash(&values);
        let home = self.home.get().or_else(|| self.begin(family()))?;
        let known = self.nodes.get().and_then(|nodes| look_up(nodes, hash, &values));
        known.map(|place| home.at(place)).or_else(|| self.insert(home, hash, &values))
    }

    #[cold]
    fn begin(&self, family: Family<'static>) -> Option<&'static Home> {
        let home = Home::new(family)?;
        self.home.set(home); // or another thread's: they lead to the same cells
        Some(home)
    }

    #[cold]
    fn insert(&self, home: &'static Home, hash: u64, values: &[&str]) -> Option<Resolved> {
        let mut used = self.grow.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nodes) = self.nodes.get()
            && let Some(place) = look_up(nodes, hash, values)
        {
            return Some(home.at(place));
        }
        // The slot is asked also beyond the limit: an earlier owner may have made this very series.
        let resolved = home.find(values)?;
        let nodes = match self.nodes.get() {
            Some(nodes) if (*used + 1) * 4 <= nodes.len() * 3 => Some(nodes),
            smaller => self.grown(smaller),
        };
        if let (Some(nodes), Some(place)) = (nodes, resolved.place()) {
            let node = Node { word: place.with_hash(hash), raw: Raw::of(&raw_values(values)) };
            put(nodes, Box::leak(Box::new(node)));
            *used += 1;
        }
        Some(resolved)
    }

    /// A larger table; none beyond the largest, which no slot fills.
    fn grown(
        &self,
        smaller: Option<&'static Vec<StaticRef<Node>>>,
    ) -> Option<&'static Vec<StaticRef<Node>>> {
        let size = match smaller.map_or(0, Vec::len) {
            0 => 8,
            MOST_PLACES => return None,
            less => (less * 4).min(MOST_PLACES),
        };
        let nodes: &'static Vec<StaticRef<Node>> =
            Box::leak(Box::new((0..size).map(|_| StaticRef::empty()).collect()));
        for node in smaller.into_iter().flatten().filter_map(StaticRef::get) {
            put(nodes, node);
        }
        self.nodes.set(nodes);
        Some(nodes)
    }
}

impl Raw {
    fn of(raw: &[u8]) -> Self {
        match u8::try_from(raw.len()) {
            Ok(length) if raw.len() <= SHORT => Self::Short { length, bytes: filled(raw) },
            Ok(length) if raw.len() <= USUAL => {
                Self::Usual { length, bytes: Box::new(filled(raw)) }
            }
            _ => Self::Long(Box::new(Box::from(raw))),
        }
    }

    fn bytes(&self) -> &[u8] {
        let (bytes, length): (&[u8], u8) = match self {
            Self::Short { length, bytes } => (bytes, *length),
            Self::Usual { length, bytes } => (&**bytes, *length),
            Self::Long(bytes) => return bytes,
        };
        bytes.get(..usize::from(length)).unwrap_or_default()
    }
}

/// Bytes, and zeros behind them.
fn filled<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|at| bytes.get(at).copied().unwrap_or(0))
}

fn put(nodes: &[StaticRef<Node>], node: &'static Node) {
    let free = probe(nodes, node.word).find(|place| place.get().is_none());
    if let Some(place) = free {
        place.set(node);
    }
}

fn look_up(nodes: &[StaticRef<Node>], hash: u64, values: &[&str]) -> Option<Place> {
    for place in probe(nodes, hash) {
        let node = place.get()?;
        if node.word >> HASH_SHIFT == hash >> HASH_SHIFT && is_same(node.raw.bytes(), values) {
            return Some(Place::without_hash(node.word));
        }
    }
    None
}

/// The places where a hash may stand, in order: some of them are always free.
fn probe(nodes: &[StaticRef<Node>], hash: u64) -> impl Iterator<Item = &StaticRef<Node>> {
    let upper = hash >> HASH_SHIFT;
    let start = size((upper * long(nodes.len())) >> (u64::BITS - HASH_SHIFT));
    nodes[start..].iter().chain(&nodes[..start])
}

fn hash(values: &[&str]) -> u64 {
    let mut hasher = FxHasher::default();
    for value in values {
        hasher.write(value.as_bytes());
        hasher.write_u8(SEPARATOR);
    }
    // Its lower bits are the ones that depend on everything.
    hasher.finish() << HASH_SHIFT
}

/// Compares without building the raw form. Never trusts a hash: ("ab","c") and ("a","bc") are two label sets.
fn is_same(raw: &[u8], values: &[&str]) -> bool {
    let mut rest = raw;
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            match rest.split_first() {
                Some((&SEPARATOR, after)) => rest = after,
                _ => return false,
            }
        }
        match rest.strip_prefix(value.as_bytes()) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sets_are_compared_by_their_values() {
        assert!(is_same(b"ab\xffc", &["ab", "c"]));
        for other in [["a", "bc"], ["ab", ""], ["ab", "cd"], ["abc", ""]] {
            assert!(!is_same(b"ab\xffc", &other), "{other:?}");
        }
    }

    /// In 2^18 hashes some 600 label sets find two of one; both are counted, each as itself.
    #[test]
    fn label_sets_of_one_hash_are_told_apart() {
        static COLLIDING: crate::metrics::CounterVec<2> =
            crate::metrics::CounterVec::new("test_colliding_total", "Counts.", ["a", "b"]);
        let set = |number: u32| [format!("user {number}"), "200".to_owned()];
        let mut seen = std::collections::HashMap::new();
        let (first, second) = (0_u32..)
            .find_map(|number| {
                let [a, b] = set(number);
                Some((seen.insert(hash(&[&a, &b]) >> HASH_SHIFT, number)?, number))
            })
            .unwrap();
        COLLIDING.with(set(first)).inc();
        COLLIDING.with(set(second)).add(10);
        COLLIDING.with(set(first)).inc();
        let sum = |number| {
            crate::metrics::local().sum("test_colliding_total", &format!("a=\"user {number}\""))
        };
        assert_eq!([sum(first), sum(second)].map(f64::to_bits), [2.0, 10.0].map(f64::to_bits));
    }

    #[test]
    fn values_of_any_length_are_kept() {
        for length in 0..=600 {
            let raw = vec![7; length];
            assert_eq!(Raw::of(&raw).bytes(), raw);
        }
    }
}

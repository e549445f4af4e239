//! From label values to cells, without a lock and without allocating once a label set is known.
//!
//! A table only grows; a larger one replaces it whole. The old ones stay allocated, at most as much again as the last.

use std::hash::Hasher;
use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHasher;

use crate::keys::{Family, SEPARATOR, raw_values};
use crate::metrics::resolved::{Resolved, StaticRef};
use crate::record::encode::cut;
use crate::series::LONGEST_VALUE;

/// The label sets of one family that this process has used.
pub(crate) struct Table {
    current: StaticRef<Vec<StaticRef<Node>>>,
    overflow: StaticRef<Resolved>,
    grow: Mutex<usize>,
}

struct Node {
    hash: u64,
    raw: Box<[u8]>,
    resolved: Resolved,
}

impl Table {
    pub(crate) const fn new() -> Self {
        Self { current: StaticRef::empty(), overflow: StaticRef::empty(), grow: Mutex::new(0) }
    }

    pub(crate) fn clear(&self) {
        *self.grow.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        self.current.clear();
        self.overflow.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.current.get().is_none()
    }

    /// The cells of a label set. `family` is asked only for a new one.
    pub(crate) fn find<const N: usize>(
        &self,
        values: [&str; N],
        family: impl FnOnce() -> Family<'static>,
    ) -> Option<&'static Resolved> {
        // As the file keeps them: else each longer text would be a node of its own for one series.
        let values = values.map(|value| cut(value, LONGEST_VALUE));
        let hash = hash(&values);
        if let Some(nodes) = self.current.get()
            && let Some(node) = look_up(nodes, hash, &values)
        {
            return Some(&node.resolved);
        }
        self.insert(hash, &values, family())
    }

    #[cold]
    fn insert(
        &self,
        hash: u64,
        values: &[&str],
        family: Family<'static>,
    ) -> Option<&'static Resolved> {
        let mut used = self.grow.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nodes) = self.current.get()
            && let Some(node) = look_up(nodes, hash, values)
        {
            return Some(&node.resolved);
        }
        // The slot is asked also beyond the limit: an earlier owner may have made this very series.
        let resolved = Resolved::find(&family, values)?;
        if resolved.is_overflow() {
            return Some(self.overflow.get().unwrap_or_else(|| {
                let overflow = resolved.leak();
                self.overflow.set(overflow);
                overflow
            }));
        }
        let raw = raw_values(values).into_boxed_slice();
        let node: &'static Node = Box::leak(Box::new(Node { hash, raw, resolved }));
        let nodes = match self.current.get() {
            Some(nodes) if (*used + 1) * 2 <= nodes.len() => nodes,
            smaller => self.grown(smaller),
        };
        place(nodes, node);
        *used += 1;
        Some(&node.resolved)
    }

    fn grown(
        &self,
        smaller: Option<&'static Vec<StaticRef<Node>>>,
    ) -> &'static Vec<StaticRef<Node>> {
        let size = smaller.map_or(8, |nodes| nodes.len() * 2);
        let nodes: &'static Vec<StaticRef<Node>> =
            Box::leak(Box::new((0..size).map(|_| StaticRef::empty()).collect()));
        for node in smaller.into_iter().flatten().filter_map(StaticRef::get) {
            place(nodes, node);
        }
        self.current.set(nodes);
        nodes
    }
}

fn place(nodes: &[StaticRef<Node>], node: &'static Node) {
    let free = probe(nodes, node.hash).find(|place| place.get().is_none());
    if let Some(place) = free {
        place.set(node);
    }
}

fn look_up(nodes: &[StaticRef<Node>], hash: u64, values: &[&str]) -> Option<&'static Node> {
    for place in probe(nodes, hash) {
        let node = place.get()?;
        if node.hash == hash && is_same(&node.raw, values) {
            return Some(node);
        }
    }
    None
}

/// The places where a hash may stand, in order: half of them are always free.
fn probe(nodes: &[StaticRef<Node>], hash: u64) -> impl Iterator<Item = &StaticRef<Node>> {
    let start = crate::layout::size(hash >> 32) & (nodes.len() - 1);
    nodes[start..].iter().chain(&nodes[..start])
}

fn hash(values: &[&str]) -> u64 {
    let mut hasher = FxHasher::default();
    for value in values {
        hasher.write(value.as_bytes());
        hasher.write_u8(SEPARATOR);
    }
    hasher.finish()
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
}

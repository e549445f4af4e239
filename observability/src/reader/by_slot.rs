//! What one worker slot did and does: the same cells as the sums, before they are summed.

use crate::cells::histogram::{BUCKET_WORDS, Histogram};
use crate::closed::Role;
use crate::http_metrics::DURATION_BOUNDS;
use crate::in_flight::entry::InFlightEntry;
use crate::names;
use crate::reader::merge::Families;
use crate::reader::{Reader, procfs};
use crate::view::{Seen, View};

/// A worker slot at one moment. What is counted is counted since the epoch began, over all owners of the slot.
#[derive(Clone, PartialEq, Debug)]
pub struct SlotRead {
    /// Its number: the label `worker`.
    pub number: u32,
    /// What its header says of its owner.
    pub seen: Seen,
    /// Whether a process owns it.
    pub is_live: bool,
    /// Its finished requests, by duration.
    pub durations: Durations,
    /// Those of them that were answered with 500 or more.
    pub errors: u64,
    /// The requests being served, oldest first.
    pub in_flight: Vec<InFlightEntry>,
    /// CPU time of its owner, in seconds; none when that is gone.
    pub cpu_seconds: Option<f64>,
    /// Resident memory of its owner, in bytes.
    pub resident_bytes: Option<f64>,
}

/// Requests by duration: counts of the buckets of `http_server_request_duration_seconds`, `+Inf` last.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct Durations(pub [u64; DURATION_BOUNDS.len() + 1]);

impl Durations {
    /// Upper bounds of the buckets, in seconds; the last bucket has none.
    pub const BOUNDS: [f64; DURATION_BOUNDS.len()] = DURATION_BOUNDS;

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().copied().fold(0, u64::wrapping_add)
    }

    /// These and those.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|bucket| self.0[bucket].wrapping_add(other.0[bucket])))
    }

    /// What came since `earlier`. A slot whose cells are new has none of the earlier ones.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|bucket| self.0[bucket].saturating_sub(earlier.0[bucket])))
    }

    /// The duration that a share of them does not exceed, in seconds: as `histogram_quantile` of Prometheus, straight
    /// between the bounds of its bucket, and the last bound for what is above all. None without requests.
    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        reason = "a share of a count is for people"
    )]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count() as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (count, upper) in self.0.iter().zip(DURATION_BOUNDS) {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                return Some(lower + (upper - lower) * (rank - below).max(0.0) / count);
            }
            (below, lower) = (below + count, upper);
        }
        (self.count() > 0).then_some(lower)
    }
}

impl Reader {
    /// Every worker slot by its number, as the last [`Self::read`] found the files, with values of now. A file that is
    /// damaged says nothing.
    pub fn slots(&mut self) -> Vec<SlotRead> {
        let mut requests = requests(&self.families, &self.views).into_iter();
        let private = &mut self.families.private_memory;
        let mut slots = Vec::new();
        for view in &mut self.views {
            let (durations, errors) = requests.next().unwrap_or_default();
            if view.role != Role::Worker || view.check().is_err() {
                continue;
            }
            let (seen, is_live) = (view.seen(), view.is_live());
            let facts = if is_live { procfs::read(seen.pid, private) } else { None };
            slots.push(SlotRead {
                number: view.number,
                seen,
                is_live,
                durations,
                errors,
                in_flight: if is_live { view.in_flight() } else { Vec::new() },
                cpu_seconds: facts.as_ref().and_then(|facts| facts.cpu_seconds),
                resident_bytes: facts.as_ref().and_then(|facts| facts.resident_bytes),
            });
        }
        slots.sort_by_key(|slot| slot.number);
        slots
    }
}

/// Requests by duration, and errors, of each view.
fn requests(families: &Families, views: &[View]) -> Vec<(Durations, u64)> {
    let mut found = vec![(Durations::default(), 0_u64); views.len()];
    let family = families.list().iter().find(|family| {
        family.name == names::HTTP_SERVER_REQUEST_DURATION && family.bounds == DURATION_BOUNDS
    });
    for series in family.into_iter().flat_map(|family| &family.series) {
        let is_error = series.labels.contains(SERVER_ERROR);
        for source in &series.sources {
            let Some((view, of_view)) = views.get(source.view).zip(found.get_mut(source.view))
            else {
                continue;
            };
            let mut read = Durations::default();
            let words = view.map.words(source.offset, read.0.len() * BUCKET_WORDS);
            let Some(cells) = Histogram::of(words, read.0.len()) else { continue };
            cells.add_to(&mut read.0);
            of_view.0 = of_view.0.plus(&read);
            of_view.1 = of_view.1.wrapping_add(if is_error { read.count() } else { 0 });
        }
    }
    found
}

/// Quotes in label values are escaped: this stands in no route.
const SERVER_ERROR: &str = "http_response_status_code=\"5";

#[cfg(test)]
mod tests {
    use super::*;

    fn durations(counts: &[(usize, u64)]) -> Durations {
        let mut durations = Durations::default();
        for (bucket, count) in counts {
            durations.0[*bucket] = *count;
        }
        durations
    }

    #[test]
    fn a_quantile_lies_in_its_bucket_as_prometheus_has_it() {
        assert_eq!(Durations::default().quantile(0.5), None);
        let fast = durations(&[(0, 100)]);
        assert_eq!(fast.quantile(0.5), Some(0.0025));
        assert_eq!(fast.quantile(1.0), Some(0.005));
        let mixed = durations(&[(0, 90), (5, 10)]);
        assert_eq!(mixed.quantile(0.9), Some(0.005));
        let high = mixed.quantile(0.95).unwrap();
        assert!((high - 0.0875).abs() < 1e-12, "{high}");
        assert_eq!(durations(&[(14, 1)]).quantile(0.5), Some(10.0));
    }

    #[test]
    fn what_came_since_is_the_difference_and_new_cells_have_none() {
        let (before, now) = (durations(&[(0, 5), (3, 1)]), durations(&[(0, 7), (3, 1)]));
        assert_eq!(now.since(&before), durations(&[(0, 2)]));
        assert_eq!(before.since(&now), Durations::default());
        assert_eq!(before.plus(&now).count(), 14);
    }
}

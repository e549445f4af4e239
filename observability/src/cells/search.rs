//! Which bucket a number falls into, in a dozen instructions whatever the number is.
//!
//! The bits of a positive number, taken as an integer, order as the numbers do. Cut off below some bit they number the cells
//! of a grid that is fine enough for each cell to hold at most one bound: what is left is one look into a table and one
//! comparison. There is no branch on the number, or at most one on whether it lies beyond all bounds: where a value falls is
//! what no processor can guess, and a wrong guess costs more than the rest of an observation. Numbers below zero, and what is
//! no number, come out behind the last bucket, so that they cost the others nothing either.

use crate::layout::size;

/// Bounds of a histogram; with `+Inf` one more bucket.
pub(crate) const MOST_BOUNDS: usize = 64;

const CELLS: usize = 64;
/// Bits of a number behind its exponent: a grid has one cell for each power of two at least.
const MANTISSA: u32 = 52;
/// Finer than this 64 cells would not cover a single power of two.
const FINEST: u32 = MANTISSA - 6;

/// The bounds of a histogram, ready to be searched.
pub(crate) struct Search {
    /// The bounds, ascending, the rest infinite.
    bounds: [f64; MOST_BOUNDS],
    count: usize,
    /// None where no grid fits: bounds that are not positive, or near each other over many powers of two.
    pub(crate) grid: Option<Grid>,
}

/// A grid over positive bounds.
pub(crate) struct Grid {
    /// The bits of the number at which the first cell begins.
    base: u64,
    /// A cell has two to this many numbers.
    shift: u32,
    /// Of each cell, the bits of the bound in it; of one without a bound those of infinity. The last has none and goes on
    /// for ever.
    bound: [u64; CELLS + 1],
    /// Of each cell, how many bounds lie in those below it.
    below: [u8; CELLS + 1],
}

impl Search {
    /// Prepares bounds that ascend; more than [`MOST_BOUNDS`] no histogram has.
    pub(crate) const fn of(given: &[f64]) -> Self {
        let mut bounds = [f64::INFINITY; MOST_BOUNDS];
        let mut count = 0;
        while count < given.len() && count < MOST_BOUNDS {
            bounds[count] = given[count];
            count += 1;
        }
        let mut grid = None;
        let mut shift = MANTISSA;
        while shift >= FINEST && grid.is_none() && count > 0 && bounds[0] > 0.0 {
            grid = Grid::of(&bounds, count, shift);
            shift -= 1;
        }
        Self { bounds, count, grid }
    }

    /// The first bucket whose bound is not below a number, which is not NaN: bounds are inclusive.
    #[inline]
    pub(crate) fn bucket(&self, value: f64) -> usize {
        let by_grid = self.grid.as_ref().map(|grid| grid.bucket(value));
        by_grid.filter(|bucket| *bucket <= self.count).unwrap_or_else(|| {
            let bounds = self.bounds.iter().take(self.count);
            bounds.map(|bound| usize::from(value > *bound)).sum()
        })
    }
}

impl Grid {
    /// Everything falls into the first bucket: for who has no grid, and never asks.
    pub(crate) const NONE: Self =
        Self { base: 0, shift: MANTISSA, bound: [u64::MAX; CELLS + 1], below: [0; CELLS + 1] };

    /// A grid of this fineness, if no cell of it holds two bounds and there are enough cells.
    const fn of(bounds: &[f64], count: usize, shift: u32) -> Option<Self> {
        let infinity = f64::INFINITY.to_bits();
        let base = bounds[0].to_bits() >> shift << shift;
        let mut grid = Self { base, shift, bound: [infinity; CELLS + 1], below: [0; CELLS + 1] };
        let (mut at, mut next) = (0, 0);
        while at < count {
            let bits = bounds[at].to_bits();
            let cell = size((bits - base) >> shift);
            if cell < next || cell >= CELLS {
                return None;
            }
            grid.bound[cell] = bits;
            at += 1;
            next = cell + 1;
            let mut above = next;
            while above <= CELLS {
                grid.below[above] += 1;
                above += 1;
            }
        }
        Some(grid)
    }

    /// As [`Search::bucket`]; for a negative number and for NaN a bucket behind the last. In integers throughout: to go to and
    /// fro between the two kinds of registers costs more than the comparison.
    #[inline]
    pub(crate) fn bucket(&self, value: f64) -> usize {
        let bits = value.to_bits();
        // The bits of negative numbers and of NaN are above those of infinity: they fall into the last cell, behind its bound.
        let cell = size(bits.saturating_sub(self.base) >> self.shift).min(CELLS);
        usize::from(self.below[cell]) + usize::from(bits > self.bound[cell])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bounds: &[f64], values: impl Iterator<Item = f64>) {
        let search = Search::of(bounds);
        for value in values {
            let first = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
            assert_eq!(search.bucket(value), first, "{value} in {bounds:?}");
        }
        if let Some(grid) = search.grid {
            for value in [f64::NAN, -f64::NAN, -0.0, -1.0, f64::NEG_INFINITY] {
                assert!(grid.bucket(value) > bounds.len(), "{value} in {bounds:?}");
            }
        }
    }

    /// Bounds themselves, their neighbours, and the ends of all numbers.
    fn around(bounds: &[f64]) -> impl Iterator<Item = f64> {
        let near = bounds.iter().flat_map(|bound| [bound.next_down(), *bound, bound.next_up()]);
        let ends = [0.0, -0.0, 5e-324, -1.0, f64::MAX, f64::MIN, f64::INFINITY, f64::NEG_INFINITY];
        near.chain(ends)
    }

    #[test]
    fn a_number_falls_into_the_first_bucket_whose_bound_holds_it() {
        let usual = crate::http_metrics::DURATION_BOUNDS;
        assert!(Search::of(&usual).grid.is_some());
        for length in 0..=usual.len() {
            check(&usual[..length], around(&usual));
        }
        let tenths: Vec<f64> = (1..=10).map(|tenth| f64::from(tenth) / 10.0).collect();
        assert!(Search::of(&tenths).grid.is_some());
        for bounds in [
            &tenths[..],
            &[-1.0, 0.0, 1.0],
            &[-0.0, 1.0],
            &[1.0, 1.0_f64.next_up()],
            &[1e-300, 1e300],
        ] {
            check(bounds, around(bounds));
        }
    }

    proptest! {
        #[test]
        fn so_it_does_for_any_bounds_and_numbers(
            mut bounds in prop::collection::vec(prop_oneof![any::<f64>(), 1e-4..100_f64], 1..=MOST_BOUNDS),
            values in prop::collection::vec(prop_oneof![any::<f64>(), 1e-5..200_f64], 0..100),
        ) {
            bounds.retain(|bound| bound.is_finite());
            bounds.sort_by(f64::total_cmp);
            bounds.dedup();
            check(&bounds, values.into_iter().filter(|value| !value.is_nan()).chain(around(&bounds)));
        }
    }
}

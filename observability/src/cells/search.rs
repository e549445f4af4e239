//! Which bucket a number falls into, in a dozen instructions whatever the number is.
//!
//! The bits of a positive number, taken as an integer, order as the numbers do. Cut off below some bit they number the cells
//! of a grid that is fine enough for each cell to hold at most one bound: what is left is one look into a table and one
//! comparison. There is no branch on the number: where a value falls is what no processor can guess, and a wrong guess costs
//! more than the rest of an observation.

use std::hint::select_unpredictable;

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
    base: i64,
    /// A cell has two to this many numbers.
    shift: u32,
    /// Of each cell, the bits of the bound in it; of one without a bound those of infinity.
    bound: [i64; CELLS],
    /// Of each cell, how many bounds lie in those below it.
    below: [u8; CELLS],
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
        if let Some(grid) = &self.grid {
            return grid.bucket(value);
        }
        let bounds = self.bounds.iter().take(self.count);
        bounds.map(|bound| usize::from(value > *bound)).sum()
    }
}

impl Grid {
    /// Everything falls into the first bucket: for who has no grid, and never asks.
    pub(crate) const NONE: Self =
        Self { base: 0, shift: MANTISSA, bound: [i64::MAX; CELLS], below: [0; CELLS] };

    /// A grid of this fineness, if no cell of it holds two bounds and there are enough cells.
    const fn of(bounds: &[f64], count: usize, shift: u32) -> Option<Self> {
        let infinity = f64::INFINITY.to_bits().cast_signed();
        let base = bounds[0].to_bits().cast_signed() >> shift << shift;
        let mut grid = Self { base, shift, bound: [infinity; CELLS], below: [0; CELLS] };
        let (mut at, mut next) = (0, 0);
        while at < count {
            let bits = bounds[at].to_bits().cast_signed();
            let cell = size((bits - base).cast_unsigned() >> shift);
            if cell < next || cell >= CELLS {
                return None;
            }
            grid.bound[cell] = bits;
            at += 1;
            next = cell + 1;
            let mut above = next;
            while above < CELLS {
                grid.below[above] += 1;
                above += 1;
            }
        }
        Some(grid)
    }

    /// As [`Search::bucket`]. In integers throughout: to go to and fro between the two kinds of registers costs more than
    /// the comparison.
    #[inline]
    pub(crate) fn bucket(&self, value: f64) -> usize {
        let bits = value.to_bits().cast_signed();
        // Negative numbers have negative bits: they lie below the first cell as zero does.
        let above = select_unpredictable(bits > self.base, bits.wrapping_sub(self.base), 0);
        // The last cell goes on for ever.
        let cell = size(above.cast_unsigned() >> self.shift).min(CELLS - 1);
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

//! The table of figures: what, against what, its goal, and the median of what was measured.

/// A row: the ratio that is asked for, as a function of what a round measured.
pub(crate) struct Goal<R> {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) bound: Bound,
    pub(crate) ratio: fn(&R) -> f64,
}

#[derive(Copy, Clone)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// Prints one line a goal, and says whether all are kept. A ratio is formed inside a round; its median over the rounds counts.
pub(crate) fn print<R>(goals: &[Goal<R>], rounds: &[R]) -> bool {
    let mut is_met = true;
    for goal in goals {
        let median = median(rounds.iter().map(goal.ratio).collect());
        let (sign, bound, is_kept) = match goal.bound {
            Bound::AtMost(bound) => ('≤', bound, median <= bound),
            Bound::AtLeast(bound) => ('≥', bound, median >= bound),
        };
        is_met &= is_kept;
        let verdict = if is_kept { "met" } else { "MISSED" };
        println!("{:<4} {:<72} {sign} {bound:>6.2} {median:>9.2}  {verdict}", goal.id, goal.what);
    }
    is_met
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

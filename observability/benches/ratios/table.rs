//! The table of figures: what, against what, its goal, and the median of what was measured.

/// A row: the ratio that is asked for, as a function of what a round measured.
pub(crate) struct Goal<R> {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) bound: Bound,
    pub(crate) ratio: fn(&R) -> f64,
    /// What the machine allows, where that is less than the goal: then this is what is asked for.
    pub(crate) limit: Option<fn(&R) -> f64>,
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
        let over_rounds = |ratio: fn(&R) -> f64| median(rounds.iter().map(ratio).collect());
        let measured = over_rounds(goal.ratio);
        let limit = goal.limit.map(over_rounds);
        let (sign, bound, is_kept) = match goal.bound {
            Bound::AtMost(bound) => {
                ('≤', bound, measured <= limit.map_or(bound, |limit| limit.max(bound)))
            }
            Bound::AtLeast(bound) => {
                ('≥', bound, measured >= limit.map_or(bound, |limit| limit.min(bound)))
            }
        };
        is_met &= is_kept;
        let verdict = if is_kept { "met" } else { "MISSED" };
        let limit = limit.map_or(String::new(), |limit| format!("  (limit here: {limit:.2})"));
        println!(
            "{:<4} {:<72} {sign} {bound:>6.2} {measured:>9.2}  {verdict}{limit}",
            goal.id, goal.what
        );
    }
    is_met
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

//! The table of figures: what, against what, its goal, the median of what was measured, and where a goal compares with what
//! another crate's atomics cost, the best that this processor allows.

/// A row: the ratio that is asked for, as a function of what a round measured.
pub(crate) struct Goal<R> {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) bound: Bound,
    pub(crate) ratio: fn(&R) -> f64,
    /// The best that could be measured here, by whatever code: from nothing but the stores that the operation must make.
    pub(crate) possible: Option<fn(&R) -> f64>,
}

#[derive(Copy, Clone)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// Prints one line a goal, and says whether all are kept that can be. A ratio is formed inside a round; its median over the
/// rounds counts.
pub(crate) fn print<R>(goals: &[Goal<R>], rounds: &[R]) -> bool {
    let mut is_met = true;
    for goal in goals {
        let over_rounds = |ratio: fn(&R) -> f64| median(rounds.iter().map(ratio).collect());
        let measured = over_rounds(goal.ratio);
        let possible = goal.possible.map(over_rounds);
        let verdict = if goal.bound.is_kept(measured) {
            "met"
        } else if possible.is_some_and(|possible| !goal.bound.is_kept(possible)) {
            "not possible here"
        } else {
            is_met = false;
            "MISSED"
        };
        let possible = possible.map_or(String::new(), |possible| format!("{possible:.2}"));
        let Goal { id, what, bound, .. } = goal;
        println!("{id:<4} {what:<64} {bound} {measured:>9.2} {possible:>9}  {verdict}");
    }
    is_met
}

impl Bound {
    fn is_kept(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "≤ {bound:>6.2}"),
            Self::AtLeast(bound) => write!(f, "≥ {bound:>6.2}"),
        }
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

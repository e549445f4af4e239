//! Goals and what became of them.

use serde::Deserialize;

use crate::rounds::{SetResult, Spread};

#[derive(Debug, Deserialize)]
struct File {
    goal: Vec<Goal>,
}

/// A goal for one ratio.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Goal {
    pub(crate) id: String,
    pub(crate) of: String,
    pub(crate) against: String,
    pub(crate) measure: String,
    pub(crate) goal: f64,
    pub(crate) floor: Option<f64>,
}

/// What a run says about a goal.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// The control shows that the run cannot tell.
    Undecided,
    Skipped,
}

impl Verdict {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Undecided => "undecided",
            Self::Skipped => "skipped",
        }
    }
}

pub(crate) fn all() -> anyhow::Result<Vec<Goal>> {
    Ok(toml::from_str::<File>(include_str!("../goals.toml"))?.goal)
}

impl Goal {
    /// More is better for throughput, less for everything else.
    pub(crate) fn sign(&self) -> &'static str {
        if self.measure == "T" { "≥" } else { "≤" }
    }

    fn holds(&self, value: f64, bound: f64) -> bool {
        if self.measure == "T" { value >= bound } else { value <= bound }
    }

    /// The verdict, what was measured, and whether the floor was kept.
    pub(crate) fn judge(&self, sets: &[SetResult]) -> (Verdict, Option<Spread>, bool) {
        // Saola against itself is measured best beside its own control.
        let found = sets.iter().rev().find_map(|set| {
            let ratios = set.ratios(&self.of, &self.against, &self.measure)?;
            Some((set, Spread::of(ratios)))
        });
        let Some((set, spread)) = found else { return (Verdict::Skipped, None, true) };
        let keeps_floor = self.floor.is_none_or(|floor| self.holds(spread.median, floor));
        let is_noisy = set.control(&self.measure).is_none_or(|control| {
            let width = match self.measure.as_str() {
                "T" => 0.05,
                "L99" => 0.1,
                _ => 0.03,
            };
            (control.median - 1.0).abs() > width
        });
        let verdict = match (is_noisy, self.holds(spread.median, self.goal)) {
            (true, _) => Verdict::Undecided,
            (false, true) => Verdict::Met,
            (false, false) => Verdict::Missed,
        };
        (verdict, Some(spread), keeps_floor || is_noisy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_floor_is_better_than_its_goal() {
        for goal in all().unwrap() {
            if let Some(floor) = goal.floor {
                assert!(goal.holds(goal.goal, floor), "{goal:?}");
            }
        }
    }
}

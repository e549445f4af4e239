//! A kill storm is a few lines and a count (S74).

use std::time::{Duration, Instant};

/// At most ten lines in a second; the others are counted (S74).
#[derive(Debug, Default)]
pub(super) struct Storm {
    since: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl Storm {
    /// The number of deaths without a line before this one, or nothing if this one has none.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now - since >= Duration::from_secs(1)) {
            self.since = Some(now);
            self.lines = 0;
        }
        self.lines += 1;
        if self.lines > 10 {
            self.suppressed += 1;
            return None;
        }
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_deaths_is_ten_lines_a_second_and_a_count() {
        let start = Instant::now();
        let mut storm = Storm::default();
        let told = (0..100).filter(|_| storm.admit(start).is_some()).count();
        assert_eq!(told, 10);
        assert_eq!(storm.admit(start + Duration::from_secs(1)), Some(90));
    }
}

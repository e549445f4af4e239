//! What `saola log` could not show because the server was faster (O77).

use std::time::{Duration, Instant};

/// What one look at the rings went past.
#[derive(Copy, Clone, Default, Debug)]
pub(super) struct Passed {
    /// Records that were read.
    pub(super) records: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Bytes that were written over before they were read.
    pub(super) left_out: u64,
}

/// The account of what was left out, told once a second.
#[derive(Default, Debug)]
pub(super) struct Skipped {
    read: Passed,
    untold: u64,
    told: Option<Instant>,
}

impl Skipped {
    pub(super) fn add(&mut self, passed: Passed) {
        self.read.records += passed.records;
        self.read.bytes += passed.bytes;
        self.untold += passed.left_out;
    }

    /// The line that says how many, if one is due: at the latest when it gets quiet. Nothing counts records that are gone;
    /// they are taken to be as long as those that were read.
    pub(super) fn note(&mut self, now: Instant, is_quiet: bool) -> Option<String> {
        let is_due = is_quiet || self.told.is_none_or(|told| now - told >= TELL_EVERY);
        if self.untold == 0 || !is_due {
            return None;
        }
        self.told = Some(now);
        let bytes = std::mem::take(&mut self.untold);
        let each = self.read.bytes.checked_div(self.read.records).unwrap_or(USUAL_BYTES);
        let records = bytes.checked_div(each).unwrap_or(1).max(1);
        Some(format!(
            "… about {records} records skipped: they came faster than they could be shown\n"
        ))
    }
}

const TELL_EVERY: Duration = Duration::from_secs(1);
/// Of a request.
const USUAL_BYTES: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_once_a_second_and_when_it_gets_quiet() {
        let start = Instant::now();
        let mut skipped = Skipped::default();
        assert_eq!(skipped.note(start, true), None);
        skipped.add(Passed { records: 10, bytes: 2_000, left_out: 0 });
        assert_eq!(skipped.note(start, true), None);
        skipped.add(Passed { records: 0, bytes: 0, left_out: 6_000 });
        let told = skipped.note(start, false).unwrap();
        assert!(told.starts_with("… about 30 records skipped"), "{told}");
        for _ in 0..4 {
            skipped.add(Passed { records: 0, bytes: 0, left_out: 1_000 });
            assert_eq!(skipped.note(start + TELL_EVERY / 2, false), None);
        }
        let told = skipped.note(start + TELL_EVERY, false).unwrap();
        assert!(told.starts_with("… about 20 records skipped"), "{told}");
        skipped.add(Passed { records: 0, bytes: 0, left_out: 1 });
        assert!(skipped.note(start + TELL_EVERY, true).unwrap().starts_with("… about 1 records"));
    }
}

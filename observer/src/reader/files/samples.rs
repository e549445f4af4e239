//! Reading on in the sample ring of a slot: from the cursor in its file, so that no other observer reads a sample again.

use saola_observability::rings::Slot;
use saola_observability::samples::Found;

use crate::profile::Profiles;

/// Reads on in the sample ring of a slot.
pub(super) fn read(slot: &mut Slot, profiles: &mut Profiles) {
    let (there, read) = (slot.samples(), slot.samples_read());
    if read == there.end {
        return;
    }
    // A cursor beyond the head is none of ours.
    let first = if read > there.end { there.start } else { read.max(there.start) };
    Profiles::overwritten(first.saturating_sub(read));
    let mut next = first;
    while next < there.end {
        match slot.sample(next) {
            Found::Sample(sample) => {
                let route =
                    if sample.route == 0 { String::new() } else { slot.string(sample.route) };
                profiles.sample(slot.number(), &route, &sample);
            }
            // A handler is writing it at this moment; a dead one never will, and neither may one hold up the rest.
            Found::Unfinished if slot.is_live() && there.end - next < UNFINISHED => break,
            Found::Unfinished => {}
            Found::Overwritten => Profiles::overwritten(1),
        }
        next += 1;
    }
    slot.commit_samples(next);
}

/// Entries that one unfinished sample may hold up.
const UNFINISHED: u64 = 64;

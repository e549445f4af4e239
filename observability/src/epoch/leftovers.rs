//! Epochs that a dead supervisor left: finished first, then deleted (F10).

use std::path::{Path, PathBuf};

use crate::clock::monotonic_ns;
use crate::closed::{LostReason, Role, SlotState};
use crate::epoch::burial::{Death, bury};
use crate::epoch::{Buried, Epoch};
use crate::epoch_files::{epochs, open_new, remove_epoch};
use crate::ring::{Ring, RingName};
use crate::slot::Slot;
use crate::view::View;

/// How long a leftover epoch may take to be finished: its workers may still be draining.
const LONGEST_NS: u64 = 60_000_000_000;

/// What [`Epoch::finish_leftovers`] has done.
#[derive(Clone, PartialEq, Debug)]
pub struct Finished {
    /// Requests that died with workers of an earlier server, told this time: each is recorded and counted as lost.
    pub lost: Buried,
    /// Leftover epochs that are not finished yet; call again in a second.
    pub left: usize,
}

impl Epoch {
    /// Deletes the epochs that others left, unread, by their own names only and never through a link.
    pub fn remove_leftovers(&self) {
        for (_, path) in self.leftovers() {
            remove_epoch(&path);
        }
    }

    /// Finishes the epochs that others left, as far as it can be done now: a slot whose worker is gone is buried with
    /// [`LostReason::Supervisor`], and an epoch whose slots are all buried and whose rings the observer has read to the end
    /// ([`crate::rings::leftovers`]) is deleted. After a minute it is deleted in any case. One of another boot or format
    /// is deleted at once. Call it after [`Epoch::publish`], and once a second while anything is left.
    pub fn finish_leftovers(&self) -> Finished {
        let is_late = monotonic_ns().saturating_sub(self.begun_ns) > LONGEST_NS;
        let mut finished = Finished { lost: Buried::default(), left: 0 };
        for (number, path) in self.leftovers() {
            let is_done = finish(self.supervisor, &path, number, &mut finished.lost);
            if is_done || is_late {
                remove_epoch(&path);
            } else {
                finished.left += 1;
            }
        }
        finished
    }

    fn leftovers(&self) -> Vec<(u64, PathBuf)> {
        let others = epochs(&self.run_dir).into_iter();
        others.filter(|(number, _)| *number != self.number).collect()
    }
}

/// Buries what can be buried; `true` when nothing of the epoch is used or unread.
fn finish(supervisor: &'static Slot, path: &Path, number: u64, lost: &mut Buried) -> bool {
    let Ok((views, _)) = open_new(path, number, true, |_, _| false) else { return true };
    let mut is_done = true;
    for mut view in views {
        if crate::lock::is_held(&view.file) {
            is_done = false;
            continue;
        }
        let seen = view.seen();
        if view.role == Role::Worker && seen.state != SlotState::Free {
            let reason = LostReason::Supervisor;
            let death = Death { pid: seen.pid, signal: None, exit_code: None, reason };
            let buried = bury(supervisor, view.number, &mut view, &death);
            lost.lost.extend(buried.lost);
            lost.unknown = lost.unknown.saturating_add(buried.unknown);
        }
        is_done &= is_read(&view);
    }
    is_done
}

fn is_read(view: &View) -> bool {
    [RingName::Owner, RingName::Shared]
        .map(|name| Ring::new(&view.sections, name))
        .iter()
        .all(|ring| ring.is_read(&view.map))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_directories_with_the_name_of_an_epoch_are_epochs() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        for name in ["epoch-000003", "epoch-000001", "epoch-12", "epoch-00000x", "other"] {
            fs::create_dir(inside(name)).unwrap();
        }
        std::os::unix::fs::symlink("other", inside("epoch-000002")).unwrap();
        fs::write(inside("epoch-000004"), "").unwrap();
        let expected = [(1, inside("epoch-000001")), (3, inside("epoch-000003"))];
        assert_eq!(epochs(folder.path()), expected);
    }
}

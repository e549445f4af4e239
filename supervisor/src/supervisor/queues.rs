//! Accept queues: which of them a worker is born with, and what becomes of one that nobody accepts from any more.

use nix::errno::Errno;

use super::Supervisor;
use crate::descriptors::errno_of;
use crate::lifecycle::event::SlotNumber;
use crate::listeners::Listener;

impl Supervisor<'_> {
    /// Copies for a worker of `generation`, which it owns after the fork.
    pub(super) fn share_listeners(
        &mut self,
        slot: SlotNumber,
        generation: u64,
    ) -> Result<Vec<Listener>, Errno> {
        let queue = self.life.queue_of(slot);
        let coming = self.coming.as_mut().filter(|coming| coming.generation == generation);
        let (bind, fresh) = match coming {
            Some(coming) => (Some(&coming.settings.bind), coming.fresh.as_mut_slice()),
            None => (None, [].as_mut_slice()),
        };
        let stays = self
            .listeners
            .iter_mut()
            .filter(|kept| bind.is_none_or(|bind| bind.contains(&kept.bind)));
        stays.chain(fresh).map(|kept| kept.share(queue).map_err(|error| errno_of(&error))).collect()
    }

    /// Gives queues that have lost their worker for good to another one, which serves who waits in them and closes them.
    pub(super) fn settle_queues(&mut self) {
        let held = self.life.held_queues();
        let fresh = self.coming.iter_mut().flat_map(|coming| &mut coming.fresh);
        for kept in self.listeners.iter_mut().chain(fresh) {
            self.abandoned.extend(kept.give_up(&held));
        }
        if self.abandoned.is_empty() {
            return;
        }
        let stand_in = self.life.stand_in().and_then(|slot| self.workers.get(&slot));
        // Without one they wait for the next event, which may bring one.
        let Some(line) = stand_in.and_then(|worker| worker.line.as_ref()) else { return };
        self.abandoned.retain(|socket| line.hand_over(socket).is_err());
    }
}

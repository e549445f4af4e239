//! The rules that hold after every step (S7).

use std::time::Duration;

use super::super::Phase;
use super::super::event::Notice;
use super::super::pace::DEATHS_PER_WORKER;
use super::super::place::State;
use super::{Nature, World};

impl World {
    pub(super) fn hear(&mut self, notice: &Notice) {
        match notice {
            Notice::Degraded { .. } => {
                assert!(!self.is_degraded, "degraded twice");
                self.is_degraded = true;
            }
            Notice::Recovered { .. } => self.is_degraded = false,
            Notice::Reloading { .. } => self.reloads += 1,
            Notice::Upgrading { .. } => self.upgrades += 1,
            Notice::Upgraded { .. }
            | Notice::UpgradeFailed { .. }
            | Notice::UpgradeRolledBack { .. } => self.upgrades -= 1,
            // The successor, and those after it that cannot boot.
            Notice::RecycleGranted { .. } => self.asked += 1,
            Notice::Reloaded { .. } | Notice::ReloadFailed { .. } => self.reloads -= 1,
            Notice::WorkerStuck { slot, beat_age, .. } => {
                let worker = &self.workers[&slot.0];
                assert!(
                    matches!(worker.nature, Nature::Hangs | Nature::Frozen),
                    "a healthy one is called stuck"
                );
                assert!(*beat_age >= self.limits.timeout && !self.limits.timeout.is_zero());
            }
            Notice::Started { .. }
            | Notice::Stopping { .. }
            | Notice::Stopped { .. }
            | Notice::WorkerReady { .. }
            | Notice::ForkFailed { .. }
            | Notice::WorkerSlow { .. }
            | Notice::Probation { .. }
            | Notice::Damaged(_)
            | Notice::WorkersChanged { .. }
            | Notice::ChangeRefused { .. }
            | Notice::Paused(_)
            | Notice::RecycleHeld { .. }
            | Notice::GivenUp { .. }
            | Notice::Resumed(_)
            | Notice::ObserverDied { .. }
            | Notice::ObserverForkFailed { .. } => {}
        }
    }

    pub(super) fn check(&mut self) {
        assert!((0..=1).contains(&self.reloads), "each reload has one end");
        assert!((0..=1).contains(&self.upgrades), "each upgrade has one end");
        assert!(self.life.workers() >= 1 && self.life.workers() <= self.most_workers);
        if let Some(since) = self.stopped_at {
            let limits = &self.limits;
            let bound = limits.pre_stop_delay
                + limits.graceful_timeout
                + limits.abort_grace
                + Duration::from_secs(3);
            // 100 ms: what the pretended kernel takes to let the killed die.
            assert!(
                self.now - since <= bound + Duration::from_millis(100),
                "the stop takes too long"
            );
        }
        let mut old: Vec<u64> = self
            .workers
            .values()
            .filter(|worker| {
                worker.generation != self.life.generation()
                    && !self.life.is_coming(worker.generation)
                    && !worker.is_killed
            })
            .map(|worker| worker.generation)
            .collect();
        old.sort_unstable();
        old.dedup();
        let allowed = usize::try_from(self.limits.max_old_generations).unwrap();
        assert!(old.len() <= allowed, "old generations pile up: {old:?}");
        if !self.is_stopping() && self.exit.is_none() && self.now > self.start {
            let kept = self.life.members(self.life.generation);
            let is_full = self.life.places.iter().all(|place| place.state != State::Empty);
            // Whoever is forked between two programs would run the wrong one.
            let is_failed =
                matches!(self.life.phase, Phase::Stopping(_)) || self.life.is_between_images();
            assert!(
                kept == self.life.target || is_full || is_failed,
                "workers + due respawns = configured"
            );
        }
        let mut members: Vec<_> = self
            .life
            .places
            .iter()
            .filter(|place| place.is_member)
            .map(|place| (place.generation, place.queue))
            .collect();
        members.sort_unstable();
        assert!(members.is_sorted_by(|a, b| a < b), "two members have one queue: {members:?}");
        self.check_queues();
        self.forks.retain(|&at| self.now - at < Duration::from_mins(1));
        let per_slot = 1 + u64::try_from(DEATHS_PER_WORKER).unwrap() + 6;
        let bound = u64::from(self.most_workers) * per_slot + self.asked;
        assert!(u64::try_from(self.forks.len()).unwrap() <= bound, "forks are not bounded");
    }
    /// Where each worker has a queue of its own, none is held by workers that accept nobody.
    fn check_queues(&self) {
        let is_open = self.limits.reuse_port && matches!(self.life.phase, Phase::Running);
        for queue in self.life.held_queues().into_iter().filter(|_| is_open && !self.life.is_paused)
        {
            let holders = (0..).zip(&self.life.places).filter(|(_, place)| place.queue == queue);
            let mut accepting = holders.filter(|(slot, place)| match place.state {
                State::Ready { .. } | State::Standby => self.workers[slot].accepts,
                // Its successor comes.
                State::Waiting { .. } | State::Booting { .. } | State::Aborting { .. } => true,
                State::Draining { .. } => place.is_member,
                State::Empty => false,
            });
            assert!(accepting.next().is_some(), "nobody accepts from {queue:?}");
        }
    }
}

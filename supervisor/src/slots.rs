//! The slots as the supervisor uses them: handed out, watched, and emptied after a death (F12, F13, F43).

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use saola_observability::clock::monotonic_ns;
use saola_observability::{
    Buried, Chosen, Death, Epoch, InFlightEntry, LostReason, Role, RunDir, Seen, Shape, Slot,
    SlotError, SlotFiles,
};

use crate::Settings;
use crate::error::Error;
use crate::identity::Identity;
use crate::lifecycle::cause::Status;
use crate::lifecycle::event::{Damaged, SlotNumber};
use crate::process::Reaped;

/// The run directory, locked, with the files of this server's life.
pub(crate) struct Slots {
    dir: RunDir,
    epoch: Epoch,
    /// Who the children are, if they are somebody else.
    identity: Option<Identity>,
    /// Something of an earlier server is still to be told or read (F10).
    has_leftovers: bool,
}

impl Slots {
    /// Takes the run directory. The lock is taken before anything else is touched, so that a loser changes nothing (S62).
    pub(crate) fn choose(settings: &Settings) -> Result<Chosen, Error> {
        if let Some(identity) = &settings.identity {
            settings.run_dir.candidates().iter().for_each(|folder| identity.take_back(folder));
        }
        let mut chosen = RunDir::choose(&settings.run_dir)?;
        chosen.dir.lock(settings.version)?;
        Ok(chosen)
    }

    /// Makes a new epoch, and then takes away what an earlier server has left.
    pub(crate) fn create(
        dir: RunDir,
        shape: Shape,
        identity: Option<Identity>,
    ) -> Result<Self, Error> {
        let epoch = Epoch::create(&dir, shape)?;
        epoch.publish()?;
        let mut slots = Self { dir, epoch, identity, has_leftovers: true };
        slots.give_away().map_err(Error::Ownership)?;
        slots.finish_leftovers();
        Ok(slots)
    }

    /// Goes on with the run directory and the files of the image before this one.
    pub(crate) fn adopt(path: &Path, lock: OwnedFd, settings: &Settings) -> Result<Self, Error> {
        let dir = RunDir::adopt(path, lock, settings.version)?;
        let epoch = Epoch::adopt(&dir, settings.run_dir.shape)?;
        Ok(Self { dir, epoch, identity: settings.identity.clone(), has_leftovers: true })
    }

    /// What keeps the run directory taken, for the next image.
    pub(crate) fn lock(&self) -> Option<BorrowedFd<'_>> {
        self.dir.lock_descriptor()
    }

    /// Reports what died with an earlier server, and deletes what nobody needs any more.
    pub(crate) fn finish_leftovers(&mut self) {
        if self.has_leftovers {
            self.has_leftovers = self.epoch.finish_leftovers().left > 0;
        }
    }

    /// Makes a new epoch, because a file of this one was damaged: all count from zero together (F9). The old one is a leftover
    /// now, like one of a server before this.
    pub(crate) fn renew(&mut self, shape: Shape) -> Result<(), SlotError> {
        let epoch = Epoch::create(&self.dir, shape)?;
        epoch.publish()?;
        self.epoch = epoch;
        self.has_leftovers = true;
        // Made by us a moment ago; without it only metrics would be missing.
        let _not_ours = self.give_away();
        Ok(())
    }

    /// A file that somebody else has touched. Nobody may own its slot now, and still no sum is whole without it.
    pub(crate) fn damaged(&self) -> Option<Damaged> {
        self.epoch.damaged().map(|(role, number)| match role {
            Role::Worker => Damaged::Slot(SlotNumber(number)),
            Role::Supervisor => Damaged::Supervisor,
            Role::Observer => Damaged::Observer,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The supervisor's own.
    pub(crate) fn own(&self) -> &'static Slot {
        self.epoch.supervisor()
    }

    pub(crate) fn open_worker(
        &mut self,
        slot: SlotNumber,
        generation: u64,
    ) -> Result<SlotFiles, SlotError> {
        let files = self.epoch.open_worker(slot.0, generation)?;
        // It may be a new one. A worker has it open, and only metrics would miss it.
        let _not_ours = self.give_away();
        Ok(files)
    }

    /// What the children open by its path belongs to them.
    fn give_away(&self) -> std::io::Result<()> {
        self.identity.as_ref().map_or(Ok(()), |identity| identity.own(self.dir.path()))
    }

    pub(crate) fn open_observer(&self) -> Result<SlotFiles, SlotError> {
        self.epoch.open_observer()
    }

    /// Reports what died with the worker; afterwards the slot is free.
    pub(crate) fn bury(&mut self, slot: SlotNumber, reaped: Reaped, reason: LostReason) -> Buried {
        let (signal, exit_code) = match reaped.status {
            Status::Exited(code) => (None, Some(code)),
            Status::Signaled { signal, .. } => (Some(signal), None),
        };
        self.epoch.bury(slot.0, &Death { pid: reaped.pid, signal, exit_code, reason })
    }

    /// Gives back a slot that nobody came to live in.
    pub(crate) fn release(&mut self, slot: SlotNumber) {
        let nobody = Reaped {
            pid: 0,
            status: Status::Exited(0),
            max_rss_bytes: 0,
            cpu_time: Duration::ZERO,
        };
        self.bury(slot, nobody, LostReason::Crash);
    }

    /// How long ago the worker has beaten last. One that never did is as old as the machine; its READY bounds that.
    pub(crate) fn beat_age(&self, slot: SlotNumber) -> Duration {
        self.epoch.seen(slot.0).map_or(Duration::ZERO, |seen| since(seen.heartbeat_ns))
    }

    /// What a slot's header says; none if it was never used.
    pub(crate) fn seen(&self, slot: SlotNumber) -> Option<Seen> {
        self.epoch.seen(slot.0)
    }

    /// Where the control socket belongs.
    pub(crate) fn control_socket(&self) -> std::path::PathBuf {
        self.dir.control_socket()
    }

    pub(crate) fn observer_beat_age(&self) -> Duration {
        since(self.epoch.observer_seen().heartbeat_ns)
    }

    /// The supervisor's own beat (S1).
    pub(crate) fn beat(&self) {
        self.own().liveness().beat(monotonic_ns());
    }

    /// What a worker is busy with, oldest first.
    pub(crate) fn in_flight(&mut self, slot: SlotNumber) -> Vec<InFlightEntry> {
        self.epoch.in_flight(slot.0)
    }

    /// The end of the server's life (F11).
    pub(crate) fn remove(self) {
        self.epoch.remove_leftovers();
        self.epoch.remove();
        self.dir.release();
    }
}

fn since(beat_ns: u64) -> Duration {
    Duration::from_nanos(monotonic_ns().saturating_sub(beat_ns))
}

//! New settings: read and bound beside the old ones, then taken or forgotten as a whole (S45-S47).

use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};

use super::Supervisor;
use crate::events;
use crate::lifecycle::event::Event;
use crate::listeners::{self, Kept, ListenError};
use crate::{AdminBind, Exit, Reread, Settings};

/// What a coming generation runs with.
pub(super) struct Coming {
    pub(super) generation: u64,
    pub(super) settings: Settings,
    /// Sockets that it adds.
    pub(super) fresh: Vec<Kept>,
    /// The admin listener, if it is another one.
    admin: Admin,
    observer_changed: bool,
}

/// What becomes of the admin listener.
enum Admin {
    Stays,
    Changes(Kept),
    Ends,
}

impl Supervisor<'_> {
    /// Reads the settings of a new generation and binds what they add.
    pub(super) fn configure(&mut self, generation: u64) {
        let prepared = if self.programs.before.is_some() {
            self.prepare_upgrade(generation)
        } else {
            self.prepare(generation)
        };
        let prepared = prepared.and_then(|coming| self.renew_slots().map(|()| coming));
        let event = match prepared {
            Ok(coming) => {
                let limits = coming.settings.limits();
                self.coming = Some(coming);
                Event::Configured { generation, limits }
            }
            Err((exit, text)) => Event::Misconfigured { generation, exit, text },
        };
        self.queue.push_back(event);
    }

    /// Files that somebody has damaged are left behind with the generation that counts in them.
    fn renew_slots(&mut self) -> Result<(), (Exit, String)> {
        if !self.is_damaged {
            return Ok(());
        }
        let renewed = self.slots.renew(self.settings.run_dir.shape);
        renewed.map_err(|error| (Exit::RunDir, error.to_string()))?;
        self.is_damaged = false;
        self.events.count_in(self.slots.own());
        events::resume(&self.life.picture(Instant::now()));
        // It reads the files that were; the next one reads them to their end, and the new ones.
        self.queue.push_back(Event::ObserverChanged);
        Ok(())
    }

    /// What was prepared holds now. Sockets that are gone from the settings are emptied first: the old workers are still
    /// accepting, and drain next.
    pub(super) fn promote(&mut self, generation: u64) {
        let Some(coming) = self.coming.take_if(|coming| coming.generation == generation) else {
            return;
        };
        let Coming { settings, fresh, admin, observer_changed, .. } = coming;
        let is_kept = |kept: &Kept| settings.bind.contains(&kept.bind);
        let (kept, removed): (Vec<_>, Vec<_>) = self.listeners.drain(..).partition(is_kept);
        self.listeners = kept;
        self.listeners.extend(fresh);
        empty(&removed);
        self.admin_bind = settings.admin_bind.clone();
        self.settings = settings;
        self.hook_program.change(self.settings.hook.clone());
        self.events.adopt(&self.settings);
        self.children.settle(generation);
        let replaces_admin = !matches!(admin, Admin::Stays);
        match admin {
            Admin::Stays => {}
            Admin::Changes(kept) => self.admin = Some(kept),
            Admin::Ends => self.admin = None,
        }
        if observer_changed || replaces_admin {
            self.queue.push_back(Event::ObserverChanged);
        }
        if !removed.is_empty() || replaces_admin {
            self.announce();
        }
    }

    /// What was prepared never holds.
    pub(super) fn discard(&mut self, generation: u64) {
        if self.coming.take_if(|coming| coming.generation == generation).is_some() {
            let serving = self.life.generation();
            self.children.settle(serving);
        }
    }

    fn prepare(&mut self, generation: u64) -> Result<Coming, (Exit, String)> {
        let Reread { settings, observer_changed } = self
            .children
            .reread(generation)
            .map_err(|mistakes| (Exit::Usage, mistakes.join("; ")))?;
        let fixed = self.settings.fixed_differences(&settings);
        if !fixed.is_empty() {
            let text = format!("{} changed: needs an upgrade or restart", fixed.join(", "));
            self.discard_read();
            return Err((Exit::Usage, text));
        }
        let bound = self.bind_new(&settings);
        let (fresh, admin) = bound.map_err(|error| {
            self.discard_read();
            let text = error.to_string();
            (crate::error::Error::Listen(error).exit(), text)
        })?;
        Ok(Coming { generation, settings, fresh, admin, observer_changed })
    }

    /// The settings were read when this program began; the sockets are those of the program before it.
    fn prepare_upgrade(&mut self, generation: u64) -> Result<Coming, (Exit, String)> {
        let settings = self.settings.clone();
        let (fresh, admin) = self.bind_new(&settings).map_err(|error| {
            let text = error.to_string();
            (crate::error::Error::Listen(error).exit(), text)
        })?;
        // It is being replaced already, because the program is another one.
        Ok(Coming { generation, settings, fresh, admin, observer_changed: false })
    }

    fn discard_read(&mut self) {
        let serving = self.life.generation();
        self.children.settle(serving);
    }

    fn bind_new(&self, settings: &Settings) -> Result<(Vec<Kept>, Admin), ListenError> {
        let mut fresh = Vec::new();
        for bind in &settings.bind {
            if !self.listeners.iter().any(|kept| kept.bind == *bind) {
                fresh.extend(listeners::bind_now(bind, &settings.bind, settings.waiting())?);
            }
        }
        if settings.admin_bind == self.admin_bind {
            return Ok((fresh, Admin::Stays));
        }
        let admin = match &settings.admin_bind {
            AdminBind::Off => None,
            AdminBind::Given(bind) => {
                listeners::bind_now(bind, &[], settings.waiting_alone())?.into_iter().next()
            }
            // That the default is taken is no reason to refuse.
            AdminBind::Default => {
                listeners::bind_now(&AdminBind::fallback(), &[], settings.waiting_alone())
                    .ok()
                    .and_then(|kept| kept.into_iter().next())
            }
        };
        Ok((fresh, admin.map_or(Admin::Ends, Admin::Changes)))
    }
}

/// Lets nobody new in, and waits a moment for those who are in the queue to be accepted.
fn empty(removed: &[Kept]) {
    removed.iter().for_each(Kept::turn_away);
    let end = Instant::now() + LONGEST_BLOCK;
    while removed.iter().any(|kept| kept.queue_length().is_some_and(|waiting| waiting > 0))
        && Instant::now() < end
    {
        let _a_millisecond = poll(&mut [], PollTimeout::from(1u8));
    }
}

/// The loop blocks for no longer (S1).
const LONGEST_BLOCK: Duration = Duration::from_millis(10);

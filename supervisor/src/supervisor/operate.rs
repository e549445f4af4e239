//! What operators ask by the control socket, turned into the same events as signals; and what they are told.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Supervisor;
use crate::control::{Asked, Request};
use crate::lifecycle::asked::{Origin, Stop};
use crate::lifecycle::event::{Answer, Event, Notice, SlotNumber};
use crate::lifecycle::picture::Change;
use crate::listeners::Kept;

impl Supervisor<'_> {
    pub(super) fn listen_to_operators(&mut self) {
        let Some(control) = &mut self.control else { return };
        let (asked, intruders) = control.read(Instant::now());
        let voice = self.voice();
        for intruder in intruders {
            self.events.control_refused(intruder.uid, intruder.pid, voice);
        }
        for asked in asked {
            self.serve_operator(asked);
        }
    }

    pub(super) fn reply(&mut self, client: crate::lifecycle::asked::Client, answer: &Answer) {
        if let Some(control) = &mut self.control {
            control.reply(client, answer);
        }
    }

    /// Feeds the watchdog and tells the state, from the loop itself.
    pub(super) fn tell_the_manager(&mut self) {
        let now = Instant::now();
        let picture = self.life.picture(now);
        let status = format!(
            "{}/{} workers, generation {}{}",
            picture.ready,
            picture.workers,
            picture.generation,
            if picture.is_degraded { ", degraded" } else { "" }
        );
        let is_slow = picture.phase != "running" || picture.change.is_some();
        self.notify.turn(&status, is_slow, now);
    }

    fn notify(&self, notice: &Notice) {
        match notice {
            // Also when it fails: the old generation is as ready as before.
            Notice::Started { .. }
            | Notice::Reloaded { .. }
            | Notice::ReloadFailed { .. }
            | Notice::Upgraded { .. }
            | Notice::UpgradeFailed { .. }
            | Notice::UpgradeRolledBack { .. } => {
                self.notify.ready();
            }
            Notice::Reloading { .. } | Notice::Upgrading { .. } => self.notify.reloading(),
            Notice::Stopping { .. } => self.notify.stopping(),
            _ => {}
        }
    }

    /// Keeps what `status` tells of the past.
    pub(super) fn remember(&mut self, notice: &Notice) {
        self.notify(notice);
        self.tell_hooks(notice);
        match notice {
            Notice::Reloaded { generation, .. } => self.last_reload = Some(past(Ok(*generation))),
            Notice::ReloadFailed { stage, text, .. } => {
                self.last_reload = Some(past(Err(text.as_deref().unwrap_or(stage))));
            }
            Notice::Upgraded { generation, .. } => {
                self.last_upgrade = Some(past(Ok(*generation)));
            }
            Notice::UpgradeFailed { failure, .. } | Notice::UpgradeRolledBack { failure, .. } => {
                self.last_upgrade = Some(past(Err(&failure.why())));
            }
            _ => {}
        }
    }

    fn serve_operator(&mut self, asked: Asked) {
        let Asked { client, pid, uid, request } = asked;
        let from = |signal| Origin { signal, pid, uid, client: Some(client) };
        match request {
            Request::Status => {
                let facts = self.status();
                if let Some(control) = &mut self.control {
                    control.answer(client, facts);
                }
            }
            Request::Reload { .. } => self.tell(Event::Reload(from("reload"))),
            Request::Upgrade { path, .. } => self.tell(Event::Upgrade(path, from("upgrade"))),
            Request::Stop { quick } => {
                let how = if quick { Stop::Quick } else { Stop::Graceful };
                self.tell(Event::Stop(how, from("stop")));
            }
            Request::Workers(scale) => self.tell(Event::Scale(scale, from("workers"))),
            Request::Retire(slot) => self.tell(Event::Retire(SlotNumber(slot), from("retire"))),
            Request::Pause => self.tell(Event::Pause(from("pause"))),
            Request::Resume => self.tell(Event::Resume(from("resume"))),
            Request::Dump(slot) => {
                let answer = self.dump(slot.map(SlotNumber));
                self.reply(client, &answer);
            }
        }
    }

    fn status(&mut self) -> Value {
        let picture = self.life.picture(Instant::now());
        let slots: Vec<Value> = picture
            .slots
            .iter()
            .map(|slot| {
                let seen = self.slots.seen(slot.slot);
                let worker = self.workers.get(&slot.slot);
                json!({
                    "slot": slot.slot.0,
                    "pid": worker.map(|worker| worker.process.pid()),
                    "generation": slot.generation,
                    "state": slot.state,
                    "age_ms": millis(slot.age),
                    "beat_age_ms": millis(self.slots.beat_age(slot.slot)),
                    "births": seen.map(|seen| seen.births),
                    "connections": seen.map(|seen| seen.connections),
                    "accepted": seen.map(|seen| seen.accepted),
                    "in_flight": self.slots.in_flight(slot.slot).len(),
                    "private_bytes": worker.and_then(|worker| worker.process.private_bytes()),
                })
            })
            .collect();
        let listeners: Vec<Value> = self.listeners.iter().map(Kept::describe).collect();
        json!({
            "version": self.settings.version,
            "name": self.settings.name,
            "pid": std::process::id(),
            "phase": picture.phase,
            "generation": picture.generation,
            "workers": {"configured": picture.workers, "ready": picture.ready},
            "paused": picture.is_paused,
            "degraded": picture.is_degraded,
            "reloading": picture.change == Some(Change::Reload),
            "listeners": listeners,
            "admin": self.admin.as_ref().map(|kept| kept.address.clone()),
            "observer": self.observer.as_ref().map(|observer| json!({
                "pid": observer.process.pid(),
                "beat_age_ms": millis(self.slots.observer_beat_age()),
            })),
            "upgrading": picture.change == Some(Change::Upgrade),
            "program": self.programs.own.path,
            "last_reload": self.last_reload,
            "last_upgrade": self.last_upgrade,
            "slots": slots,
        })
    }
}

/// How the last of its kind ended.
fn past(result: Result<u64, &str>) -> Value {
    let at = saola_observability::clock::wall_ns();
    match result {
        Ok(generation) => {
            json!({"at_unix_ns": at, "result": "success", "generation": generation})
        }
        Err(cause) => json!({"at_unix_ns": at, "result": "error", "cause": cause}),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

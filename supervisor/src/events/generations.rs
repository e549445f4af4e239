//! Generations that come, and those that were given up.

use saola_observability::{Level, Value};

use super::fields::{millis, origin};
use super::{Events, Voice, metrics};
use crate::lifecycle::event::Notice;
use crate::lifecycle::failure::Failure;

impl Events {
    pub(super) fn reload(&mut self, notice: &Notice, voice: Voice) {
        match notice {
            Notice::Reloading { generation, from } => {
                let mut fields = vec![("generation", Value::U64(*generation))];
                fields.extend(origin(from));
                self.line(voice, Level::Info, "reloading", &fields);
            }
            Notice::Reloaded { generation, workers, duration } => {
                metrics::RELOADS.with(["success"]).inc();
                show(*generation);
                let fields = [
                    ("generation", Value::U64(*generation)),
                    ("workers", Value::U64((*workers).into())),
                    ("version", Value::Str(self.version)),
                    ("duration_ms", millis(*duration)),
                ];
                self.line(voice, Level::Info, "reloaded", &fields);
            }
            Notice::ReloadFailed { generation, stage, text, duration } => {
                metrics::RELOADS.with(["error"]).inc();
                let mut fields = vec![
                    ("generation", Value::U64(*generation)),
                    ("stage", Value::Str(stage)),
                    ("duration_ms", millis(*duration)),
                ];
                if let Some(text) = text {
                    fields.push(("error", Value::Str(text)));
                }
                self.line(voice, Level::Error, "reload failed", &fields);
            }
            _ => {}
        }
    }

    /// The steps of an upgrade; `versions` are those that it goes from and to.
    pub(crate) fn upgrade(&mut self, notice: &Notice, (from, to): (&str, &str), voice: Voice) {
        let mut fields = vec![("from", Value::Str(from)), ("to", Value::Str(to))];
        let failed =
            |failure: &Failure| (failure.stage.clone(), failure.text.clone().unwrap_or_default());
        let (stage, error);
        let (level, message) = match notice {
            Notice::Upgrading { from } => {
                fields.truncate(1);
                fields.extend(origin(from));
                (Level::Info, "upgrading")
            }
            Notice::Upgraded { generation, workers, duration } => {
                metrics::UPGRADES.with(["success"]).inc();
                fields.push(("generation", Value::U64(*generation)));
                fields.push(("workers", Value::U64((*workers).into())));
                fields.push(("duration_ms", millis(*duration)));
                (Level::Info, "upgraded")
            }
            Notice::UpgradeFailed { failure, duration }
            | Notice::UpgradeRolledBack { failure, duration } => {
                metrics::UPGRADES.with(["error"]).inc();
                (stage, error) = failed(failure);
                fields.push(("stage", Value::Str(&stage)));
                fields.push(("duration_ms", millis(*duration)));
                fields.push(("error", Value::Str(&error)));
                let is_back = matches!(notice, Notice::UpgradeRolledBack { .. });
                (Level::Error, if is_back { "upgrade rolled back" } else { "upgrade failed" })
            }
            _ => return,
        };
        self.line(voice, level, message, &fields);
    }
}

/// A gauge is a float; a generation number stays exact in one for longer than anybody reloads.
pub(super) fn show(generation: u64) {
    metrics::GENERATION.set(u32::try_from(generation).unwrap_or(u32::MAX).into());
}

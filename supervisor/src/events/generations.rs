//! Generations that come, and those that were given up.

use saola_observability::{Level, Value};

use super::fields::{millis, origin};
use super::{Events, Voice, metrics};
use crate::lifecycle::event::Notice;

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
                // A gauge is a float; a generation number stays exact in one for longer than anybody reloads.
                let shown = u32::try_from(*generation).unwrap_or(u32::MAX);
                metrics::GENERATION.set(shown.into());
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
}

//! The observer's own lines: events in its own ring, which come out like everybody else's.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use saola_observability::closed::Level;
use saola_observability::record::Value;

type Say = dyn Fn(Level, &str, &[(&str, Value<'_>)]);

/// Says things to whoever reads the log.
#[derive(Clone)]
pub(crate) struct Voice {
    say: Rc<Say>,
}

impl Voice {
    pub(crate) fn new(say: impl Fn(Level, &str, &[(&str, Value<'_>)]) + 'static) -> Self {
        Self { say: Rc::new(say) }
    }

    pub(crate) fn say(&self, level: Level, message: &str, fields: &[(&str, Value<'_>)]) {
        (self.say)(level, message, fields);
    }
}

impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Voice")
    }
}

/// Lets something be said once, and again when it is still true after a while.
#[derive(Clone, Default, Debug)]
pub(crate) struct Reminder {
    said: Cell<Option<Instant>>,
}

impl Reminder {
    pub(crate) fn is_due(&self, now: Instant, every: Duration) -> bool {
        if self.said.get().is_some_and(|said| now.saturating_duration_since(said) < every) {
            return false;
        }
        self.said.set(Some(now));
        true
    }
}

//! Facts as fields of a line.

use std::time::Duration;

use saola_observability::Value;

use crate::lifecycle::asked::Origin;
use crate::lifecycle::cause::Status;
use crate::lifecycle::event::SlotNumber;

pub(super) type Field<'a> = (&'a str, Value<'a>);

/// The name of a signal, or an exit status.
pub(super) enum Ended {
    Signal(String),
    Status(i64),
}

impl Ended {
    pub(super) fn field(&self) -> Field<'_> {
        match self {
            Self::Signal(name) => ("signal", Value::Str(name)),
            Self::Status(code) => ("status", Value::I64(*code)),
        }
    }
}

pub(super) fn ended(status: Status) -> Ended {
    match status {
        Status::Exited(code) => Ended::Status(code.into()),
        Status::Signaled { signal, .. } => {
            let known = nix::sys::signal::Signal::try_from(signal);
            Ended::Signal(
                known.map_or_else(|_| format!("SIG{signal}"), |signal| signal.as_str().to_owned()),
            )
        }
    }
}

pub(super) fn slot_field(slot: SlotNumber) -> Field<'static> {
    ("slot", Value::U64(slot.0.into()))
}

pub(super) fn millis(duration: Duration) -> Value<'static> {
    Value::U64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn origin(from: &Origin) -> [Field<'static>; 3] {
    [
        (if from.client.is_some() { "command" } else { "signal" }, Value::Str(from.signal)),
        ("from_pid", Value::U64(from.pid.into())),
        ("from_uid", Value::U64(from.uid.into())),
    ]
}

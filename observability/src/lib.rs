//! Slot files: what the three kinds of process of Saola share.
//!
//! Each worker slot has one file in memory. One process writes it with plain stores; anybody of the same user reads it
//! without asking; a kill at any instruction leaves a file that is valid and exact. `docs/slot-file.md` describes the layout
//! for tools in other languages.
//!
//! # What a crash leaves
//!
//! | written | after `kill -9` at any instruction | cost for the thread that serves |
//! |---|---|---|
//! | counter | every `inc` that returned is counted | a load and a store |
//! | histogram | `_count` is the sum of the buckets; an observation is there whole or not at all | four stores |
//! | gauge | gone with its worker; of mode `Last` it keeps the last value, whole | a store; `Last`: a compare-and-swap |
//! | exemplar | whole or absent | six stores |
//! | request | started = finished + lost + in flight, once the supervisor has buried the worker | some 60 stores, no system call |
//! | record | there whole, exactly when its counters are | part of the request |
//!
//! Other threads of the process count in cells of their own with atomic operations. Nothing that is known allocates.
//! Times are nanoseconds in the API and seconds in metrics; sizes are bytes.
//!
//! # Not promised
//!
//! Anything over a power loss or a new boot: the files are of one boot. That a histogram's sum and its buckets are of one
//! moment while it is observed without a pause: then the sum may be of some observations more or less. The order of records
//! of two slots. Orders for ARM64 are modelled (`tests/models`) and not measured.
//!
//! # Longer tests
//!
//! `SAOLA_LONG=1` takes ten times as many random deaths and damaged files, 10⁶ label values, 10⁷ writes beside a reader, and
//! looks at every change of the file inside an operation, a take-over and a burial. `SAOLA_CRASH_ROUNDS` (default 100),
//! `SAOLA_FLIPS` (100,000) and `SAOLA_WRITES` (300,000) set one of these alone. There is no cargo-fuzz target, which asks for a
//! nightly compiler: property tests run over the same inputs.

#![deny(missing_docs)]

mod barrier;
mod bell;
mod bus;
mod cells;
pub mod clock;
pub mod closed;
mod common;
mod epoch;
mod epoch_files;
pub mod exposition;
mod futex;
mod header;
mod http_metrics;
pub mod ids;
pub mod in_flight;
mod keys;
mod layout;
mod lock;
mod map;
pub mod metrics;
pub mod names;
mod numbers;
mod owner;
mod process;
pub mod profile;
#[cfg(feature = "prometheus")]
pub mod prometheus;
pub mod reader;
pub mod record;
pub mod records;
mod redo;
mod ring;
pub mod rings;
pub mod run_dir;
pub mod samples;
pub mod scraper;
mod series;
mod slot;
mod sync;
mod view;

pub use crate::closed::{
    Level, LostReason, Method, Outcome, Phase, Protocol, Role, Sampling, SlotState, SpanKind,
    SpanStatus,
};
pub use crate::common::Common;
pub use crate::epoch::{Buried, Death, Epoch, Finished};
pub use crate::header::WhyBad;
pub use crate::ids::{SpanId, TraceId};
pub use crate::in_flight::entry::InFlightEntry;
pub use crate::in_flight::{Begin, Detail, End, InFlight, Request};
pub use crate::layout::Shape;
pub use crate::record::encode::{Event, Panic, Span};
pub use crate::record::{Kind, Record, Value};
pub use crate::records::Records;
pub use crate::ring::{Entry, RingName, Stage};
pub use crate::run_dir::{Choice, Chosen, RunDir, RunDirError};
pub use crate::slot::{Liveness, Slot, SlotError, SlotFiles};
pub use crate::view::Seen;

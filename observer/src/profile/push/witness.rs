//! What the `pyroscope` crate says only as log messages: whether a push was taken. Pinned to version 2.1 by a test.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};

use saola_observability::closed::Level;

use crate::lost::LostSamples;
use crate::{bridge, metrics};

/// Hears of each push, in the order in which they were handed over.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// Weights of the windows whose fate is open.
    open: Mutex<VecDeque<u64>>,
    /// The server answered the push under way with an error.
    is_refused: AtomicBool,
    last_error: Mutex<Option<String>>,
    /// When the last push was taken, wall clock nanoseconds; 0 before the first.
    last_push_ns: AtomicU64,
    is_last_handed_over: AtomicBool,
}

impl Witness {
    /// The one that the process's logger tells. An application that set a logger before the fork keeps it: then no push is
    /// counted.
    pub(crate) fn listen() -> Arc<Self> {
        static HEARING: OnceLock<Arc<Witness>> = OnceLock::new();
        let witness = HEARING.get_or_init(|| {
            let witness = Arc::new(Self::default());
            if log::set_boxed_logger(Box::new(Ear(Arc::clone(&witness)))).is_ok() {
                log::set_max_level(LevelFilter::Trace);
            }
            witness
        });
        Arc::clone(witness)
    }

    /// A window of this weight is on its way.
    pub(super) fn hand_over(&self, weight: u64) {
        self.open().push_back(weight);
    }

    /// Nothing more is coming.
    pub(super) fn all_handed_over(&self) {
        self.is_last_handed_over.store(true, Release);
    }

    /// Whether the last window too has met its fate.
    pub(crate) fn is_done(&self) -> bool {
        self.is_last_handed_over.load(Acquire) && self.open().is_empty()
    }

    /// The weights of windows that are under way still: what a stop loses.
    pub(crate) fn give_up(&self) -> u64 {
        self.open().drain(..).sum()
    }

    /// Why the last push failed, if it did.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When a push was taken last, wall clock nanoseconds.
    pub(crate) fn last_push_ns(&self) -> Option<u64> {
        Some(self.last_push_ns.load(Relaxed)).filter(|at| *at > 0)
    }

    fn open(&self) -> std::sync::MutexGuard<'_, VecDeque<u64>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a message says of a push; false if it says nothing of one.
    fn hear(&self, message: &str) -> bool {
        if message.starts_with(REFUSED) {
            // "Sent" follows all the same.
            self.is_refused.store(true, Relaxed);
            self.fail(message);
        } else if message.starts_with(FAILED) {
            self.fail(message);
            self.settle(false);
        } else if message.starts_with(SENT) {
            self.settle(!self.is_refused.swap(false, Relaxed));
        } else {
            return false;
        }
        true
    }

    fn fail(&self, message: &str) {
        let text = message.split_at(message.floor_char_boundary(ERROR_BYTES)).0.to_owned();
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    fn settle(&self, is_taken: bool) {
        let weight = self.open().pop_front().unwrap_or(0);
        metrics::profile_pushed(is_taken);
        if is_taken {
            self.last_push_ns.store(saola_observability::clock::wall_ns(), Relaxed);
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
        } else {
            metrics::samples_dropped(LostSamples::PushFailed, weight);
        }
    }
}

struct Ear(Arc<Witness>);

impl Log for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_of_client(metadata) || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        if is_of_client(record.metadata()) && self.0.hear(&text) {
            return;
        }
        let level = match record.level() {
            log::Level::Error => Level::Error,
            log::Level::Warn => Level::Warn,
            log::Level::Info | log::Level::Debug | log::Level::Trace => return,
        };
        bridge::hear(level, record.target(), &text);
    }

    fn flush(&self) {}
}

fn is_of_client(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("pyroscope") || metadata.target().starts_with("Pyroscope")
}

const SENT: &str = "SessionManager - Session sent";
const FAILED: &str = "SessionManager - Failed to send session";
const REFUSED: &str = "Sending Session failed";
const ERROR_BYTES: usize = 256;

//! Metrics as statics: declared where they are counted, registered at their first use, kept in the slot file.
//!
//! ```
//! use saola_observability::metrics::{Counter, CounterVec, Gauge, Histogram};
//!
//! static CHECKOUTS: CounterVec<1> = CounterVec::new("order_checkouts_total", "Checkouts started.", ["item"]);
//! static QUEUE: Gauge = Gauge::new("mail_queue_length", "Mails waiting.");
//! static RENDER: Histogram = Histogram::new("report_render_seconds", "Time to render a report.", &[0.01, 0.1, 1.0]);
//!
//! CHECKOUTS.with(["laptop"]).inc();
//! QUEUE.set(3.0);
//! RENDER.observe(0.02);
//! ```
//!
//! An update never fails its caller and never waits for a reader. On the thread that serves it is a plain store into mapped
//! memory; on any other thread an atomic one. What was counted before a `kill -9` is counted.
//!
//! What is wrong with a declaration is said by the compiler, never by a server that runs. None of these compiles:
//!
//! ```compile_fail
//! # use saola_observability::metrics::Counter;
//! static X: Counter = Counter::new("a", "Help."); // counter without _total
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::Gauge;
//! static X: Gauge = Gauge::new("a_total", "Help."); // gauge with _total
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::Gauge;
//! static X: Gauge = Gauge::new("a_count", "Help."); // suffix of the exposition
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::Gauge;
//! static X: Gauge = Gauge::new("A", "Help."); // capital
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::Histogram;
//! static X: Histogram = Histogram::new("a_ms", "Help.", &[1.0]); // unit
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::Counter;
//! static X: Counter = Counter::new("a_kb_total", "Help."); // unit before _total
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::Gauge;
//! static X: Gauge = Gauge::new("a", "Help"); // help without a full stop
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::Gauge;
//! static X: Gauge = Gauge::new("a", ""); // no help
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::Histogram;
//! static X: Histogram = Histogram::new("a", "Help.", &[2.0, 1.0]); // bounds descend
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::Histogram;
//! static X: Histogram = Histogram::new("a", "Help.", &[]); // no bounds
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::Histogram;
//! static X: Histogram = Histogram::new("a", "Help.", &[f64::INFINITY]); // infinite bound
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::CounterVec;
//! static X: CounterVec<1> = CounterVec::new("a_total", "Help.", ["le"]); // label le
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::CounterVec;
//! static X: CounterVec<1> = CounterVec::new("a_total", "Help.", ["worker"]); // label worker
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::CounterVec;
//! static X: CounterVec<2> = CounterVec::new("a_total", "Help.", ["x", "x"]); // label twice
//! ```
//! ```compile_fail
//! # use saola_observability::metrics::CounterVec;
//! static X: CounterVec<1> = CounterVec::new("a_total", "Help.", ["__x"]); // label with __
//! ```

mod check;
mod counter;
mod gauge;
mod histogram;
mod places;
mod resolved;
mod static_ref;
mod table;

use std::cell::Cell;
use std::sync::{Mutex, OnceLock, PoisonError};

pub use counter::{Counter, CounterHandle, CounterVec, Number};
pub use gauge::{Gauge, GaugeHandle, GaugeVec};
pub use histogram::{Histogram, HistogramHandle, HistogramVec, Timer};

pub use crate::keys::GaugeMode;
use crate::layout::FILE_BYTES;
use crate::metrics::static_ref::StaticRef;
use crate::slot::Slot;

/// A static metric.
pub trait Metric: Sync + sealed::Sealed {
    /// Makes the metric appear at 0 now, instead of at its first use. A metric with labels appears with its overflow series.
    fn init(&'static self);
}

/// Makes many metrics appear at 0 now: a counter that begins at 1 hides its first event from a rate.
///
/// ```
/// use saola_observability::metrics::{self, Counter, Gauge, Metric};
///
/// static SENT: Counter = Counter::new("mail_sent_total", "Mails sent.");
/// static QUEUE: Gauge = Gauge::new("mail_queue_length", "Mails waiting.");
///
/// let all: [&'static dyn Metric; 2] = [&SENT, &QUEUE];
/// metrics::register(&all);
/// ```
pub fn register(metrics: &[&'static dyn Metric]) {
    for metric in metrics {
        metric.init();
    }
}

pub(crate) mod sealed {
    /// Keeps the set of metric kinds closed.
    #[expect(unnameable_types, reason = "the seal of `Metric`: to be seen, not to be named")]
    pub trait Sealed {
        /// Forgets the cells of an earlier slot.
        fn unbind(&self);
    }
}

/// The slot of this process, once it has one.
static ATTACHED: StaticRef<Slot> = StaticRef::empty();
/// Where a process without a slot counts: tests and tools.
static LOCAL: OnceLock<Option<&'static Slot>> = OnceLock::new();
/// Every metric that holds cells.
static USED: Mutex<Vec<&'static (dyn sealed::Sealed + Sync)>> = Mutex::new(Vec::new());

/// Where no slot begins: a program's memory is in the lower half of the addresses.
const NOBODY: usize = 1 << (usize::BITS - 1);

thread_local! {
    /// Where the slot begins in memory that this thread may update with plain stores.
    static OWN: Cell<usize> = const { Cell::new(NOBODY) };
}

/// From now on the metrics of this process count in `slot`, and the calling thread is its owner.
///
/// Cells of an earlier slot are forgotten first: after a fork they would be the parent's.
pub(crate) fn bind(slot: &'static Slot) {
    for metric in USED.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        metric.unbind();
    }
    ATTACHED.set(slot);
    OWN.set(slot.map.start());
}

/// Says whether the calling thread owns the slot that a cell is in, by its place: mappings of slots stay for the life of the
/// process, and all have one length.
#[inline]
pub(crate) fn is_own<T>(cell: *const T) -> bool {
    cell.addr().wrapping_sub(OWN.get()) < FILE_BYTES
}

/// The slot that this process has taken over, if any.
pub(crate) fn attached() -> Option<&'static Slot> {
    ATTACHED.get()
}

pub(crate) fn current() -> Option<&'static Slot> {
    ATTACHED.get().or_else(|| {
        // Made by whichever thread counts first; nobody owns it, so all updates there are atomic.
        *LOCAL.get_or_init(|| Slot::ownerless().ok())
    })
}

pub(crate) fn remember(metric: &'static (dyn sealed::Sealed + Sync)) {
    let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
    // A metric that finds no space is asked again and again, and two threads may find one at once.
    if !used.iter().any(|other| std::ptr::addr_eq(*other, metric)) {
        used.push(metric);
    }
}

/// A reader of what this process has counted while it had no slot: for unit tests of code that counts.
///
/// ```
/// use saola_observability::metrics::{self, Counter};
///
/// static SENT: Counter = Counter::new("mail_sent_total", "Mails sent.");
///
/// SENT.inc(); // somewhere in the code under test
/// assert_eq!(metrics::local().sum("mail_sent_total", ""), 1.0);
/// ```
pub fn local() -> crate::reader::Local {
    crate::reader::Local::new(current())
}

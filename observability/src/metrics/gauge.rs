//! Gauges: a number that goes up and down. How those of several workers become one is the gauge's mode.

use crate::cells::{add_shared, set_last};
use crate::clock::monotonic_ns;
use crate::keys::{CellKind, Family, GaugeMode};
use crate::metrics::resolved::Resolved;
use crate::metrics::sealed::Sealed;
use crate::metrics::static_ref::StaticRef;
use crate::metrics::table::Table;
use crate::metrics::{Metric, check, remember};
use std::sync::atomic::Ordering::Relaxed;

/// A gauge without labels. Default mode: the sum over living workers; of a dead one nothing stays, but of mode
/// [`GaugeMode::Last`] the value.
///
/// ```
/// use saola_observability::metrics::{self, Gauge, GaugeMode};
///
/// static QUEUE: Gauge = Gauge::new("mail_queue_length", "Mails waiting.").mode(GaugeMode::Last);
///
/// QUEUE.set(3.0);
/// QUEUE.dec();
/// assert_eq!(metrics::local().sum("mail_queue_length", ""), 2.0);
/// ```
pub struct Gauge {
    family: Family<'static>,
    cells: StaticRef<Resolved>,
}

/// A gauge with `N` labels. Default mode: the sum over living workers.
///
/// ```
/// use saola_observability::metrics::GaugeVec;
///
/// static OPEN: GaugeVec<1> = GaugeVec::new("pool_open_connections", "Connections open.", ["pool"]);
///
/// OPEN.with(["read"]).set(4.0);
/// ```
pub struct GaugeVec<const N: usize> {
    name: &'static str,
    help: &'static str,
    mode: GaugeMode,
    labels: [&'static str; N],
    table: Table,
}

/// One label set of a gauge, found. `Copy`, and valid for the life of the process that found it.
///
/// To set it is a store on any thread, to add to it a compare-and-swap. Of mode [`GaugeMode::Last`] both read the clock.
#[derive(Copy, Clone)]
pub struct GaugeHandle {
    resolved: Option<Resolved>,
}

impl Gauge {
    /// Declares a gauge; name and help are checked when compiling.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        check::name(name, help, &[]);
        let family = family(name, help, GaugeMode::LiveSum, &[]);
        Self { family, cells: StaticRef::empty() }
    }

    /// Says how the gauges of several workers become one number.
    #[must_use]
    pub const fn mode(mut self, mode: GaugeMode) -> Self {
        self.family.mode = mode;
        self
    }

    /// Sets the value.
    pub fn set(&'static self, value: f64) {
        self.handle().set(value);
    }

    /// Adds 1.
    pub fn inc(&'static self) {
        self.handle().add(1.0);
    }

    /// Takes 1 away.
    pub fn dec(&'static self) {
        self.handle().add(-1.0);
    }

    /// Adds an amount.
    pub fn add(&'static self, amount: f64) {
        self.handle().add(amount);
    }

    /// Takes an amount away.
    pub fn sub(&'static self, amount: f64) {
        self.handle().add(-amount);
    }

    fn handle(&'static self) -> GaugeHandle {
        GaugeHandle { resolved: self.cells.get().copied().or_else(|| self.find()) }
    }

    #[cold]
    fn find(&'static self) -> Option<Resolved> {
        let resolved = Resolved::alone(self.family)?;
        remember(self);
        self.cells.set(Box::leak(Box::new(resolved)));
        Some(resolved)
    }
}

impl<const N: usize> GaugeVec<N> {
    /// Declares a gauge with labels; all parts are checked when compiling.
    pub const fn new(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        check::name(name, help, &labels);
        Self { name, help, mode: GaugeMode::LiveSum, labels, table: Table::new() }
    }

    /// Says how the gauges of several workers become one number.
    #[must_use]
    pub const fn mode(mut self, mode: GaugeMode) -> Self {
        self.mode = mode;
        self
    }

    /// The gauge of a label set. Values come from closed sets: beyond 1,000 sets all further ones are `other`.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "an array of labels is written where it is used"
    )]
    pub fn with<S: AsRef<str>>(&'static self, values: [S; N]) -> GaugeHandle {
        let values = std::array::from_fn(|at| values[at].as_ref());
        GaugeHandle { resolved: self.find(values) }
    }

    fn find(&'static self, values: [&str; N]) -> Option<Resolved> {
        self.table.find(values, || {
            remember(self);
            family(self.name, self.help, self.mode, &self.labels)
        })
    }
}

impl GaugeHandle {
    /// Sets the value.
    pub fn set(self, value: f64) {
        let Some(resolved) = self.resolved else { return };
        resolved.count_overflow();
        // Gauges have one cell for all threads: a store is whole, an addition is atomic.
        match resolved.home.mode() {
            GaugeMode::Last => set_last(resolved.own(), monotonic_ns(), |_| value),
            GaugeMode::LiveSum | GaugeMode::LiveMax | GaugeMode::LiveMin | GaugeMode::PerWorker => {
                resolved.first().store(value.to_bits(), Relaxed);
            }
        }
    }

    /// Adds an amount.
    pub fn add(self, amount: f64) {
        let Some(resolved) = self.resolved else { return };
        resolved.count_overflow();
        match resolved.home.mode() {
            GaugeMode::Last => set_last(resolved.own(), monotonic_ns(), |value| value + amount),
            GaugeMode::LiveSum | GaugeMode::LiveMax | GaugeMode::LiveMin | GaugeMode::PerWorker => {
                add_shared(resolved.first(), amount);
            }
        }
    }

    /// Takes an amount away.
    pub fn sub(self, amount: f64) {
        self.add(-amount);
    }
}

const fn family(
    name: &'static str,
    help: &'static str,
    mode: GaugeMode,
    labels: &'static [&'static str],
) -> Family<'static> {
    Family { name, help, kind: CellKind::Gauge, mode, labels, bounds: &[] }
}

impl Sealed for Gauge {
    fn unbind(&self) {
        self.cells.clear();
    }
}

impl Metric for Gauge {
    fn init(&'static self) {
        self.handle();
    }
}

impl<const N: usize> Sealed for GaugeVec<N> {
    fn unbind(&self) {
        self.table.clear();
    }
}

impl<const N: usize> Metric for GaugeVec<N> {
    fn init(&'static self) {
        self.find([crate::series::OTHER; N]);
    }
}

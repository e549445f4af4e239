//! Counters: they only go up, through any number of deaths.

use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::cells::add_shared;
use crate::keys::{CellKind, Family, GaugeMode};
use crate::metrics::resolved::{Resolved, StaticRef};
use crate::metrics::sealed::Sealed;
use crate::metrics::table::Table;
use crate::metrics::{Metric, check, is_owner, remember};

/// What a counter counts in: `u64` for things, `f64` for amounts (seconds, money).
pub trait Number: Copy + Send + Sync + 'static + private::Adds {
    /// One.
    const ONE: Self;
}

/// Keeps the set of number types closed.
pub(crate) mod private {
    use std::sync::atomic::AtomicU64;

    /// How a number is added to a cell.
    #[expect(unnameable_types, reason = "the seal of `Number`: to be seen, not to be named")]
    pub trait Adds {
        /// Whether the cell is a float.
        const IS_FLOAT: bool;
        /// By the only writer.
        fn add_owned(self, cell: &AtomicU64);
        /// By one of several writers.
        fn add_shared(self, cell: &AtomicU64);
        /// Counters never fall.
        fn is_valid(&self) -> bool;
    }
}

impl Number for u64 {
    const ONE: Self = 1;
}

impl private::Adds for u64 {
    const IS_FLOAT: bool = false;

    fn add_owned(self, cell: &AtomicU64) {
        cell.store(cell.load(Relaxed).wrapping_add(self), Relaxed);
    }

    fn add_shared(self, cell: &AtomicU64) {
        cell.fetch_add(self, Relaxed);
    }

    fn is_valid(&self) -> bool {
        true
    }
}

impl Number for f64 {
    const ONE: Self = 1.0;
}

impl private::Adds for f64 {
    const IS_FLOAT: bool = true;

    fn add_owned(self, cell: &AtomicU64) {
        let sum = Self::from_bits(cell.load(Relaxed)) + self;
        cell.store(sum.to_bits(), Relaxed);
    }

    fn add_shared(self, cell: &AtomicU64) {
        add_shared(cell, self);
    }

    fn is_valid(&self) -> bool {
        *self >= 0.0
    }
}

/// A counter without labels.
///
/// ```
/// use saola_observability::metrics::{self, Counter};
///
/// static MONEY: Counter<f64> = Counter::new("shop_money_euros_total", "Money taken, in euros.");
///
/// MONEY.add(9.5);
/// assert_eq!(metrics::local().sum("shop_money_euros_total", ""), 9.5);
/// ```
pub struct Counter<T: Number = u64> {
    family: Family<'static>,
    cells: StaticRef<Resolved>,
    number: PhantomData<fn() -> T>,
}

/// A counter with `N` labels.
///
/// ```
/// use saola_observability::metrics::{self, CounterVec};
///
/// static SOLD: CounterVec<1> = CounterVec::new("shop_sold_total", "Things sold.", ["item"]);
///
/// let laptops = SOLD.with(["laptop"]); // a handle: kept, it costs a load and a store an increment
/// laptops.inc();
/// assert_eq!(metrics::local().sum("shop_sold_total", "item=\"laptop\""), 1.0);
/// ```
pub struct CounterVec<const N: usize, T: Number = u64> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    table: Table,
    number: PhantomData<fn() -> T>,
}

/// One label set of a counter, found. `Copy`, and valid for the life of the process that found it.
#[derive(Copy, Clone)]
pub struct CounterHandle<T: Number = u64> {
    /// The owner's cell, beside the rest: the hot path follows one pointer. None when an update is more than a store.
    own: Option<&'static AtomicU64>,
    /// The cell of all other threads, for a handle that one of them has got.
    foreign: Option<&'static AtomicU64>,
    resolved: Option<&'static Resolved>,
    number: PhantomData<fn() -> T>,
}

impl<T: Number> Counter<T> {
    /// Declares a counter. The name ends with `_total` and the help with a full stop; both are checked when compiling.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        check::counter(name, help, &[]);
        let family = family::<T>(name, help, &[]);
        Self { family, cells: StaticRef::empty(), number: PhantomData }
    }

    /// Adds 1.
    pub fn inc(&'static self) {
        self.handle().inc();
    }

    /// Adds an amount; a negative or NaN one is ignored and counted as invalid.
    pub fn add(&'static self, amount: T) {
        self.handle().add(amount);
    }

    fn handle(&'static self) -> CounterHandle<T> {
        let resolved = self.cells.get().or_else(|| self.find());
        CounterHandle::of(resolved)
    }

    #[cold]
    fn find(&'static self) -> Option<&'static Resolved> {
        let resolved = Resolved::alone(&self.family)?;
        remember(self);
        self.cells.set(resolved);
        Some(resolved)
    }
}

impl<const N: usize, T: Number> CounterVec<N, T> {
    /// Declares a counter with labels; all parts are checked when compiling.
    pub const fn new(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        check::counter(name, help, &labels);
        Self { name, help, labels, table: Table::new(), number: PhantomData }
    }

    /// The counter of a label set. Values come from closed sets: beyond 1,000 sets all further ones are counted as `other`.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "an array of labels is written where it is used"
    )]
    pub fn with<S: AsRef<str>>(&'static self, values: [S; N]) -> CounterHandle<T> {
        let values = std::array::from_fn(|at| values[at].as_ref());
        CounterHandle::of(self.find(values))
    }

    fn find(&'static self, values: [&str; N]) -> Option<&'static Resolved> {
        self.table.find(values, || {
            if self.table.is_empty() {
                remember(self);
            }
            family::<T>(self.name, self.help, &self.labels)
        })
    }
}

impl<T: Number> CounterHandle<T> {
    #[inline]
    fn of(resolved: Option<&'static Resolved>) -> Self {
        let own = resolved.and_then(|resolved| resolved.plain().first());
        let foreign = resolved.filter(|_| own.is_some() && !is_owner());
        let foreign = foreign.and_then(|resolved| resolved.foreign()?.first());
        Self { own, foreign, resolved, number: PhantomData }
    }

    /// Adds 1.
    #[inline]
    pub fn inc(self) {
        self.add(T::ONE);
    }

    /// Adds an amount; a negative or NaN one is ignored and counted as invalid.
    #[inline]
    pub fn add(self, amount: T) {
        if !amount.is_valid() {
            if let Some(resolved) = self.resolved {
                resolved.count_invalid();
            }
        } else if let Some(own) = self.own
            && is_owner()
        {
            amount.add_owned(own);
        } else {
            self.add_otherwise(amount);
        }
    }

    #[inline]
    fn add_otherwise(self, amount: T) {
        match self.foreign {
            Some(foreign) if !is_owner() => amount.add_shared(foreign),
            Some(_) | None => self.add_slowly(amount),
        }
    }

    #[cold]
    fn add_slowly(self, amount: T) {
        let writable = self.resolved.and_then(Resolved::writable);
        if let Some(([cell, ..], is_alone)) = writable {
            if is_alone { amount.add_owned(cell) } else { amount.add_shared(cell) }
        }
    }
}

const fn family<T: Number>(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Family<'static> {
    let kind =
        if <T as private::Adds>::IS_FLOAT { CellKind::CounterF64 } else { CellKind::CounterU64 };
    Family { name, help, kind, mode: GaugeMode::LiveSum, labels, bounds: &[] }
}

impl<T: Number> Sealed for Counter<T> {
    fn unbind(&self) {
        self.cells.clear();
    }
}

impl<T: Number> Metric for Counter<T> {
    fn init(&'static self) {
        self.handle();
    }
}

impl<const N: usize, T: Number> Sealed for CounterVec<N, T> {
    fn unbind(&self) {
        self.table.clear();
    }
}

impl<const N: usize, T: Number> Metric for CounterVec<N, T> {
    fn init(&'static self) {
        self.find([crate::series::OTHER; N]);
    }
}

//! Counters: they only go up, through any number of deaths.

use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::cells::add_shared;
use crate::keys::{CellKind, Family, GaugeMode};
use crate::metrics::resolved::Resolved;
use crate::metrics::sealed::Sealed;
use crate::metrics::static_ref::StaticRef;
use crate::metrics::table::Table;
use crate::metrics::{Metric, check, is_own, remember};

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

/// A counter without labels. What was added stays added, whatever ends the process.
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
    handle: StaticRef<CounterHandle<T>>,
}

/// A counter with `N` labels. What was added stays added, whatever ends the process.
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
///
/// An addition is a load and a store on the thread that serves, and one locked addition on any other.
#[derive(Copy, Clone)]
pub struct CounterHandle<T: Number = u64> {
    /// The owner's cell, beside the rest: the hot path follows one pointer. It is in no slot where an update is more than a
    /// store for every thread.
    own: &'static AtomicU64,
    /// The cell of all other threads, for a handle that one of them has got.
    foreign: Option<&'static AtomicU64>,
    resolved: Option<Resolved>,
    number: PhantomData<fn() -> T>,
}

impl<T: Number> Counter<T> {
    /// Declares a counter. The name ends with `_total` and the help with a full stop; both are checked when compiling.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        check::counter(name, help, &[]);
        Self { family: family::<T>(name, help, &[]), handle: StaticRef::empty() }
    }

    /// Adds 1.
    pub fn inc(&'static self) {
        self.handle().inc();
    }

    /// Adds an amount; a negative or NaN one is ignored and counted as invalid.
    pub fn add(&'static self, amount: T) {
        self.handle().add(amount);
    }

    #[inline]
    fn handle(&'static self) -> &'static CounterHandle<T> {
        self.handle.get().unwrap_or_else(|| self.find())
    }

    #[cold]
    fn find(&'static self) -> &'static CounterHandle<T> {
        let handle = CounterHandle::of(Resolved::alone(self.family));
        if handle.resolved.is_none() {
            return &CounterHandle::NONE; // and asked again: there may be space the next time
        }
        remember(self);
        let handle = Box::leak(Box::new(handle));
        self.handle.set(handle);
        handle
    }
}

impl<const N: usize, T: Number> CounterVec<N, T> {
    /// Declares a counter with labels; all parts are checked when compiling.
    pub const fn new(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        check::counter(name, help, &labels);
        Self { name, help, labels, table: Table::new(), number: PhantomData }
    }

    /// The counter of a label set. Values come from closed sets: beyond 1,000 sets all further ones are counted as `other`.
    /// A set that is known takes a look into a table, without a lock or an allocation; a new one takes space in the file.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "an array of labels is written where it is used"
    )]
    pub fn with<S: AsRef<str>>(&'static self, values: [S; N]) -> CounterHandle<T> {
        let values = std::array::from_fn(|at| values[at].as_ref());
        CounterHandle::of(self.find(values))
    }

    #[inline]
    fn find(&'static self, values: [&str; N]) -> Option<Resolved> {
        self.table.find(values, || {
            remember(self);
            family::<T>(self.name, self.help, &self.labels)
        })
    }
}

impl<T: Number> CounterHandle<T> {
    /// Of no cells.
    const NONE: Self = Self { own: &NOWHERE, foreign: None, resolved: None, number: PhantomData };

    #[inline]
    fn of(resolved: Option<Resolved>) -> Self {
        let Some(found) = resolved else { return Self::NONE };
        if found.is_overflow() {
            // Each update is counted besides.
            return Self { resolved, ..Self::NONE };
        }
        let own = found.first();
        let foreign = if is_own(own) { None } else { found.foreign().and_then(<[_]>::first) };
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
        } else if is_own(self.own) {
            amount.add_owned(self.own);
        } else {
            self.add_otherwise(amount);
        }
    }

    #[inline]
    fn add_otherwise(self, amount: T) {
        match self.foreign {
            Some(foreign) => amount.add_shared(foreign),
            None => add_slowly(self.resolved, amount),
        }
    }
}

#[cold]
fn add_slowly<T: Number>(resolved: Option<Resolved>, amount: T) {
    if let Some(([cell, ..], is_alone)) = resolved.and_then(Resolved::writable) {
        if is_alone { amount.add_owned(cell) } else { amount.add_shared(cell) }
    }
}

/// In no slot, so nobody's, and nobody stores there.
static NOWHERE: AtomicU64 = AtomicU64::new(0);

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
        self.handle.clear();
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

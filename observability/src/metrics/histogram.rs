//! Histograms with classic buckets. `_count` is derived from the buckets, so it equals `+Inf` by construction.

use std::sync::atomic::AtomicU64;
use std::time::Instant;

use crate::cells::exemplar::{self, Exemplar};
use crate::cells::histogram::{self, Histogram as Cells};
use crate::cells::search::Grid;
use crate::clock::recent_wall_ns;
use crate::ids::{SpanId, TraceId};
use crate::keys::{CellKind, Family, GaugeMode};
use crate::metrics::resolved::Resolved;
use crate::metrics::sealed::Sealed;
use crate::metrics::static_ref::StaticRef;
use crate::metrics::table::Table;
use crate::metrics::{Metric, check, is_own, remember};

/// A histogram without labels. After a death at any instruction its count is the sum of its buckets, and each observation is
/// in the buckets and in the sum, or in neither.
///
/// ```
/// use saola_observability::metrics::{self, Histogram};
///
/// static RENDER: Histogram = Histogram::new("report_render_seconds", "Time to render a report.", &[0.01, 0.1]);
///
/// RENDER.observe(0.02);
/// let timer = RENDER.start_timer();
/// drop(timer); // observes the seconds since
/// assert_eq!(metrics::local().sum("report_render_seconds", ""), 2.0); // its count
/// ```
pub struct Histogram {
    family: Family<'static>,
    handle: StaticRef<HistogramHandle>,
}

/// A histogram with `N` labels; as [`Histogram`] after a death.
///
/// ```
/// use saola_observability::metrics::HistogramVec;
///
/// static SIZE: HistogramVec<1> =
///     HistogramVec::new("upload_size_bytes", "Bytes of an upload.", ["kind"], &[1e3, 1e6]).exemplars();
///
/// SIZE.with(["image"]).observe(40_000.0);
/// ```
pub struct HistogramVec<const N: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    bounds: &'static [f64],
    kind: CellKind,
    table: Table,
}

/// One label set of a histogram, found. `Copy`, and valid for the life of the process that found it.
///
/// An observation is two stores on the thread that serves, six more with an exemplar; other threads take turns by a lock.
#[derive(Copy, Clone)]
pub struct HistogramHandle {
    /// The owner's cells, beside the rest: the hot path follows no pointer to a pointer. None where an observation is more
    /// than its stores for every thread.
    own: Cells<'static>,
    /// Finds the bucket; for a family without a grid the other way is taken, which searches.
    grid: &'static Grid,
    resolved: Option<Resolved>,
}

/// Observes the time since it was started, in seconds, when it is dropped.
#[must_use = "a timer that is dropped at once observes nothing of interest"]
pub struct Timer {
    histogram: HistogramHandle,
    start: Instant,
    discarded: bool,
}

impl Histogram {
    /// Declares a histogram with ascending, finite upper bounds; all parts are checked when compiling.
    pub const fn new(name: &'static str, help: &'static str, bounds: &'static [f64]) -> Self {
        check::name(name, help, &[]);
        check::bounds(bounds);
        Self {
            family: family(CellKind::Histogram, name, help, &[], bounds),
            handle: StaticRef::empty(),
        }
    }

    /// Keeps the newest exemplar of each bucket: six more words a bucket.
    #[must_use]
    pub const fn exemplars(mut self) -> Self {
        self.family.kind = CellKind::ExemplarHistogram;
        self
    }

    /// Counts a value. NaN is ignored and counted as invalid; infinities are counted.
    pub fn observe(&'static self, value: f64) {
        self.handle().observe(value);
    }

    /// Counts a value and keeps the trace it came from, if the histogram was declared with [`Self::exemplars`].
    pub fn observe_with_exemplar(&'static self, value: f64, trace: TraceId, span: SpanId) {
        self.handle().observe_with_exemplar(value, trace, span);
    }

    /// Starts to measure a time.
    pub fn start_timer(&'static self) -> Timer {
        self.handle().start_timer()
    }

    #[inline]
    fn handle(&'static self) -> &'static HistogramHandle {
        self.handle.get().unwrap_or_else(|| self.find())
    }

    #[cold]
    fn find(&'static self) -> &'static HistogramHandle {
        let handle = HistogramHandle::of(Resolved::alone(self.family));
        if handle.resolved.is_none() {
            return &HistogramHandle::NONE; // and asked again: there may be space the next time
        }
        remember(self);
        let handle = Box::leak(Box::new(handle));
        self.handle.set(handle);
        handle
    }
}

impl<const N: usize> HistogramVec<N> {
    /// Declares a histogram with labels; all parts are checked when compiling.
    pub const fn new(
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        bounds: &'static [f64],
    ) -> Self {
        check::name(name, help, &labels);
        check::bounds(bounds);
        Self { name, help, labels, bounds, kind: CellKind::Histogram, table: Table::new() }
    }

    /// Keeps the newest exemplar of each bucket: six more words a bucket and label set.
    #[must_use]
    pub const fn exemplars(mut self) -> Self {
        self.kind = CellKind::ExemplarHistogram;
        self
    }

    /// The histogram of a label set. Values come from closed sets: beyond 1,000 sets all further ones are `other`.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "an array of labels is written where it is used"
    )]
    pub fn with<S: AsRef<str>>(&'static self, values: [S; N]) -> HistogramHandle {
        let values = std::array::from_fn(|at| values[at].as_ref());
        HistogramHandle::of(self.find(values))
    }

    fn find(&'static self, values: [&str; N]) -> Option<Resolved> {
        self.table.find(values, || {
            remember(self);
            family(self.kind, self.name, self.help, &self.labels, self.bounds)
        })
    }
}

impl HistogramHandle {
    /// Of no cells.
    const NONE: Self = Self { own: Cells::NONE, grid: &Grid::NONE, resolved: None };

    #[inline]
    fn of(resolved: Option<Resolved>) -> Self {
        let plain = resolved.filter(|found| !found.is_overflow()).and_then(|found| {
            let (own, grid) =
                (Cells::of(found.own(), found.home.buckets())?, found.home.search.grid.as_ref()?);
            Some(Self { own, grid, resolved })
        });
        plain.unwrap_or(Self { resolved, ..Self::NONE })
    }

    /// Counts a value. NaN is ignored and counted as invalid; infinities are counted.
    // By reference: of a copy all words would be read, of which the owner's stores need half.
    #[inline]
    pub fn observe(&self, value: f64) {
        if self.observe_plainly(value).is_none() {
            observe_otherwise(self.resolved, value);
        }
    }

    /// Counts a value and keeps the trace it came from, if the family was declared with exemplars and there is a trace.
    /// What is kept is whole or not there; a death while it is written loses it, never the count.
    #[inline]
    pub fn observe_with_exemplar(&self, value: f64, trace: TraceId, span: SpanId) {
        let Some(bucket) = self.observe_plainly(value) else {
            observe_otherwise_with_exemplar(self.resolved, value, trace, span);
            return;
        };
        if !trace.is_none()
            && let Some(found) = self.resolved
            && let Some(words) = found.own_exemplar(bucket)
        {
            exemplar::set(words, &Exemplar { trace, span, value, wall_ns: recent_wall_ns() });
        }
    }

    /// The owner's stores, and the bucket; none if this update is more than these.
    #[inline]
    fn observe_plainly(&self, value: f64) -> Option<usize> {
        if !is_own(self.own.start()) {
            return None;
        }
        // There is no such bucket for a negative number, nor for NaN.
        self.own.observe(self.grid.bucket(value), value)
    }

    /// Starts to measure a time.
    pub fn start_timer(self) -> Timer {
        Timer { histogram: self, start: Instant::now(), discarded: false }
    }
}

/// Any update that is not merely the owner's stores. Says into which words it went, whether this thread alone writes there,
/// and into which bucket.
#[inline(never)]
fn observe_otherwise(
    resolved: Option<Resolved>,
    value: f64,
) -> Option<(&'static [AtomicU64], bool, usize)> {
    let found = resolved?;
    if value.is_nan() {
        found.count_invalid();
        return None;
    }
    let (words, is_alone) = found.writable()?;
    let cells = Cells::of(words, found.home.buckets())?;
    let bucket = found.home.search.bucket(value);
    let is_there =
        if is_alone { cells.observe(bucket, value) } else { cells.observe_shared(bucket, value) };
    is_there.map(|bucket| (words, is_alone, bucket))
}

#[cold]
#[inline(never)]
fn observe_otherwise_with_exemplar(
    resolved: Option<Resolved>,
    value: f64,
    trace: TraceId,
    span: SpanId,
) {
    if let Some((words, is_alone, bucket)) = observe_otherwise(resolved, value)
        && !trace.is_none()
        && let Some(found) = resolved
        && let Some(words) = histogram::exemplar(words, found.home.buckets(), bucket)
    {
        let exemplar = Exemplar { trace, span, value, wall_ns: recent_wall_ns() };
        if is_alone {
            exemplar::set(words, &exemplar);
        } else {
            exemplar::set_shared(words, &exemplar);
        }
    }
}

impl Timer {
    /// Observes nothing.
    pub fn discard(mut self) {
        self.discarded = true;
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if !self.discarded {
            self.histogram.observe(self.start.elapsed().as_secs_f64());
        }
    }
}

const fn family(
    kind: CellKind,
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    bounds: &'static [f64],
) -> Family<'static> {
    Family { name, help, kind, mode: GaugeMode::LiveSum, labels, bounds }
}

impl Sealed for Histogram {
    fn unbind(&self) {
        self.handle.clear();
    }
}

impl Metric for Histogram {
    fn init(&'static self) {
        self.handle();
    }
}

impl<const N: usize> Sealed for HistogramVec<N> {
    fn unbind(&self) {
        self.table.clear();
    }
}

impl<const N: usize> Metric for HistogramVec<N> {
    fn init(&'static self) {
        self.find([crate::series::OTHER; N]);
    }
}

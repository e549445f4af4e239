//! Which way a branch goes, almost always. The rare way is laid out apart: what every request runs then stands close together,
//! and a processor that has just come back from the kernel has fewer lines of it to fetch again.

use std::hint::cold_path;

/// Gives `condition`, which almost always holds.
#[inline]
pub(crate) const fn likely(condition: bool) -> bool {
    if !condition {
        cold_path();
    }
    condition
}

/// Gives `condition`, which almost never holds.
#[inline]
pub(crate) const fn unlikely(condition: bool) -> bool {
    !likely(!condition)
}

/// Gives `value`, which is almost never asked for.
#[inline]
pub(crate) fn rare<T>(value: T) -> T {
    cold_path();
    value
}

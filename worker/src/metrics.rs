//! The counters that belong to the worker and not to the record of one request.

use saola_observability::metrics::CounterVec;
use saola_observability::names;

pub(crate) static TIMEOUTS: CounterVec<1> = CounterVec::new(
    names::HTTP_SERVER_REQUEST_TIMEOUTS,
    "Deadlines that passed, by kind.",
    ["kind"],
);

pub(crate) static REJECTED: CounterVec<1> = CounterVec::new(
    names::HTTP_SERVER_REQUESTS_REJECTED,
    "Requests and connections that were refused before the application saw them, by reason.",
    ["reason"],
);

/// Makes every counter appear at 0, so that its first event shows in a rate.
pub(crate) fn register() {
    saola_observability::metrics::register(&[&TIMEOUTS, &REJECTED]);
    for kind in ["header", "body", "handler", "write", "idle"] {
        TIMEOUTS.with([kind]).add(0);
    }
}

//! The families that requests count in. They belong to the slot, not to a program: begin and end move them in one
//! transaction with the in-flight table.

use crate::keys::{CellKind, Family, GaugeMode};
use crate::names;

/// Upper bounds of the duration histogram, in seconds.
pub(crate) const DURATION_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

pub(crate) const STARTED: Family<'static> = counter(
    names::HTTP_SERVER_REQUESTS_STARTED,
    "Requests whose head was read, by method.",
    &["http_request_method"],
);

pub(crate) const DURATION: Family<'static> = Family {
    name: names::HTTP_SERVER_REQUEST_DURATION,
    help: "Time from a complete request head to the last byte of its response, in seconds.",
    kind: CellKind::Histogram,
    mode: GaugeMode::LiveSum,
    labels: &["http_request_method", "http_route", "http_response_status_code"],
    bounds: &DURATION_BOUNDS,
};

pub(crate) const REQUEST_BYTES: Family<'static> = counter(
    names::HTTP_SERVER_REQUEST_BODY_BYTES,
    "Bytes of request bodies that were read.",
    &["http_request_method", "http_route"],
);

pub(crate) const RESPONSE_BYTES: Family<'static> = counter(
    names::HTTP_SERVER_RESPONSE_BODY_BYTES,
    "Bytes of response bodies that were handed to the connection.",
    &["http_request_method", "http_route"],
);

pub(crate) const EXCEPTIONS: Family<'static> = counter(
    names::HTTP_SERVER_EXCEPTIONS,
    "Requests whose handler panicked or whose response body failed, by type.",
    &["http_request_method", "http_route", "exception_type"],
);

pub(crate) const LOST: Family<'static> = counter(
    names::HTTP_SERVER_REQUESTS_LOST,
    "Requests that died with their worker, by reason.",
    &["http_route", "reason"],
);

/// Has no cells: the reader counts running entries of the in-flight tables.
pub(crate) const ACTIVE_HELP: &str = "Requests being served now.";

const fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Family<'static> {
    Family { name, help, kind: CellKind::CounterU64, mode: GaugeMode::LiveSum, labels, bounds: &[] }
}

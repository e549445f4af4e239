//! Money: cents inside, dollars outside.

/// Dollars as a client sends them; they were checked to be from 0 to a million.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "at most 100,000,000 cents, by the check of the caller"
)]
pub(crate) fn cents(dollars: f64) -> i64 {
    (dollars * 100.0).round() as i64
}

/// Cents as the number that JSON has; exact for all that can be stored here.
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "far below 2⁵³ cents")]
pub(crate) fn dollars(cents: i64) -> f64 {
    cents as f64 / 100.0
}

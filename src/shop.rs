//! The shop: a checkout takes from the inventory over HTTP, as two services would, and both survive the other's death.
//!
//! An order is PENDING until its deduction is known, then COMPLETED or FAILED for ever. Stock that is left and quantities of
//! COMPLETED orders always add up to the stock of the beginning.

mod checkout;
pub(crate) mod client;
mod inventory;
mod sweep;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
pub(crate) use sweep::sweep;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(checkout::checkout))
        .routes(routes!(inventory::deduct))
        .routes(routes!(inventory::release))
}

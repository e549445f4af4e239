//! What a checkout left PENDING, because its worker died or the inventory was away, is failed here and its stock given back.

use super::checkout;
use crate::app::App;
use crate::db::{self, Sql, Statements as _, params};
use crate::time::now;

/// Fails every order that has been PENDING for too long.
pub(crate) async fn sweep(app: &App) -> db::Result<()> {
    // Read first: a write would make every worker wait for SQLite's lock.
    let stale: Vec<i64> = app.db.query(&STALE, params![now() - PATIENCE, now()]).await?;
    for order in stale {
        let is_claimed =
            app.db.execute(&CLAIM, params![now() + CLAIM_TIME, order, now()]).await? == 1;
        if is_claimed && app.inventory.release(order).await {
            checkout::abandon(&app.db, order).await?;
            tracing::info!(order.id = order, "abandoned order failed, and its stock released");
        }
    }
    Ok(())
}

/// A checkout has an answer long before, in microseconds.
const PATIENCE: i64 = 30_000_000;
/// For so long one worker sees to an order.
const CLAIM_TIME: i64 = 15_000_000;

static STALE: Sql = Sql::select(
    "shop_orders",
    "SELECT id FROM shop_orders
     WHERE status = 'PENDING' AND created_at < $1 AND (claimed_until IS NULL OR claimed_until < $2)
     ORDER BY created_at LIMIT 100",
);
static CLAIM: Sql = Sql::update(
    "shop_orders",
    "UPDATE shop_orders SET claimed_until = $1
     WHERE id = $2 AND status = 'PENDING' AND (claimed_until IS NULL OR claimed_until < $3)",
);

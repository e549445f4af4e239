//! The stock: taking from it and giving back, each order once.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use tracing::Instrument as _;
use tracing::field::Empty;
use utoipa::ToSchema;

use crate::app::App;
use crate::db::{Sql, Statements as _, Tx, params};
use crate::error::{Error, Result};
use crate::input::{Fields, Json, Read};
use crate::time::now;

/// What is to be taken.
#[derive(Debug, ToSchema)]
pub(super) struct Deduction {
    /// 1 to 64 characters.
    item: String,
    /// 1 to 1,000.
    #[schema(minimum = 1, maximum = 1000)]
    quantity: i64,
    /// Whose it is: the same order takes once, however often it asks.
    order_id: Option<i64>,
}

impl Read for Deduction {
    fn read(fields: &mut Fields) -> Self {
        Self {
            item: fields.text("item", 1..=64),
            quantity: fields.required_integer("quantity", 1..=1_000),
            order_id: fields.integer("order_id", i64::MIN..=i64::MAX),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stock {
    status: &'static str,
    remaining_stock: i64,
}

/// Whose is to be given back.
#[derive(Debug, ToSchema)]
pub(super) struct Release {
    order_id: i64,
}

impl Read for Release {
    fn read(fields: &mut Fields) -> Self {
        Self { order_id: fields.required_integer("order_id", i64::MIN..=i64::MAX) }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Released {
    /// `RELEASED` or `NOTHING_TO_RELEASE`.
    status: &'static str,
}

/// Takes from the stock
#[utoipa::path(post, path = "/inventory/deduct", tag = "shop", request_body = Deduction, responses(
    (status = 200, body = Stock),
    (status = 400, description = "Less is in stock, or no such item"),
    (status = 409, description = "The order has been released"),
    (status = 500, description = "Simulated"),
))]
pub(super) async fn deduct(
    State(app): State<App>,
    Json(deduction): Json<Deduction>,
) -> Result<Json<Stock>> {
    let span = tracing::info_span!(
        "inventory_deduct_span",
        inventory.item = deduction.item,
        inventory.deduction_quantity = deduction.quantity,
        simulation.latency_added = Empty,
        otel.status_code = Empty,
    );
    let deducting = async {
        let simulated = if app.settings.simulation { simulate(&deduction).await } else { Ok(()) };
        if simulated.is_err() {
            tracing::Span::current().record("otel.status_code", "error");
        }
        app.db.transaction(|tx| take(tx, &deduction, &simulated)).await
    };
    let remaining_stock = deducting.instrument(span).await?;
    tracing::info!(item = deduction.item, quantity = deduction.quantity, "stock deducted");
    Ok(Json(Stock { status: "SUCCESS", remaining_stock }))
}

/// Gives back what an order has taken, and keeps it from taking later
#[utoipa::path(post, path = "/inventory/release", tag = "shop", request_body = Release, responses(
    (status = 200, body = Released),
))]
pub(super) async fn release(
    State(app): State<App>,
    Json(Release { order_id }): Json<Release>,
) -> Result<Json<Released>> {
    let released = app.db.transaction(|tx| give_back(tx, order_id)).await?;
    if released {
        tracing::info!(order.id = order_id, "stock released");
    }
    Ok(Json(Released { status: if released { "RELEASED" } else { "NOTHING_TO_RELEASE" } }))
}

/// One statement checks and takes, so that two buyers cannot both get the last piece.
async fn take(tx: Tx, deduction: &Deduction, simulated: &Result<()>) -> Result<i64> {
    let Deduction { item, quantity, order_id } = deduction;
    if let Some(order) = order_id
        && tx.execute(&REMEMBER, params![*order, item, *quantity, now()]).await? == 0
    {
        let (state, remaining): (String, i64) = tx.query_one(&RECALL, params![*order]).await?;
        let is_released = state == "RELEASED";
        return if is_released {
            Err(refused(StatusCode::CONFLICT, RELEASED))
        } else {
            Ok(remaining)
        };
    }
    let left: Option<i64> = tx.query_opt(&TAKE, params![*quantity, item]).await?;
    let left = left.ok_or_else(|| refused(StatusCode::BAD_REQUEST, "Insufficient stock"))?;
    // Here, so that there is something to roll back.
    simulated.clone()?;
    if let Some(order) = order_id {
        tx.execute(&REMEMBER_REST, params![left, *order]).await?;
    }
    Ok(left)
}

/// Whether there was something. An order that has taken nothing is marked, so that it never will.
async fn give_back(tx: Tx, order: i64) -> Result<bool> {
    let taken: Option<(String, i64)> = tx.query_opt(&RELEASE, params![order, now()]).await?;
    let Some((item, quantity)) = taken.filter(|(_, quantity)| *quantity > 0) else {
        return Ok(false);
    };
    tx.execute(&PUT_BACK, params![quantity, item]).await?;
    Ok(true)
}

/// Many smartphones are slow, and laptops get into a deadlock.
async fn simulate(deduction: &Deduction) -> Result<()> {
    let Deduction { item, quantity, .. } = deduction;
    if item == "smartphone" && *quantity >= 3 {
        let added = Duration::from_millis(fastrand::u64(1_000..=2_500));
        tracing::Span::current().record("simulation.latency_added", added.as_secs_f64());
        tokio::time::sleep(added).await;
    }
    if item == "laptop" && *quantity >= 2 && fastrand::f64() < 0.6 {
        tracing::error!(
            exception.r#type = "simulated deadlock",
            exception.message = DEADLOCK,
            "exception"
        );
        return Err(refused(StatusCode::INTERNAL_SERVER_ERROR, DEADLOCK));
    }
    Ok(())
}

fn refused(status: StatusCode, text: &'static str) -> Error {
    Error::detail(status, text)
}

const RELEASED: &str = "Deduction was released";
const DEADLOCK: &str = "Database deadlock conflict during write";

static REMEMBER: Sql = Sql::insert(
    "shop_deductions",
    "INSERT INTO shop_deductions (order_id, item, quantity, state, remaining, created_at)
     VALUES ($1, $2, $3, 'DEDUCTED', 0, $4) ON CONFLICT (order_id) DO NOTHING",
);
static REMEMBER_REST: Sql =
    Sql::update("shop_deductions", "UPDATE shop_deductions SET remaining = $1 WHERE order_id = $2");
static RECALL: Sql = Sql::select(
    "shop_deductions",
    "SELECT state, remaining FROM shop_deductions WHERE order_id = $1",
);
static TAKE: Sql = Sql::update(
    "shop_inventory",
    "UPDATE shop_inventory SET quantity = quantity - $1 WHERE item = $2 AND quantity >= $1
     RETURNING quantity",
);
static RELEASE: Sql = Sql::insert(
    "shop_deductions",
    "INSERT INTO shop_deductions (order_id, item, quantity, state, remaining, created_at)
     VALUES ($1, '', 0, 'RELEASED', 0, $2)
     ON CONFLICT (order_id) DO UPDATE SET state = 'RELEASED'
     WHERE shop_deductions.state = 'DEDUCTED'
     RETURNING item, quantity",
);
static PUT_BACK: Sql = Sql::update(
    "shop_inventory",
    "UPDATE shop_inventory SET quantity = quantity + $1 WHERE item = $2",
);

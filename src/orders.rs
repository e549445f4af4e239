//! Orders of items.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::db::{FromRow, Row, Sql, Statements, Tx, params};
use crate::error::{Error, Result};
use crate::idempotency::{Answer, Key};
use crate::input::{Fields, Id, Json, Read};
use crate::money;
use crate::time::now;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(read, remove))
}

#[derive(Debug, Serialize, ToSchema)]
struct Order {
    #[serde(rename = "order_id")]
    id: i64,
    /// `pending`, `processing`, `done`.
    status: &'static str,
    item_id: Option<i64>,
    quantity: i64,
    /// In dollars.
    total_price: f64,
}

impl FromRow for Order {
    fn from_row(row: &mut Row<'_>) -> crate::db::Result<Self> {
        Ok(Self {
            id: row.take()?,
            item_id: row.take()?,
            quantity: row.take()?,
            total_price: money::dollars(row.take()?),
            status: status(row.take()?),
        })
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct NewOrder {
    item_id: Option<i64>,
    /// 1 to 1,000.
    #[schema(value_type = Option<i64>, default = 1)]
    quantity: i64,
}

impl Read for NewOrder {
    fn read(fields: &mut Fields) -> Self {
        Self {
            item_id: fields.integer("item_id", i64::MIN..=i64::MAX),
            quantity: fields.integer("quantity", 1..=1_000).unwrap_or(1),
        }
    }
}

/// A new order
///
/// With an `Idempotency-Key` it can be repeated: the same key orders once, and gets the same answer.
#[utoipa::path(post, path = "/api/orders", tag = "items", request_body = NewOrder,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    responses((status = 201, body = Order), (status = 404), (status = 422)))]
async fn create(
    State(app): State<App>,
    headers: HeaderMap,
    Json(new): Json<NewOrder>,
) -> Result<Answer> {
    match Key::of("orders", &headers, &new)? {
        Some(key) => app.db.transaction(|tx| once(tx, &key, &new)).await,
        None => place(&app.db, &new).await,
    }
}

/// Takes the key, does the work and keeps its answer: all of it or nothing.
async fn once(tx: Tx, key: &Key, new: &NewOrder) -> Result<Answer> {
    if !key.take(&tx, "").await? {
        return key.answer(&tx).await?.ok_or(Error::StillRunning);
    }
    let answer = place(&tx, new).await?;
    key.keep(&tx, &answer).await?;
    Ok(answer)
}

async fn place(db: &impl Statements, new: &NewOrder) -> Result<Answer> {
    let mut price_cents = 0;
    if let Some(id) = new.item_id {
        let Some(found) = db.query_opt(&PRICE, params![id]).await? else {
            return Ok(Answer::refusal(StatusCode::NOT_FOUND, "Item not found"));
        };
        price_cents = found;
    }
    let values = params![new.item_id, new.quantity, price_cents * new.quantity, now()];
    let order: Order = db.query_one(&CREATE, values).await?;
    tracing::info!(order.id = order.id, "order created");
    Answer::new(StatusCode::CREATED, &order)
}

/// One order
#[utoipa::path(get, path = "/api/orders/{id}", tag = "items", params(("id" = i64, Path)),
    responses((status = 200, body = Order), (status = 404)))]
async fn read(State(app): State<App>, Id(id): Id) -> Result<Json<Order>> {
    app.db.query_opt(&READ, params![id]).await?.map(Json).ok_or_else(missing)
}

/// Takes an order away
#[utoipa::path(delete, path = "/api/orders/{id}", tag = "items", params(("id" = i64, Path)),
    responses((status = 204), (status = 404)))]
async fn remove(State(app): State<App>, Id(id): Id) -> Result<StatusCode> {
    if app.db.execute(&REMOVE, params![id]).await? == 0 {
        return Err(missing());
    }
    tracing::info!(order.id = id, "order removed");
    Ok(StatusCode::NO_CONTENT)
}

/// A function of the order's age, so it never goes back and all workers agree.
fn status(created_at: i64) -> &'static str {
    match now() - created_at {
        ..5_000_000 => "pending",
        5_000_000..30_000_000 => "processing",
        _ => "done",
    }
}

fn missing() -> Error {
    Error::detail(StatusCode::NOT_FOUND, "Order not found")
}

static PRICE: Sql = Sql::select("items_items", "SELECT price_cents FROM items_items WHERE id = $1");
static CREATE: Sql = Sql::insert(
    "items_orders",
    "INSERT INTO items_orders (item_id, quantity, total_cents, created_at) \
     VALUES ($1, $2, $3, $4) RETURNING id, item_id, quantity, total_cents, created_at",
);
static READ: Sql = Sql::select(
    "items_orders",
    "SELECT id, item_id, quantity, total_cents, created_at FROM items_orders WHERE id = $1",
);
static REMOVE: Sql = Sql::delete("items_orders", "DELETE FROM items_orders WHERE id = $1");

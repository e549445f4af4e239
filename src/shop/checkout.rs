//! `POST /checkout`: an order is written down, its quantity taken from the inventory, and then it is COMPLETED or FAILED.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use saola::metrics::CounterVec;
use serde::Serialize;
use tokio::sync::oneshot;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};
use utoipa::ToSchema;

use super::client::Deducted;
use crate::app::App;
use crate::db::{self, Db, Sql, Statements as _, params};
use crate::error::{Error, Result};
use crate::idempotency::{self, Answer, Key};
use crate::input::{Fields, Json, Read};
use crate::money;
use crate::time::now;

static CHECKOUTS: CounterVec<1> =
    CounterVec::new("order_checkouts_total", "Checkouts that were begun, by item.", ["item"]);
static REVENUE: CounterVec<1, f64> = CounterVec::new(
    "order_revenue_total",
    "Value of the completed orders in US dollars, by item.",
    ["item"],
);
static ERRORS: CounterVec<2> = CounterVec::new(
    "order_checkout_errors_total",
    "Checkouts that failed, by item and reason.",
    ["item", "reason"],
);

/// What is bought.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ShopOrder)]
pub(super) struct Order {
    /// 1 to 64 characters.
    item: String,
    /// 1 to 1,000.
    #[schema(minimum = 1, maximum = 1000)]
    quantity: i64,
    /// Sent by old clients, and never used: the price is the catalogue's.
    #[schema(minimum = 0)]
    price: Option<f64>,
}

impl Read for Order {
    fn read(fields: &mut Fields) -> Self {
        Self {
            item: fields.text("item", 1..=64),
            quantity: fields.required_integer("quantity", 1..=1_000),
            price: fields.number("price", 0.0..=f64::MAX),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Receipt {
    order_id: i64,
    /// `COMPLETED`.
    status: &'static str,
    item: String,
    unit_price: f64,
    total_price: f64,
}

/// Buys
///
/// With an `Idempotency-Key` it can be repeated: the same key buys once, and gets the same answer.
#[utoipa::path(post, path = "/checkout", tag = "shop", request_body = Order,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters")),
    responses(
        (status = 200, body = Receipt),
        (status = 400, description = "Less is in stock, or no such item"),
        (status = 409, description = "The first request with this key is still running"),
        (status = 500, description = "Simulated"),
        (status = 502, description = "The inventory did not answer"),
    ))]
pub(super) async fn checkout(
    State(app): State<App>,
    headers: HeaderMap,
    Json(order): Json<Order>,
) -> Result<Answer> {
    CHECKOUTS.with([label(&order.item)]).inc();
    let key = Key::of(SCOPE, &headers, &order)?;
    if !app.inventory.is_known() {
        return Err(Error::Unavailable { retry_after: 1 });
    }
    let span = tracing::info_span!(
        "checkout_transaction",
        order.item = order.item,
        order.quantity = order.quantity,
        order.price_per_unit = Empty,
        order.status = Empty,
        order.revenue = Empty,
    );
    // A task of its own, so that a client that leaves does not cut it in two; a drain waits for it.
    let (said, answer) = oneshot::channel();
    let checkout = Checkout { app: app.clone(), order, key };
    let running = async move {
        // Nobody hears it when the client has left.
        let _ = said.send(checkout.run().await);
    };
    app.worker.background(running.instrument(span));
    answer.await.unwrap_or(Err(Error::Internal))
}

/// A checkout that is running.
struct Checkout {
    app: App,
    order: Order,
    key: Option<Key>,
}

/// Its order, PENDING.
#[derive(Copy, Clone)]
struct Pending {
    id: i64,
    price_cents: i64,
}

/// Why no order was written down.
enum Unopened {
    KeyTaken,
    Database(db::Error),
}

impl From<db::Error> for Unopened {
    fn from(error: db::Error) -> Self {
        Self::Database(error)
    }
}

impl Checkout {
    async fn run(&self) -> Result<Answer> {
        if let Some(answer) = self.earlier_answer().await? {
            return Ok(answer);
        }
        let order = match self.open().await {
            Ok(order) => order,
            // By a request that came at the same moment.
            Err(Unopened::KeyTaken) => {
                return self.earlier_answer().await?.ok_or(Error::StillRunning);
            }
            Err(Unopened::Database(error)) => return Err(error.into()),
        };
        let Order { item, quantity, .. } = &self.order;
        let result = match self.app.inventory.deduct(order.id, item, *quantity).await {
            Deducted::Yes => self.complete(order).await,
            Deducted::Refused { status, detail } => self.refuse(order, status, &detail).await,
            Deducted::Unknown(why) => self.compensate(order, &why).await,
        };
        // Still PENDING: the sweep will see to it.
        result.inspect_err(|_| tracing::warn!(order.id = order.id, "checkout not completed"))
    }

    async fn earlier_answer(&self) -> Result<Option<Answer>> {
        match &self.key {
            Some(key) => key.answer(&self.app.db).await,
            None => Ok(None),
        }
    }

    /// The order and its key, both or neither.
    async fn open(&self) -> Result<Pending, Unopened> {
        let Order { item, quantity, .. } = &self.order;
        let span = tracing::info_span!("db_create_order", db.order_id = Empty);
        let opening = self.app.db.transaction(|tx| async move {
            let (id, price_cents) =
                tx.query_one::<(i64, i64)>(&OPEN, params![item, *quantity, now()]).await?;
            match &self.key {
                Some(key) if !key.take(&tx, &id.to_string()).await? => Err(Unopened::KeyTaken),
                _ => Ok(Pending { id, price_cents }),
            }
        });
        let order = opening.instrument(span.clone()).await?;
        span.record("db.order_id", order.id);
        Span::current().record("order.price_per_unit", money::dollars(order.price_cents));
        Ok(order)
    }

    async fn complete(&self, order: Pending) -> Result<Answer> {
        let Order { item, quantity, .. } = &self.order;
        let total = money::dollars(order.price_cents * quantity);
        let receipt = Receipt {
            order_id: order.id,
            status: "COMPLETED",
            item: item.clone(),
            unit_price: money::dollars(order.price_cents),
            total_price: total,
        };
        let answer = Answer::new(StatusCode::OK, &receipt)?;
        if !self.close(order, "COMPLETED", &answer).await? {
            // It took so long that the sweep has taken the order over, and gives the stock back.
            return Err(Error::Unavailable { retry_after: 1 });
        }
        REVENUE.with([label(item)]).add(total);
        Span::current().record("order.revenue", total);
        tracing::info!(order.id = order.id, item, quantity, "checkout completed");
        Ok(answer)
    }

    async fn refuse(&self, order: Pending, status: StatusCode, detail: &str) -> Result<Answer> {
        self.count_error("inventory_rejection");
        let answer = Answer::refusal(status, &format!("Inventory deduction rejected: {detail}"));
        self.close(order, "FAILED", &answer).await?;
        Ok(answer)
    }

    /// Perhaps it was deducted: it is given back.
    async fn compensate(&self, order: Pending, why: &str) -> Result<Answer> {
        self.count_error("inventory_network_error");
        tracing::warn!(order.id = order.id, why, "no answer of the inventory");
        let answer = Answer::refusal(StatusCode::BAD_GATEWAY, "Inventory service network error");
        if self.app.inventory.release(order.id).await {
            self.close(order, "FAILED", &answer).await?;
        }
        Ok(answer)
    }

    /// Ends the order and keeps the answer under its key; false when it is no longer ours to end.
    async fn close(&self, order: Pending, status: &'static str, answer: &Answer) -> Result<bool> {
        let closing = self.app.db.transaction(|tx| async move {
            if tx.execute(&CLOSE, params![status, now(), order.id]).await? == 0 {
                return Ok(false);
            }
            match &self.key {
                Some(_) if answer.status().is_server_error() => {
                    idempotency::free(&tx, SCOPE, &order.id.to_string()).await?;
                }
                Some(key) => key.keep(&tx, answer).await?,
                None => (),
            }
            Ok::<_, db::Error>(true)
        });
        let is_closed = closing.await?;
        if is_closed {
            Span::current().record("order.status", status);
        }
        Ok(is_closed)
    }

    fn count_error(&self, reason: &'static str) {
        ERRORS.with([label(&self.order.item), reason]).inc();
    }
}

/// Ends an order that nobody serves any more, and frees its key.
pub(super) async fn abandon(database: &Db, order: i64) -> db::Result<()> {
    let abandoning = database.transaction(|tx| async move {
        tx.execute(&FAIL, params![now(), order]).await?;
        idempotency::free(&tx, SCOPE, &order.to_string()).await
    });
    abandoning.await
}

/// The catalogue is the closed set of the label: a client invents no series.
fn label(item: &str) -> &'static str {
    CATALOGUE.into_iter().find(|known| *known == item).unwrap_or("other")
}

const CATALOGUE: [&str; 6] = ["smartphone", "laptop", "tablet", "headphones", "monitor", "vinyl"];
const SCOPE: &str = "checkout";

/// What the catalogue does not have costs nothing, and will be refused.
static OPEN: Sql = Sql::insert(
    "shop_orders",
    "INSERT INTO shop_orders (item, quantity, price_cents, status, created_at, updated_at)
     VALUES ($1, $2, COALESCE((SELECT price_cents FROM shop_inventory WHERE item = $1), 0),
         'PENDING', $3, $3)
     RETURNING id, price_cents",
);
/// Not once the sweep has claimed it: it gives the stock back.
static CLOSE: Sql = Sql::update(
    "shop_orders",
    "UPDATE shop_orders SET status = $1, updated_at = $2
     WHERE id = $3 AND status = 'PENDING' AND claimed_until IS NULL",
);
static FAIL: Sql = Sql::update(
    "shop_orders",
    "UPDATE shop_orders SET status = 'FAILED', updated_at = $1 WHERE id = $2 AND status = 'PENDING'",
);

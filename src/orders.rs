//! Orders of items. Kept in the memory of each worker for now, like the items.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::items::{Items, money};
use crate::json::{Id, Json};

pub(crate) fn router(items: Items) -> Router {
    let orders = Orders { items, stored: Arc::default() };
    Router::new()
        .route("/api/orders", post(create))
        .route("/api/orders/{id}", get(read).delete(remove))
        .with_state(orders)
}

#[derive(Clone)]
struct Orders {
    items: Items,
    stored: Arc<Mutex<BTreeMap<i64, Order>>>,
}

#[derive(Clone, Debug)]
struct Order {
    item_id: Option<i64>,
    quantity: i64,
    total_cents: i64,
    since: Instant,
}

#[derive(Debug, Deserialize)]
struct Written {
    item_id: Option<i64>,
    #[serde(default = "one")]
    quantity: i64,
}

#[derive(Debug, Serialize)]
struct Shown {
    order_id: i64,
    status: &'static str,
    item_id: Option<i64>,
    quantity: i64,
    total_price: f64,
}

impl Orders {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<i64, Order>) -> T) -> T {
        work(&mut self.stored.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn create(
    State(orders): State<Orders>,
    Json(written): Json<Written>,
) -> Result<(StatusCode, Json<Shown>)> {
    let Written { item_id, quantity } = written;
    if !(1..=1_000).contains(&quantity) {
        let message = "must be a whole number from 1 to 1000".to_owned();
        return Err(Error::Invalid { place: "body", field: "quantity".to_owned(), message });
    }
    let price_cents =
        item_id.map(|id| orders.items.find(id)).transpose()?.map_or(0, |item| item.price_cents);
    let order =
        Order { item_id, quantity, total_cents: price_cents * quantity, since: Instant::now() };
    let id = orders.with(|stored| {
        let id = stored.last_key_value().map_or(FIRST_ID, |(last, _)| last + 1);
        stored.insert(id, order.clone());
        id
    });
    tracing::info!(order.id = id, "order created");
    Ok((StatusCode::CREATED, Json(shown(id, &order))))
}

async fn read(State(orders): State<Orders>, Id(id): Id) -> Result<Json<Shown>> {
    let order = orders.with(|stored| stored.get(&id).cloned()).ok_or(MISSING)?;
    Ok(Json(shown(id, &order)))
}

async fn remove(State(orders): State<Orders>, Id(id): Id) -> Result<StatusCode> {
    orders.with(|stored| stored.remove(&id)).ok_or(MISSING)?;
    tracing::info!(order.id = id, "order removed");
    Ok(StatusCode::NO_CONTENT)
}

/// The status is a function of the order's age, so it never goes back.
fn shown(id: i64, order: &Order) -> Shown {
    let age = order.since.elapsed();
    let status = match age {
        _ if age < Duration::from_secs(5) => "pending",
        _ if age < Duration::from_secs(30) => "processing",
        _ => "done",
    };
    Shown {
        order_id: id,
        status,
        item_id: order.item_id,
        quantity: order.quantity,
        total_price: money(order.total_cents),
    }
}

fn one() -> i64 {
    1
}

const FIRST_ID: i64 = 1_000;
const MISSING: Error = Error::Missing("Order not found");

//! Items for sale. Kept in the memory of each worker for now: what one worker stores, the others do not see.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::json::{Id, Json, Parameters};

pub(crate) fn router(items: Items) -> Router {
    Router::new()
        .route("/api/items", get(list).post(create))
        .route("/api/items/{id}", get(read).put(replace).patch(change).delete(remove))
        .with_state(items)
}

/// The items of this worker.
#[derive(Clone)]
pub(crate) struct Items(Arc<Mutex<Stored>>);

struct Stored {
    items: BTreeMap<i64, Item>,
    next_id: i64,
}

/// An item; money is kept in cents.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    id: i64,
    name: String,
    pub(crate) price_cents: i64,
}

#[derive(Debug, Serialize)]
struct Shown {
    id: i64,
    name: String,
    price: f64,
}

#[derive(Debug, Deserialize)]
struct Written {
    name: String,
    #[serde(default)]
    price: f64,
}

#[derive(Debug, Deserialize)]
struct Changed {
    name: Option<String>,
    price: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Page {
    limit: Option<i64>,
    offset: Option<i64>,
}

impl Items {
    /// Items 1 to 100; new ones get numbers from 1000, so that 101 to 999 stay unknown.
    pub(crate) fn seeded() -> Self {
        let item = |id: i64| Item { id, name: format!("Item {id}"), price_cents: id * 100 };
        let items = (1..=100).map(|id| (id, item(id))).collect();
        Self(Arc::new(Mutex::new(Stored { items, next_id: 1_000 })))
    }

    pub(crate) fn find(&self, id: i64) -> Result<Item> {
        self.with(|stored| stored.items.get(&id).cloned()).ok_or(MISSING)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Stored) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn list(
    State(items): State<Items>,
    Parameters(page): Parameters<Page>,
) -> Result<Json<Value>> {
    let limit = page.limit.unwrap_or(20);
    let offset = page.offset.unwrap_or(0);
    if limit < 1 {
        return Err(invalid("query", "limit", "must be at least 1"));
    }
    let offset =
        usize::try_from(offset).map_err(|_| invalid("query", "offset", "must be at least 0"))?;
    let limit = usize::try_from(limit.min(100)).unwrap_or(100);
    let (shown, total): (Vec<Shown>, usize) = items.with(|stored| {
        let shown = stored.items.values().skip(offset).take(limit).map(shown).collect();
        (shown, stored.items.len())
    });
    Ok(Json(json!({ "items": shown, "total": total })))
}

async fn read(State(items): State<Items>, Id(id): Id) -> Result<Json<Shown>> {
    check_id(id)?;
    items.find(id).map(|item| Json(shown(&item)))
}

async fn create(
    State(items): State<Items>,
    Json(written): Json<Written>,
) -> Result<(StatusCode, Json<Shown>)> {
    let (name, price_cents) = (name(&written.name)?, cents(written.price)?);
    let item = items.with(|stored| {
        let item = Item { id: stored.next_id, name, price_cents };
        stored.next_id += 1;
        stored.items.insert(item.id, item.clone());
        item
    });
    tracing::info!(item.id = item.id, "item created");
    Ok((StatusCode::CREATED, Json(shown(&item))))
}

async fn replace(
    State(items): State<Items>,
    Id(id): Id,
    Json(written): Json<Written>,
) -> Result<Json<Shown>> {
    check_id(id)?;
    let item = Item { id, name: name(&written.name)?, price_cents: cents(written.price)? };
    update(&items, id, |stored| *stored = item)
}

async fn change(
    State(items): State<Items>,
    Id(id): Id,
    Json(changed): Json<Changed>,
) -> Result<Json<Shown>> {
    check_id(id)?;
    if changed.name.is_none() && changed.price.is_none() {
        return Err(Error::Unprocessable("nothing to change"));
    }
    let name = changed.name.as_deref().map(name).transpose()?;
    let price_cents = changed.price.map(cents).transpose()?;
    update(&items, id, |item| {
        item.name = name.unwrap_or_else(|| item.name.clone());
        item.price_cents = price_cents.unwrap_or(item.price_cents);
    })
}

async fn remove(State(items): State<Items>, Id(id): Id) -> Result<StatusCode> {
    check_id(id)?;
    items.with(|stored| stored.items.remove(&id)).ok_or(MISSING)?;
    tracing::info!(item.id = id, "item removed");
    Ok(StatusCode::NO_CONTENT)
}

fn update(items: &Items, id: i64, work: impl FnOnce(&mut Item)) -> Result<Json<Shown>> {
    let item = items.with(|stored| {
        let item = stored.items.get_mut(&id)?;
        work(item);
        Some(item.clone())
    });
    let item = item.ok_or(MISSING)?;
    tracing::info!(item.id = id, "item changed");
    Ok(Json(shown(&item)))
}

fn check_id(id: i64) -> Result<()> {
    if id > 0 { Ok(()) } else { Err(Error::BadRequest("item_id must be positive")) }
}

fn name(text: &str) -> Result<String> {
    let name = text.trim();
    match name.chars().count() {
        0 => Err(Error::Unprocessable("name cannot be empty")),
        1..=200 => Ok(name.to_owned()),
        _ => Err(invalid("body", "name", "must have at most 200 characters")),
    }
}

fn cents(price: f64) -> Result<i64> {
    if !(0.0..=1_000_000.0).contains(&price) {
        return Err(invalid("body", "price", "must be a number from 0 to 1000000"));
    }
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "at most 100,000,000, by the check above"
    )]
    let cents = (price * 100.0).round() as i64;
    Ok(cents)
}

fn shown(item: &Item) -> Shown {
    Shown { id: item.id, name: item.name.clone(), price: money(item.price_cents) }
}

/// Cents as the number that JSON has; exact for all that can be stored here.
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "far below 2⁵³ cents")]
pub(crate) fn money(cents: i64) -> f64 {
    cents as f64 / 100.0
}

fn invalid(place: &'static str, field: &str, message: &str) -> Error {
    Error::Invalid { place, field: field.to_owned(), message: message.to_owned() }
}

const MISSING: Error = Error::Missing("Item not found");

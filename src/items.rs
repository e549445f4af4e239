//! Items for sale.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::db::{FromRow, Row, Sql, Statements as _, params};
use crate::error::{Error, Result};
use crate::input::{Fields, Id, Json, Query, Read};
use crate::money;
use crate::time::now;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, replace, change, remove))
}

#[derive(Debug, Serialize, ToSchema)]
struct Item {
    id: i64,
    name: String,
    /// In dollars.
    price: f64,
}

impl FromRow for Item {
    fn from_row(row: &mut Row<'_>) -> crate::db::Result<Self> {
        Ok(Self { id: row.take()?, name: row.take()?, price: money::dollars(row.take()?) })
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Items {
    items: Vec<Item>,
    total: i64,
}

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// At least 1; more than 100 acts as 100.
    #[param(default = 20, required = false)]
    limit: i64,
    /// How many to pass over.
    #[param(default = 0, required = false)]
    offset: i64,
}

impl Read for Page {
    fn read(fields: &mut Fields) -> Self {
        Self {
            limit: fields.integer("limit", 1..=i64::MAX).unwrap_or(20).min(100),
            offset: fields.integer("offset", 0..=i64::MAX).unwrap_or(0),
        }
    }
}

/// Name and price as they are sent.
#[derive(Debug, ToSchema)]
struct NewItem {
    /// 1 to 200 characters.
    name: String,
    /// In dollars, 0 to 1,000,000.
    #[schema(value_type = Option<f64>, default = 0)]
    price: Cents,
}

impl Read for NewItem {
    fn read(fields: &mut Fields) -> Self {
        Self { name: name(fields).unwrap_or_default(), price: price(fields).unwrap_or_default() }
    }
}

/// What is to be changed of an item.
#[derive(Debug, ToSchema)]
struct Change {
    name: Option<String>,
    #[schema(value_type = Option<f64>)]
    price: Option<Cents>,
}

impl Read for Change {
    fn read(fields: &mut Fields) -> Self {
        Self { name: name(fields), price: price(fields) }
    }
}

type Cents = i64;

/// Items in the order of their ids
#[utoipa::path(get, path = "/api/items", tag = "items", params(Page),
    responses((status = 200, body = Items), (status = 422)))]
async fn list(State(app): State<App>, Query(page): Query<Page>) -> Result<Json<Items>> {
    let items = app.db.query(&LIST, params![page.limit, page.offset]).await?;
    let total = app.db.query_one(&COUNT, &[]).await?;
    Ok(Json(Items { items, total }))
}

/// One item
#[utoipa::path(get, path = "/api/items/{id}", tag = "items", params(("id" = i64, Path)),
    responses((status = 200, body = Item), (status = 400), (status = 404)))]
async fn read(State(app): State<App>, id: Id) -> Result<Json<Item>> {
    let item = app.db.query_opt(&READ, params![checked(id)?]).await?;
    item.map(Json).ok_or_else(missing)
}

/// A new item
#[utoipa::path(post, path = "/api/items", tag = "items", request_body = NewItem,
    responses((status = 201, body = Item), (status = 422)))]
async fn create(
    State(app): State<App>,
    Json(new): Json<NewItem>,
) -> Result<(StatusCode, Json<Item>)> {
    let now = now();
    let values = params![named(&new.name)?, new.price, now, now];
    let item: Item = app.db.query_one(&CREATE, values).await?;
    tracing::info!(item.id = item.id, "item created");
    Ok((StatusCode::CREATED, Json(item)))
}

/// Another name and price
#[utoipa::path(put, path = "/api/items/{id}", tag = "items", params(("id" = i64, Path)),
    request_body = NewItem,
    responses((status = 200, body = Item), (status = 400), (status = 404), (status = 422)))]
async fn replace(State(app): State<App>, id: Id, Json(new): Json<NewItem>) -> Result<Json<Item>> {
    let id = checked(id)?;
    update(&app, id, Some(named(&new.name)?), Some(new.price)).await
}

/// Another name, price or both
#[utoipa::path(patch, path = "/api/items/{id}", tag = "items", params(("id" = i64, Path)),
    request_body = Change,
    responses((status = 200, body = Item), (status = 400), (status = 404), (status = 422)))]
async fn change(State(app): State<App>, id: Id, Json(change): Json<Change>) -> Result<Json<Item>> {
    let id = checked(id)?;
    if change.name.is_none() && change.price.is_none() {
        return Err(Error::detail(StatusCode::UNPROCESSABLE_ENTITY, "nothing to change"));
    }
    let name = change.name.as_deref().map(named).transpose()?;
    update(&app, id, name, change.price).await
}

/// Takes an item away
#[utoipa::path(delete, path = "/api/items/{id}", tag = "items", params(("id" = i64, Path)),
    responses((status = 204), (status = 400), (status = 404)))]
async fn remove(State(app): State<App>, id: Id) -> Result<StatusCode> {
    let id = checked(id)?;
    if app.db.execute(&REMOVE, params![id]).await? == 0 {
        return Err(missing());
    }
    tracing::info!(item.id = id, "item removed");
    Ok(StatusCode::NO_CONTENT)
}

async fn update(
    app: &App,
    id: i64,
    name: Option<&str>,
    price: Option<Cents>,
) -> Result<Json<Item>> {
    let item = app.db.query_opt(&UPDATE, params![name, price, now(), id]).await?;
    let item = item.ok_or_else(missing)?;
    tracing::info!(item.id = id, "item changed");
    Ok(Json(item))
}

fn checked(Id(id): Id) -> Result<i64> {
    if id > 0 {
        Ok(id)
    } else {
        Err(Error::detail(StatusCode::BAD_REQUEST, "item_id must be positive"))
    }
}

fn missing() -> Error {
    Error::detail(StatusCode::NOT_FOUND, "Item not found")
}

/// A name that is there; what it says is judged by [`named`], which has an answer of its own.
fn name(fields: &mut Fields) -> Option<String> {
    fields.changed_text("name", 0..=10_000)
}

fn named(text: &str) -> Result<&str> {
    let name = text.trim();
    match name.chars().count() {
        0 => Err(Error::detail(StatusCode::UNPROCESSABLE_ENTITY, "name cannot be empty")),
        1..=200 => Ok(name),
        _ => Err(Error::invalid("body", "name", "is too long (maximum is 200 characters)")),
    }
}

fn price(fields: &mut Fields) -> Option<Cents> {
    fields.number("price", 0.0..=1_000_000.0).map(money::cents)
}

static LIST: Sql = Sql::select(
    "items_items",
    "SELECT id, name, price_cents FROM items_items ORDER BY id LIMIT $1 OFFSET $2",
);
static COUNT: Sql = Sql::select("items_items", "SELECT count(*) FROM items_items");
static READ: Sql =
    Sql::select("items_items", "SELECT id, name, price_cents FROM items_items WHERE id = $1");
static CREATE: Sql = Sql::insert(
    "items_items",
    "INSERT INTO items_items (name, price_cents, created_at, updated_at) \
     VALUES ($1, $2, $3, $4) RETURNING id, name, price_cents",
);
static UPDATE: Sql = Sql::update(
    "items_items",
    "UPDATE items_items SET name = COALESCE(CAST($1 AS TEXT), name), \
     price_cents = COALESCE(CAST($2 AS BIGINT), price_cents), updated_at = $3 \
     WHERE id = $4 RETURNING id, name, price_cents",
);
static REMOVE: Sql = Sql::delete("items_items", "DELETE FROM items_items WHERE id = $1");

//! Articles: writing, reading and liking them.

mod queries;
mod slug;
mod wire;

use std::pin::pin;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tracing::Instrument as _;
use tracing::field::Empty;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::wire::{
    Article, ArticleBody, Articles, Changes, ChangesBody, Filter, NewArticle, NewArticleBody, Page,
};
use super::viewer::{SignedIn, Visitor};
use crate::app::App;
use crate::cache::Document;
use crate::db::{self, Statements, Tx, Value, params};
use crate::error::{Error, Result};
use crate::input::{Json, Name, Query};
use crate::time::now;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(feed))
        .routes(routes!(read, update, remove))
        .routes(routes!(favorite, unfavorite))
}

/// Articles of everybody, newest first
#[utoipa::path(get, path = "/api/articles", tag = "conduit", security((), ("token" = [])),
    params(Filter, Page), responses((status = 200, body = Articles), (status = 401), (status = 422)))]
async fn list(
    State(app): State<App>,
    visitor: Visitor,
    Query(filter): Query<Filter>,
) -> Result<Document> {
    let listing = pin!(list_of(&app, visitor.id(), &filter));
    match visitor.id() {
        0 => app.cache.list(|| filter.cache_name(), CACHED, listing).await,
        _ => Document::of(&listing.await?),
    }
}

async fn list_of(app: &App, viewer: i64, filter: &Filter) -> Result<Articles> {
    let Filter { tag, author, favorited, page } = filter;
    let wanted: Vec<Value> =
        [tag, author, favorited].into_iter().flatten().map(Value::from).collect();
    let shape = queries::shape(tag.is_some(), author.is_some(), favorited.is_some());
    let mut values = vec![Value::from(viewer)];
    values.extend(wanted.iter().cloned());
    values.extend([Value::from(page.limit), Value::from(page.offset)]);
    let articles = app.db.query(shape.list, &values).await?;
    let articles_count = app.db.query_one(shape.count, &wanted).await?;
    Ok(Articles { articles, articles_count })
}

/// Articles of those whom one follows, newest first
#[utoipa::path(get, path = "/api/articles/feed", tag = "conduit", security(("token" = [])),
    params(Page), responses((status = 200, body = Articles), (status = 401), (status = 422)))]
async fn feed(
    State(app): State<App>,
    SignedIn { account, .. }: SignedIn,
    Query(page): Query<Page>,
) -> Result<Json<Articles>> {
    let values = params![account.id, page.limit, page.offset];
    let articles = app.db.query(&queries::FEED, values).await?;
    let articles_count = app.db.query_one(&queries::FEED_COUNT, params![account.id]).await?;
    Ok(Json(Articles { articles, articles_count }))
}

/// One article
#[utoipa::path(get, path = "/api/articles/{slug}", tag = "conduit", security((), ("token" = [])),
    params(("slug" = String, Path)),
    responses((status = 200, body = ArticleBody), (status = 404)))]
async fn read(
    State(app): State<App>,
    visitor: Visitor,
    Name(slug): Name,
) -> Result<Json<ArticleBody>> {
    shown(&app.db, visitor.id(), &slug).await
}

/// A new article
#[utoipa::path(post, path = "/api/articles", tag = "conduit", security(("token" = [])),
    request_body = NewArticleBody,
    responses((status = 201, body = ArticleBody), (status = 401), (status = 422)))]
async fn create(
    State(app): State<App>,
    SignedIn { account, .. }: SignedIn,
    Json(NewArticleBody { article: new }): Json<NewArticleBody>,
) -> Result<(StatusCode, Json<ArticleBody>)> {
    let span = tracing::info_span!("article.create", user.id = account.id, article.id = Empty);
    async {
        let (new, author) = (&new, account.id);
        let work = |tx: Tx| async move {
            let (id, slug) = insert(&tx, author, new).await?;
            tag(&tx, id, &new.tags).await?;
            Ok::<_, Error>((id, slug))
        };
        let (id, slug) = app.db.transaction(work).await?;
        app.cache.invalidate_lists().await;
        tracing::Span::current().record("article.id", id);
        tracing::info!(article.id = id, "article created");
        Ok((StatusCode::CREATED, shown(&app.db, author, &slug).await?))
    }
    .instrument(span)
    .await
}

/// Changes an article; another title gives it another slug
#[utoipa::path(put, path = "/api/articles/{slug}", tag = "conduit", security(("token" = [])),
    params(("slug" = String, Path)), request_body = ChangesBody, responses(
        (status = 200, body = ArticleBody), (status = 401), (status = 403), (status = 404),
        (status = 422)))]
async fn update(
    State(app): State<App>,
    SignedIn { account, .. }: SignedIn,
    Name(slug): Name,
    Json(ChangesBody { article: changes }): Json<ChangesBody>,
) -> Result<Json<ArticleBody>> {
    let span = tracing::info_span!("article.update", user.id = account.id, article.id = Empty);
    async {
        let (changes, slug) = (&changes, &slug);
        let work = |tx: Tx| async move {
            let id = own(&tx, account.id, slug).await?;
            let slug = change(&tx, id, changes).await?;
            if let Some(tags) = &changes.tags {
                tx.execute(&queries::UNTAG, params![id]).await?;
                tag(&tx, id, tags).await?;
            }
            Ok::<_, Error>((id, slug))
        };
        let (id, slug) = app.db.transaction(work).await?;
        app.cache.invalidate_lists().await;
        tracing::Span::current().record("article.id", id);
        tracing::info!(article.id = id, "article changed");
        shown(&app.db, account.id, &slug).await
    }
    .instrument(span)
    .await
}

/// Takes an article away, and all that belongs to it
#[utoipa::path(delete, path = "/api/articles/{slug}", tag = "conduit", security(("token" = [])),
    params(("slug" = String, Path)),
    responses((status = 204), (status = 401), (status = 403), (status = 404)))]
async fn remove(
    State(app): State<App>,
    SignedIn { account, .. }: SignedIn,
    Name(slug): Name,
) -> Result<StatusCode> {
    let span = tracing::info_span!("article.delete", user.id = account.id, article.id = Empty);
    async {
        let id = own(&app.db, account.id, &slug).await?;
        tracing::Span::current().record("article.id", id);
        if app.db.execute(&queries::REMOVE, params![id]).await? == 0 {
            return Err(missing());
        }
        app.cache.invalidate_lists().await;
        tracing::info!(article.id = id, "article removed");
        Ok(StatusCode::NO_CONTENT)
    }
    .instrument(span)
    .await
}

/// Likes an article; again is no error
#[utoipa::path(post, path = "/api/articles/{slug}/favorite", tag = "conduit",
    security(("token" = [])), params(("slug" = String, Path)),
    responses((status = 200, body = ArticleBody), (status = 401), (status = 404)))]
async fn favorite(
    State(app): State<App>,
    SignedIn { account, .. }: SignedIn,
    Name(slug): Name,
) -> Result<Json<ArticleBody>> {
    let (id, _) = find(&app.db, &slug).await?;
    let done = app.db.execute(&queries::FAVORITE, params![account.id, id]).await;
    done.map_err(|error| match error {
        db::Error::ForeignKey => missing(),
        error => error.into(),
    })?;
    app.cache.invalidate_lists().await;
    tracing::info!(article.id = id, user.id = account.id, "article favorited");
    shown(&app.db, account.id, &slug).await
}

/// Likes an article no more; again is no error
#[utoipa::path(delete, path = "/api/articles/{slug}/favorite", tag = "conduit",
    security(("token" = [])), params(("slug" = String, Path)),
    responses((status = 200, body = ArticleBody), (status = 401), (status = 404)))]
async fn unfavorite(
    State(app): State<App>,
    SignedIn { account, .. }: SignedIn,
    Name(slug): Name,
) -> Result<Json<ArticleBody>> {
    let (id, _) = find(&app.db, &slug).await?;
    app.db.execute(&queries::UNFAVORITE, params![account.id, id]).await?;
    app.cache.invalidate_lists().await;
    tracing::info!(article.id = id, user.id = account.id, "article unfavorited");
    shown(&app.db, account.id, &slug).await
}

/// An article as a viewer sees it.
async fn shown(db: &impl Statements, viewer: i64, slug: &str) -> Result<Json<ArticleBody>> {
    let article: Option<Article> = db.query_opt(&queries::READ, params![viewer, slug]).await?;
    let article = article.ok_or_else(missing)?;
    Ok(Json(ArticleBody { article }))
}

/// Id and author.
async fn find(db: &impl Statements, slug: &str) -> Result<(i64, i64)> {
    db.query_opt(&queries::FIND, params![slug]).await?.ok_or_else(missing)
}

/// The id of an article that this user wrote.
async fn own(db: &impl Statements, user: i64, slug: &str) -> Result<i64> {
    match find(db, slug).await? {
        (id, author) if author == user => Ok(id),
        _ => Err(super::forbidden(&["article"])),
    }
}

/// Id and slug of a new article. A slug that is taken gets another suffix.
async fn insert(db: &impl Statements, author: i64, new: &NewArticle) -> Result<(i64, String)> {
    let now = now();
    for _ in 0..slug::ATTEMPTS {
        let slug = slug::of(&new.title);
        let tags = wire::tag_list(&new.tags);
        let NewArticle { title, description, body, .. } = new;
        let values = params![&slug, title, description, body, tags, author, now, now];
        if let Some(id) = db.query_opt(&queries::CREATE, values).await? {
            return Ok((id, slug));
        }
    }
    Err(Error::Internal)
}

/// Writes the changes, and gives the slug that the article has then.
async fn change(db: &impl Statements, id: i64, changes: &Changes) -> Result<String> {
    let Changes { title, description, body, tags } = changes;
    let slug = match title {
        Some(title) => Some(free_slug(db, title).await?),
        None => None,
    };
    let values = params![
        slug.as_deref(),
        title.as_deref(),
        description.as_deref(),
        body.as_deref(),
        tags.as_deref().map(wire::tag_list),
        now(),
        id,
    ];
    db.query_opt(&queries::UPDATE, values).await?.ok_or_else(missing)
}

/// A slug that no article has.
async fn free_slug(db: &impl Statements, title: &str) -> Result<String> {
    for _ in 0..slug::ATTEMPTS {
        let slug = slug::of(title);
        if db.query_opt::<(i64, i64)>(&queries::FIND, params![&slug]).await?.is_none() {
            return Ok(slug);
        }
    }
    Err(Error::Internal)
}

async fn tag(db: &impl Statements, id: i64, tags: &[String]) -> Result<()> {
    for tag in tags {
        db.execute(&queries::TAG, params![tag, id]).await?;
    }
    Ok(())
}

/// How long a page for anybody may be old when Redis was away as it changed.
const CACHED: Duration = Duration::from_secs(10);

fn missing() -> Error {
    super::missing(&["article"])
}

//! Posts. One that is not published is there for its owner alone.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use tracing::Instrument as _;
use tracing::field::Empty;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::users::{SignedIn, User};
use crate::app::App;
use crate::db::{self, FromRow, Row, Sql, Statements as _, params};
use crate::error::{Error, Result};
use crate::input::{Fields, Id, Json, Query, Read};
use crate::time::{Moment, now};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(read, update, remove))
}

#[derive(Debug, Serialize, ToSchema)]
struct Post {
    title: String,
    content: String,
    published: bool,
    id: i64,
    created_at: Moment,
    user_id: i64,
    user: User,
}

impl FromRow for Post {
    fn from_row(row: &mut Row<'_>) -> db::Result<Self> {
        Ok(Self {
            title: row.take()?,
            content: row.take()?,
            published: row.take()?,
            id: row.take()?,
            created_at: row.take()?,
            user_id: row.take()?,
            user: User::from_row(row)?,
        })
    }
}

/// A post and how many like it.
#[derive(Debug, Serialize, ToSchema)]
struct Voted {
    #[serde(rename = "Post")]
    post: Post,
    votes: i64,
}

impl FromRow for Voted {
    fn from_row(row: &mut Row<'_>) -> db::Result<Self> {
        Ok(Self { votes: row.take()?, post: Post::from_row(row)? })
    }
}

#[derive(Debug, ToSchema)]
struct NewPost {
    /// 1 to 255 characters.
    title: String,
    /// 1 to 10,000 characters.
    content: String,
    #[schema(value_type = Option<bool>, default = true)]
    published: bool,
}

impl Read for NewPost {
    fn read(fields: &mut Fields) -> Self {
        Self {
            title: fields.text("title", 1..=255),
            content: fields.text("content", 1..=10_000),
            published: fields.boolean("published").unwrap_or(true),
        }
    }
}

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// At least 1; more than 100 acts as 100.
    #[param(default = 10, required = false)]
    limit: i64,
    /// How many to pass over.
    #[param(default = 0, required = false)]
    skip: i64,
    /// A part of the title, as it is written there.
    #[param(value_type = Option<String>)]
    search: String,
}

impl Read for Page {
    fn read(fields: &mut Fields) -> Self {
        Self {
            limit: fields.integer("limit", 1..=i64::MAX).unwrap_or(10).min(100),
            skip: fields.integer("skip", 0..=i64::MAX).unwrap_or(0),
            search: fields.any_text("search", 255).unwrap_or_default(),
        }
    }
}

/// Posts, newest first
#[utoipa::path(get, path = "/posts", tag = "blog", security(("bearer" = [])), params(Page),
    responses((status = 200, body = Vec<Voted>), (status = 401), (status = 422)))]
async fn list(
    State(app): State<App>,
    user: SignedIn,
    Query(page): Query<Page>,
) -> Result<Json<Vec<Voted>>> {
    let values = params![user.id, &page.search, page.limit, page.skip];
    Ok(Json(app.db.query(&LIST, values).await?))
}

/// A new post
#[utoipa::path(post, path = "/posts", tag = "blog", security(("bearer" = [])),
    request_body = NewPost,
    responses((status = 201, body = Post), (status = 401), (status = 422)))]
async fn create(
    State(app): State<App>,
    user: SignedIn,
    Json(new): Json<NewPost>,
) -> Result<(StatusCode, Json<Post>)> {
    let span = tracing::info_span!("post.create", user.id = user.id, post.id = Empty);
    async {
        let values = params![user.id, &new.title, &new.content, new.published, now()];
        let id = app.db.query_one(&CREATE, values).await?;
        tracing::Span::current().record("post.id", id);
        tracing::info!(post.id = id, "post created");
        Ok((StatusCode::CREATED, Json(find(&app, id, user.id).await?.post)))
    }
    .instrument(span)
    .await
}

/// One post
#[utoipa::path(get, path = "/posts/{id}", tag = "blog", security(("bearer" = [])),
    params(("id" = i64, Path)),
    responses((status = 200, body = Voted), (status = 401), (status = 404)))]
async fn read(State(app): State<App>, user: SignedIn, Id(id): Id) -> Result<Json<Voted>> {
    find(&app, id, user.id).await.map(Json)
}

/// Another text for a post
#[utoipa::path(put, path = "/posts/{id}", tag = "blog", security(("bearer" = [])),
    params(("id" = i64, Path)), request_body = NewPost, responses((status = 200, body = Post),
    (status = 401), (status = 403), (status = 404), (status = 422)))]
async fn update(
    State(app): State<App>,
    user: SignedIn,
    Id(id): Id,
    Json(new): Json<NewPost>,
) -> Result<Json<Post>> {
    let span = tracing::info_span!("post.update", user.id = user.id, post.id = id);
    async {
        own(&app, id, user.id, "You do not have permissions to update others posts!").await?;
        let values = params![&new.title, &new.content, new.published, id];
        if app.db.execute(&UPDATE, values).await? == 0 {
            return Err(missing(id));
        }
        tracing::info!(post.id = id, "post changed");
        Ok(Json(find(&app, id, user.id).await?.post))
    }
    .instrument(span)
    .await
}

/// Takes a post away
#[utoipa::path(delete, path = "/posts/{id}", tag = "blog", security(("bearer" = [])),
    params(("id" = i64, Path)),
    responses((status = 204), (status = 401), (status = 403), (status = 404)))]
async fn remove(State(app): State<App>, user: SignedIn, Id(id): Id) -> Result<StatusCode> {
    let span = tracing::info_span!("post.delete", user.id = user.id, post.id = id);
    async {
        own(&app, id, user.id, "You do not have permissions to delete others posts!").await?;
        if app.db.execute(&REMOVE, params![id]).await? == 0 {
            return Err(missing(id));
        }
        tracing::info!(post.id = id, "post removed");
        Ok(StatusCode::NO_CONTENT)
    }
    .instrument(span)
    .await
}

/// A post that this user may see.
async fn find(app: &App, id: i64, user: i64) -> Result<Voted> {
    app.db.query_opt(&READ, params![id, user]).await?.ok_or_else(|| missing(id))
}

async fn own(app: &App, id: i64, user: i64, refusal: &'static str) -> Result<()> {
    if find(app, id, user).await?.post.user_id == user {
        Ok(())
    } else {
        Err(Error::detail(StatusCode::FORBIDDEN, refusal))
    }
}

fn missing(id: i64) -> Error {
    super::missing(format!("Post with id {id} was not found."))
}

/// A post with its votes and its owner.
macro_rules! posts {
    ($rest:literal) => {
        concat!(
            "SELECT (SELECT count(*) FROM blog_votes v WHERE v.post_id = p.id), \
             p.title, p.content, p.published, p.id, p.created_at, p.user_id, \
             u.id, u.email, u.created_at \
             FROM blog_posts p JOIN blog_users u ON u.id = p.user_id WHERE ",
            $rest
        )
    };
}

/// `replace`, because `LIKE` knows wildcards, and letters of both cases are one to SQLite.
static LIST: Sql = Sql::select(
    "blog_posts",
    posts!(
        "(p.published OR p.user_id = $1) \
         AND (CAST($2 AS TEXT) = '' OR replace(p.title, CAST($2 AS TEXT), '') <> p.title) \
         ORDER BY p.id DESC LIMIT $3 OFFSET $4"
    ),
);
static READ: Sql =
    Sql::select("blog_posts", posts!("p.id = $1 AND (p.published OR p.user_id = $2)"));
static CREATE: Sql = Sql::insert(
    "blog_posts",
    "INSERT INTO blog_posts (user_id, title, content, published, created_at) \
     VALUES ($1, $2, $3, $4, $5) RETURNING id",
);
static UPDATE: Sql = Sql::update(
    "blog_posts",
    "UPDATE blog_posts SET title = $1, content = $2, published = $3 WHERE id = $4",
);
static REMOVE: Sql = Sql::delete("blog_posts", "DELETE FROM blog_posts WHERE id = $1");

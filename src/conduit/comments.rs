//! Comments on articles.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::profiles::Profile;
use super::viewer::{SignedIn, Visitor};
use crate::app::App;
use crate::db::{self, FromRow, Row, Sql, Statements as _, params};
use crate::error::Result;
use crate::input::{Fields, Id, Json, Name, Read};
use crate::time::{Moment, now};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(remove))
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Comment {
    id: i64,
    created_at: Moment,
    updated_at: Moment,
    body: String,
    author: Profile,
}

impl FromRow for Comment {
    fn from_row(row: &mut Row<'_>) -> db::Result<Self> {
        Ok(Self {
            id: row.take()?,
            created_at: row.take()?,
            updated_at: row.take()?,
            body: row.take()?,
            author: Profile::from_row(row)?,
        })
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct CommentBody {
    comment: Comment,
}

#[derive(Debug, Serialize, ToSchema)]
struct Comments {
    comments: Vec<Comment>,
}

#[derive(Debug, ToSchema)]
struct NewCommentBody {
    comment: NewComment,
}

impl Read for NewCommentBody {
    fn read(fields: &mut Fields) -> Self {
        Self { comment: fields.object("comment") }
    }
}

#[derive(Debug, ToSchema)]
struct NewComment {
    /// 1 to 8,192 characters.
    body: String,
}

impl Read for NewComment {
    fn read(fields: &mut Fields) -> Self {
        Self { body: fields.text("body", 1..=8_192) }
    }
}

/// The comments of an article, oldest first
#[utoipa::path(get, path = "/api/articles/{slug}/comments", tag = "conduit",
    security((), ("token" = [])), params(("slug" = String, Path)),
    responses((status = 200, body = Comments), (status = 404)))]
async fn list(
    State(app): State<App>,
    visitor: Visitor,
    Name(slug): Name,
) -> Result<Json<Comments>> {
    let article = article(&app, &slug).await?;
    let comments = app.db.query(&LIST, params![visitor.id(), article]).await?;
    Ok(Json(Comments { comments }))
}

/// A new comment
#[utoipa::path(post, path = "/api/articles/{slug}/comments", tag = "conduit",
    security(("token" = [])), params(("slug" = String, Path)), request_body = NewCommentBody,
    responses((status = 201, body = CommentBody), (status = 401), (status = 404), (status = 422)))]
async fn create(
    State(app): State<App>,
    SignedIn { account, .. }: SignedIn,
    Name(slug): Name,
    Json(NewCommentBody { comment: new }): Json<NewCommentBody>,
) -> Result<(StatusCode, Json<CommentBody>)> {
    let (article, now) = (article(&app, &slug).await?, now());
    let values = params![article, account.id, &new.body, now, now];
    let id: i64 = app.db.query_one(&CREATE, values).await.map_err(|error| match error {
        db::Error::ForeignKey => super::missing(&["article"]),
        error => error.into(),
    })?;
    tracing::info!(comment.id = id, article.id = article, "comment created");
    // Nobody follows themselves.
    let author = Profile {
        username: account.username,
        bio: account.bio,
        image: account.image,
        following: false,
    };
    let (created_at, updated_at) = (Moment(now), Moment(now));
    let comment = Comment { id, created_at, updated_at, body: new.body, author };
    Ok((StatusCode::CREATED, Json(CommentBody { comment })))
}

/// Takes a comment away
#[utoipa::path(delete, path = "/api/articles/{slug}/comments/{id}", tag = "conduit",
    security(("token" = [])), params(("slug" = String, Path), ("id" = i64, Path)),
    responses((status = 204), (status = 401), (status = 403), (status = 404), (status = 422)))]
async fn remove(
    State(app): State<App>,
    SignedIn { account, .. }: SignedIn,
    Name(slug): Name,
    Id(id): Id,
) -> Result<StatusCode> {
    let article = article(&app, &slug).await?;
    let author: Option<i64> = app.db.query_opt(&AUTHOR, params![id, article]).await?;
    if author.ok_or_else(|| super::missing(&["comment"]))? != account.id {
        return Err(super::forbidden(&["comment"]));
    }
    if app.db.execute(&REMOVE, params![id]).await? == 0 {
        return Err(super::missing(&["comment"]));
    }
    tracing::info!(comment.id = id, article.id = article, "comment removed");
    Ok(StatusCode::NO_CONTENT)
}

async fn article(app: &App, slug: &str) -> Result<i64> {
    let found = app.db.query_opt(&ARTICLE, params![slug]).await?;
    found.ok_or_else(|| super::missing(&["article"]))
}

static ARTICLE: Sql =
    Sql::select("conduit_articles", "SELECT id FROM conduit_articles WHERE slug = $1");
static LIST: Sql = Sql::select(
    "conduit_comments",
    "SELECT c.id, c.created_at, c.updated_at, c.body, u.username, u.bio, u.image, \
     EXISTS (SELECT 1 FROM conduit_follows f WHERE f.follower_id = $1 AND f.followee_id = u.id) \
     FROM conduit_comments c JOIN conduit_users u ON u.id = c.author_id \
     WHERE c.article_id = $2 ORDER BY c.id",
);
static CREATE: Sql = Sql::insert(
    "conduit_comments",
    "INSERT INTO conduit_comments (article_id, author_id, body, created_at, updated_at) \
     VALUES ($1, $2, $3, $4, $5) RETURNING id",
);
static AUTHOR: Sql = Sql::select(
    "conduit_comments",
    "SELECT author_id FROM conduit_comments WHERE id = $1 AND article_id = $2",
);
static REMOVE: Sql = Sql::delete("conduit_comments", "DELETE FROM conduit_comments WHERE id = $1");

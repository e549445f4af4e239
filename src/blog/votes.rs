//! Votes: one of each user for a post, or none.

use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use serde::Serialize;
use tracing::Instrument as _;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::users::SignedIn;
use crate::app::App;
use crate::db::{self, Sql, Statements as _, params};
use crate::error::{Error, Result};
use crate::input::{Fields, Json, Query, Read};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(vote, take_back))
}

/// One of `voted` and `dir` says what is meant; both must not disagree.
#[derive(Debug, ToSchema)]
struct Vote {
    post_id: i64,
    /// Whether there is to be a vote.
    voted: Option<bool>,
    /// The same as 1 or 0.
    dir: Option<i64>,
}

impl Read for Vote {
    fn read(fields: &mut Fields) -> Self {
        let vote = Self {
            post_id: fields.id("post_id"),
            voted: fields.boolean("voted"),
            dir: fields.integer("dir", 0..=1),
        };
        match (vote.voted, vote.dir) {
            (None, None) => fields.refuse("voted", "must be there, or dir"),
            (Some(voted), Some(dir)) if voted != (dir == 1) => {
                fields.refuse("dir", "contradicts voted");
            }
            _ => (),
        }
        vote
    }
}

/// The post that a vote is taken back from, in the query or in the body.
#[derive(Debug, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    post_id: i64,
}

impl Read for Which {
    fn read(fields: &mut Fields) -> Self {
        Self { post_id: fields.id("post_id") }
    }
}

impl FromRequest<App> for Which {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self> {
        if request.uri().query().is_some_and(|query| !query.is_empty()) {
            Query::from_request(request, app).await.map(|Query(which)| which)
        } else {
            Json::from_request(request, app).await.map(|Json(which)| which)
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Message {
    message: &'static str,
}

/// Gives a vote, or takes it back
#[utoipa::path(post, path = "/vote", tag = "blog", security(("bearer" = [])), request_body = Vote,
    responses((status = 201, body = Message), (status = 401), (status = 404), (status = 409),
        (status = 422)))]
async fn vote(
    State(app): State<App>,
    user: SignedIn,
    Json(vote): Json<Vote>,
) -> Result<(StatusCode, Json<Message>)> {
    let is_given = vote.voted.unwrap_or(vote.dir == Some(1));
    let message = if is_given {
        add(&app, user.id, vote.post_id).await?
    } else {
        remove(&app, user.id, vote.post_id).await?
    };
    Ok((StatusCode::CREATED, message))
}

/// Takes a vote back
#[utoipa::path(delete, path = "/vote", tag = "blog", security(("bearer" = [])), params(Which),
    responses((status = 200, body = Message), (status = 401), (status = 404), (status = 422)))]
async fn take_back(State(app): State<App>, user: SignedIn, which: Which) -> Result<Json<Message>> {
    remove(&app, user.id, which.post_id).await
}

async fn add(app: &App, user: i64, post: i64) -> Result<Json<Message>> {
    let span = tracing::info_span!("vote.add", user.id = user, post.id = post);
    async {
        check_post(app, user, post).await?;
        let added =
            app.db.execute(&ADD, params![user, post]).await.map_err(|error| match error {
                db::Error::ForeignKey => missing(post),
                error => error.into(),
            })?;
        if added == 0 {
            let text = format!("User {user} has already voted on {post}!");
            return Err(Error::detail(StatusCode::CONFLICT, text));
        }
        tracing::info!(post.id = post, user.id = user, "vote added");
        Ok(Json(Message { message: "Successfully added vote." }))
    }
    .instrument(span)
    .await
}

async fn remove(app: &App, user: i64, post: i64) -> Result<Json<Message>> {
    let span = tracing::info_span!("vote.remove", user.id = user, post.id = post);
    async {
        check_post(app, user, post).await?;
        if app.db.execute(&REMOVE, params![user, post]).await? == 0 {
            return Err(Error::detail(StatusCode::NOT_FOUND, "Vote does not exist!"));
        }
        tracing::info!(post.id = post, user.id = user, "vote removed");
        Ok(Json(Message { message: "Successfully deleted vote." }))
    }
    .instrument(span)
    .await
}

async fn check_post(app: &App, user: i64, post: i64) -> Result<()> {
    let found: Option<i64> = app.db.query_opt(&VISIBLE, params![post, user]).await?;
    found.map(|_| ()).ok_or_else(|| missing(post))
}

fn missing(post: i64) -> Error {
    super::missing(format!("Post with id {post} does not exist."))
}

static VISIBLE: Sql = Sql::select(
    "blog_posts",
    "SELECT id FROM blog_posts WHERE id = $1 AND (published OR user_id = $2)",
);
static ADD: Sql = Sql::insert(
    "blog_votes",
    "INSERT INTO blog_votes (user_id, post_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
);
static REMOVE: Sql =
    Sql::delete("blog_votes", "DELETE FROM blog_votes WHERE user_id = $1 AND post_id = $2");

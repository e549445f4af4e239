//! What others see of a user, and following.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::viewer::{SignedIn, Visitor};
use crate::app::App;
use crate::db::{FromRow, Row, Sql, Statements as _, params};
use crate::error::{Error, Result};
use crate::input::{Json, Name};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read)).routes(routes!(follow, unfollow))
}

/// A user as the viewer sees them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Profile {
    pub(super) username: String,
    pub(super) bio: Option<String>,
    pub(super) image: Option<String>,
    pub(super) following: bool,
}

impl FromRow for Profile {
    fn from_row(row: &mut Row<'_>) -> crate::db::Result<Self> {
        Ok(Self {
            username: row.take()?,
            bio: row.take()?,
            image: row.take()?,
            following: row.take()?,
        })
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct ProfileBody {
    profile: Profile,
}

/// A user as others see them
#[utoipa::path(get, path = "/api/profiles/{username}", tag = "conduit",
    security((), ("token" = [])), params(("username" = String, Path)),
    responses((status = 200, body = ProfileBody), (status = 404)))]
async fn read(
    State(app): State<App>,
    visitor: Visitor,
    Name(username): Name,
) -> Result<Json<ProfileBody>> {
    let (_, profile) = find(&app, visitor.id(), &username).await?;
    Ok(Json(ProfileBody { profile }))
}

/// Follows a user; again is no error
#[utoipa::path(post, path = "/api/profiles/{username}/follow", tag = "conduit",
    security(("token" = [])), params(("username" = String, Path)),
    responses((status = 200, body = ProfileBody), (status = 401), (status = 404), (status = 422)))]
async fn follow(
    State(app): State<App>,
    SignedIn { account, .. }: SignedIn,
    Name(username): Name,
) -> Result<Json<ProfileBody>> {
    if username == account.username {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(Error::refused(status, &["username"], "can't follow yourself"));
    }
    let (id, profile) = find(&app, account.id, &username).await?;
    app.db.execute(&FOLLOW, params![account.id, id]).await.map_err(|error| match error {
        crate::db::Error::ForeignKey => super::missing(&["profile"]),
        error => error.into(),
    })?;
    tracing::info!(user.id = account.id, followee.id = id, "user followed");
    Ok(Json(ProfileBody { profile: Profile { following: true, ..profile } }))
}

/// Follows a user no more; again is no error
#[utoipa::path(delete, path = "/api/profiles/{username}/follow", tag = "conduit",
    security(("token" = [])), params(("username" = String, Path)),
    responses((status = 200, body = ProfileBody), (status = 401), (status = 404)))]
async fn unfollow(
    State(app): State<App>,
    SignedIn { account, .. }: SignedIn,
    Name(username): Name,
) -> Result<Json<ProfileBody>> {
    let (id, profile) = find(&app, account.id, &username).await?;
    app.db.execute(&UNFOLLOW, params![account.id, id]).await?;
    tracing::info!(user.id = account.id, followee.id = id, "user unfollowed");
    Ok(Json(ProfileBody { profile: Profile { following: false, ..profile } }))
}

async fn find(app: &App, viewer: i64, username: &str) -> Result<(i64, Profile)> {
    let found = app.db.query_opt(&FIND, params![viewer, username]).await?;
    found.ok_or_else(|| super::missing(&["profile"]))
}

static FIND: Sql = Sql::select(
    "conduit_users",
    "SELECT u.id, u.username, u.bio, u.image, EXISTS (SELECT 1 FROM conduit_follows f \
     WHERE f.follower_id = $1 AND f.followee_id = u.id) \
     FROM conduit_users u WHERE u.username = $2",
);
static FOLLOW: Sql = Sql::insert(
    "conduit_follows",
    "INSERT INTO conduit_follows (follower_id, followee_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
);
static UNFOLLOW: Sql = Sql::delete(
    "conduit_follows",
    "DELETE FROM conduit_follows WHERE follower_id = $1 AND followee_id = $2",
);

//! Who asks: a signed-in user, or anybody.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

use crate::app::App;
use crate::auth::{Audience, Presented};
use crate::db::{FromRow, Row, Sql, Statements as _, params};
use crate::error::{Error, Result};
use crate::secret::Secret;

/// A user, as the row says now.
pub(super) struct Account {
    pub(super) id: i64,
    pub(super) email: String,
    pub(super) username: String,
    pub(super) bio: Option<String>,
    pub(super) image: Option<String>,
    pub(super) token_version: i64,
}

impl FromRow for Account {
    fn from_row(row: &mut Row<'_>) -> crate::db::Result<Self> {
        Ok(Self {
            id: row.take()?,
            email: row.take()?,
            username: row.take()?,
            bio: row.take()?,
            image: row.take()?,
            token_version: row.take()?,
        })
    }
}

/// A user who has shown a good token.
pub(super) struct SignedIn {
    pub(super) account: Account,
    pub(super) token: Secret,
}

/// A user or nobody; a token that is shown must be good all the same.
pub(super) struct Visitor(Option<i64>);

impl Visitor {
    /// The user's id; 0, which no user has, for anybody.
    pub(super) fn id(&self) -> i64 {
        self.0.unwrap_or(0)
    }
}

impl FromRequestParts<App> for SignedIn {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        signed_in(parts, app).await?.ok_or_else(|| unauthorized("is missing"))
    }
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        Ok(Self(signed_in(parts, app).await?.map(|signed_in| signed_in.account.id)))
    }
}

/// `None` without a token. Each request reads the row: a user who is gone, or has a new password, has no token any more.
async fn signed_in(parts: &Parts, app: &App) -> Result<Option<SignedIn>> {
    let token = match Presented::of(&parts.headers, &["Token", "Bearer"]) {
        Presented::Nothing => return Ok(None),
        Presented::Unreadable => return Err(unauthorized("invalid")),
        Presented::Token(token) => token,
    };
    let Some(credentials) = app.auth.verify(Audience::Conduit, token)? else {
        return Err(unauthorized("invalid"));
    };
    let account: Option<Account> = app.db.query_opt(&BY_ID, params![credentials.user]).await?;
    let account = account.filter(|account| account.token_version == credentials.version);
    let account = account.ok_or_else(|| unauthorized("invalid"))?;
    Ok(Some(SignedIn { account, token: Secret::new(token.to_owned()) }))
}

fn unauthorized(text: &'static str) -> Error {
    Error::refused(StatusCode::UNAUTHORIZED, &["token"], text)
}

static BY_ID: Sql = Sql::select(
    "conduit_users",
    "SELECT id, email, username, bio, image, token_version FROM conduit_users WHERE id = $1",
);

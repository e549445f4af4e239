//! Users of the blog, and who of them asks.

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Serialize;
use tracing::Instrument as _;
use tracing::field::Empty;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::{Audience, Login, Presented, Verdict};
use crate::db::{self, FromRow, Row, Sql, Statements as _, params};
use crate::error::{Error, Result};
use crate::input::{Fields, Id, Json, Read, UrlEncoded, email, email_key, password};
use crate::secret::Secret;
use crate::time::{Moment, now};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(register)).routes(routes!(read)).routes(routes!(login))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BlogUser)]
pub(super) struct User {
    id: i64,
    email: String,
    created_at: Moment,
}

impl FromRow for User {
    fn from_row(row: &mut Row<'_>) -> db::Result<Self> {
        Ok(Self { id: row.take()?, email: row.take()?, created_at: row.take()? })
    }
}

#[derive(ToSchema)]
struct NewUser {
    email: String,
    /// 8 to 128 characters, a letter and a digit among them.
    #[schema(value_type = String)]
    password: Secret,
}

impl Read for NewUser {
    fn read(fields: &mut Fields) -> Self {
        let (email, password) = (email(fields), password(fields, 8));
        let text = password.expose();
        if text.chars().count() > 128 {
            fields.refuse("password", "is too long (maximum is 128 characters)");
        }
        let lacks = |kind: fn(char) -> bool| !text.chars().any(kind);
        if !text.is_empty() && (lacks(char::is_numeric) || lacks(char::is_alphabetic)) {
            fields.refuse("password", "must contain a letter and a digit");
        }
        Self { email, password }
    }
}

/// As OAuth 2 sends it; other fields are ignored.
#[derive(ToSchema)]
struct Form {
    /// The e-mail.
    username: String,
    #[schema(value_type = String)]
    password: Secret,
}

impl Read for Form {
    fn read(fields: &mut Fields) -> Self {
        let any = 1..=usize::MAX;
        let username = fields.text("username", any.clone());
        Self { username, password: Secret::new(fields.text("password", any)) }
    }
}

#[derive(Serialize, ToSchema)]
struct Token {
    access_token: String,
    /// `bearer`.
    token_type: &'static str,
}

/// A user who has shown a good token.
pub(super) struct SignedIn {
    pub(super) id: i64,
}

impl FromRequestParts<App> for SignedIn {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let unauthorized =
            || Error::detail(StatusCode::UNAUTHORIZED, "Could not validate credentials.");
        let Presented::Token(token) = Presented::of(&parts.headers, &["Bearer"]) else {
            return Err(unauthorized());
        };
        let credentials = app.auth.verify(Audience::Blog, token)?.ok_or_else(unauthorized)?;
        let version = app.db.query_opt(&VERSION, params![credentials.user]).await?;
        if version != Some(credentials.version) {
            return Err(unauthorized());
        }
        Ok(Self { id: credentials.user })
    }
}

/// Signs a new user up
#[utoipa::path(post, path = "/users", tag = "blog", request_body = NewUser,
    responses((status = 201, body = User), (status = 409), (status = 422)))]
async fn register(
    State(app): State<App>,
    Json(new): Json<NewUser>,
) -> Result<(StatusCode, Json<User>)> {
    let span = tracing::info_span!("user.register", user.id = Empty);
    async {
        let hash = app.auth.hash(new.password).await?;
        let values = params![&new.email, email_key(&new.email), hash.expose(), now()];
        let user: User =
            app.db.query_one(&REGISTER, values).await.map_err(|error| match error {
                db::Error::Unique => {
                    Error::detail(StatusCode::CONFLICT, "Email already registered")
                }
                error => error.into(),
            })?;
        tracing::Span::current().record("user.id", user.id);
        tracing::info!(user.id = user.id, "user registered");
        Ok((StatusCode::CREATED, Json(user)))
    }
    .instrument(span)
    .await
}

/// One user
#[utoipa::path(get, path = "/users/{id}", tag = "blog", security(("bearer" = [])),
    params(("id" = i64, Path)),
    responses((status = 200, body = User), (status = 401), (status = 404)))]
async fn read(State(app): State<App>, _: SignedIn, Id(id): Id) -> Result<Json<User>> {
    let user = app.db.query_opt(&READ, params![id]).await?;
    user.map(Json).ok_or_else(|| super::missing(format!("User with id {id} does not exist!")))
}

/// Signs a user in
#[utoipa::path(post, path = "/login", tag = "blog",
    request_body(content = Form, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = Token), (status = 403), (status = 415), (status = 422),
        (status = 429)))]
async fn login(State(app): State<App>, UrlEncoded(form): UrlEncoded<Form>) -> Result<Json<Token>> {
    let key = email_key(&form.username);
    let known: Option<Known> = app.db.query_opt(&BY_EMAIL, params![&key]).await?;
    let login = Login {
        audience: Audience::Blog,
        account: key,
        password: form.password,
        hash: known.as_ref().map(|known| known.hash.clone()),
    };
    match (app.auth.login(&app.db, login).await?, known) {
        (Verdict::Right, Some(Known { id, token_version, .. })) => {
            tracing::info!(user.id = id, "user signed in");
            let token = app.auth.issue(Audience::Blog, id, token_version)?;
            let access_token = token.expose().to_owned();
            Ok(Json(Token { access_token, token_type: "bearer" }))
        }
        _ => Err(Error::detail(StatusCode::FORBIDDEN, "Invalid credentials.")),
    }
}

/// What a password is checked against.
struct Known {
    id: i64,
    token_version: i64,
    hash: Secret,
}

impl FromRow for Known {
    fn from_row(row: &mut Row<'_>) -> db::Result<Self> {
        let (id, token_version) = (row.take()?, row.take()?);
        Ok(Self { id, token_version, hash: Secret::new(row.take()?) })
    }
}

static VERSION: Sql =
    Sql::select("blog_users", "SELECT token_version FROM blog_users WHERE id = $1");
static REGISTER: Sql = Sql::insert(
    "blog_users",
    "INSERT INTO blog_users (email, email_key, password_hash, token_version, created_at) \
     VALUES ($1, $2, $3, 1, $4) RETURNING id, email, created_at",
);
static READ: Sql =
    Sql::select("blog_users", "SELECT id, email, created_at FROM blog_users WHERE id = $1");
static BY_EMAIL: Sql = Sql::select(
    "blog_users",
    "SELECT id, token_version, password_hash FROM blog_users WHERE email_key = $1",
);

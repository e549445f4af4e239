//! Accounts: signing up, signing in, and what one says of oneself.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use tracing::Instrument as _;
use tracing::field::Empty;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::viewer::{Account, SignedIn};
use crate::app::App;
use crate::auth::{Audience, Login, Verdict};
use crate::db::{self, FromRow, Row, Sql, Statements as _, params};
use crate::error::{Error, Result};
use crate::input::{Edit, Fields, Json, Read, email, email_key, password};
use crate::secret::Secret;
use crate::time::now;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(current, update))
}

#[derive(Serialize, ToSchema)]
struct UserBody {
    user: User,
}

#[derive(Serialize, ToSchema)]
struct User {
    email: String,
    token: String,
    username: String,
    bio: Option<String>,
    image: Option<String>,
}

impl UserBody {
    fn new(account: Account, token: &Secret) -> Json<Self> {
        let Account { email, username, bio, image, .. } = account;
        let token = token.expose().to_owned();
        Json(Self { user: User { email, token, username, bio, image } })
    }
}

#[derive(ToSchema)]
struct RegistrationBody {
    user: Registration,
}

impl Read for RegistrationBody {
    fn read(fields: &mut Fields) -> Self {
        Self { user: fields.object("user") }
    }
}

#[derive(ToSchema)]
struct Registration {
    /// 1 to 64 characters.
    username: String,
    email: String,
    /// 8 characters to 1,024 bytes.
    #[schema(value_type = String)]
    password: Secret,
}

impl Read for Registration {
    fn read(fields: &mut Fields) -> Self {
        let name = fields.text("username", 1..=64);
        Self {
            username: username(fields, name),
            email: email(fields),
            password: password(fields, 8),
        }
    }
}

#[derive(ToSchema)]
struct SignInBody {
    user: SignIn,
}

impl Read for SignInBody {
    fn read(fields: &mut Fields) -> Self {
        Self { user: fields.object("user") }
    }
}

#[derive(ToSchema)]
struct SignIn {
    email: String,
    #[schema(value_type = String)]
    password: Secret,
}

impl Read for SignIn {
    fn read(fields: &mut Fields) -> Self {
        let any = 1..=usize::MAX;
        let email = fields.text("email", any.clone());
        Self { email, password: Secret::new(fields.text("password", any)) }
    }
}

#[derive(ToSchema)]
struct UpdateBody {
    user: Update,
}

impl Read for UpdateBody {
    fn read(fields: &mut Fields) -> Self {
        Self { user: fields.object("user") }
    }
}

/// What is absent stays; `bio` and `image` are taken away by null.
#[derive(ToSchema)]
struct Update {
    username: Option<String>,
    email: Option<String>,
    #[schema(value_type = Option<String>)]
    password: Option<Secret>,
    #[schema(value_type = Option<String>)]
    bio: Edit,
    #[schema(value_type = Option<String>)]
    image: Edit,
}

impl Read for Update {
    fn read(fields: &mut Fields) -> Self {
        let name = fields.changed_text("username", 1..=64);
        Self {
            username: name.map(|name| username(fields, name)),
            email: fields.has("email").then(|| email(fields)),
            password: fields.has("password").then(|| password(fields, 8)),
            bio: fields.edited_text("bio", 4_096),
            image: fields.edited_text("image", 2_048),
        }
    }
}

fn username(fields: &mut Fields, name: String) -> String {
    if name.chars().any(char::is_control) {
        fields.refuse("username", "is invalid");
    }
    name
}

/// Signs a new user up
#[utoipa::path(post, path = "/api/users", tag = "conduit", request_body = RegistrationBody,
    responses((status = 201, body = UserBody), (status = 409), (status = 422)))]
async fn register(
    State(app): State<App>,
    Json(RegistrationBody { user: new }): Json<RegistrationBody>,
) -> Result<(StatusCode, Json<UserBody>)> {
    let span = tracing::info_span!("user.register", user.id = Empty);
    async {
        let hash = app.auth.hash(new.password).await?;
        let (key, now) = (email_key(&new.email), now());
        let values = params![&new.email, &key, &new.username, hash.expose(), now, now];
        let account: Account = match app.db.query_one(&REGISTER, values).await {
            Ok(account) => account,
            Err(db::Error::Unique) => return Err(taken(&app, 0, &key, &new.username).await?),
            Err(error) => return Err(error.into()),
        };
        tracing::Span::current().record("user.id", account.id);
        tracing::info!(user.id = account.id, "user registered");
        let token = app.auth.issue(Audience::Conduit, account.id, account.token_version)?;
        Ok((StatusCode::CREATED, UserBody::new(account, &token)))
    }
    .instrument(span)
    .await
}

/// Signs a user in
#[utoipa::path(post, path = "/api/users/login", tag = "conduit", request_body = SignInBody,
    responses((status = 200, body = UserBody), (status = 401), (status = 422), (status = 429)))]
async fn login(
    State(app): State<App>,
    Json(SignInBody { user: sign_in }): Json<SignInBody>,
) -> Result<Json<UserBody>> {
    let key = email_key(&sign_in.email);
    let known: Option<WithHash> = app.db.query_opt(&BY_EMAIL, params![&key]).await?;
    let login = Login {
        audience: Audience::Conduit,
        account: key,
        password: sign_in.password,
        hash: known.as_ref().map(|known| known.hash.clone()),
    };
    match (app.auth.login(&app.db, login).await?, known) {
        (Verdict::Right, Some(WithHash { account, .. })) => {
            tracing::info!(user.id = account.id, "user signed in");
            let token = app.auth.issue(Audience::Conduit, account.id, account.token_version)?;
            Ok(UserBody::new(account, &token))
        }
        _ => Err(Error::refused(StatusCode::UNAUTHORIZED, &["credentials"], "invalid")),
    }
}

/// The user whose token it is
#[utoipa::path(get, path = "/api/user", tag = "conduit", security(("token" = [])),
    responses((status = 200, body = UserBody), (status = 401)))]
async fn current(SignedIn { account, token }: SignedIn) -> Json<UserBody> {
    UserBody::new(account, &token)
}

/// Changes what one says of oneself; a new password ends all earlier tokens
#[utoipa::path(put, path = "/api/user", tag = "conduit", security(("token" = [])),
    request_body = UpdateBody,
    responses((status = 200, body = UserBody), (status = 401), (status = 409), (status = 422)))]
async fn update(
    State(app): State<App>,
    SignedIn { account, mut token }: SignedIn,
    Json(UpdateBody { user: update }): Json<UpdateBody>,
) -> Result<Json<UserBody>> {
    let hash = match update.password {
        Some(password) => Some(app.auth.hash(password).await?),
        None => None,
    };
    let key = update.email.as_deref().map(email_key);
    let values = params![
        update.email.as_deref(),
        key.as_deref(),
        update.username.as_deref(),
        hash.as_ref().map(Secret::expose),
        update.bio != Edit::Keep,
        update.bio.text(),
        update.image != Edit::Keep,
        update.image.text(),
        now(),
        account.id,
    ];
    let updated: Option<Account> = match app.db.query_opt(&UPDATE, values).await {
        Ok(updated) => updated,
        Err(db::Error::Unique) => {
            let key = key.unwrap_or_else(|| email_key(&account.email));
            let username = update.username.unwrap_or(account.username);
            return Err(taken(&app, account.id, &key, &username).await?);
        }
        Err(error) => return Err(error.into()),
    };
    // Gone since the token was looked at.
    let updated = updated.ok_or_else(|| super::missing(&["user"]))?;
    app.cache.invalidate_lists().await;
    if updated.token_version != account.token_version {
        token = app.auth.issue(Audience::Conduit, updated.id, updated.token_version)?;
    }
    tracing::info!(user.id = updated.id, "user changed");
    Ok(UserBody::new(updated, &token))
}

/// Which of both somebody else has.
async fn taken(app: &App, id: i64, key: &str, username: &str) -> Result<Error> {
    let values = params![key, id, username, id];
    let fields: &[&str] = match app.db.query_one(&TAKEN, values).await? {
        (true, true) => &["email", "username"],
        (true, false) => &["email"],
        (false, _) => &["username"],
    };
    Ok(Error::refused(StatusCode::CONFLICT, fields, "has already been taken"))
}

/// A user and what the password is checked against.
struct WithHash {
    account: Account,
    hash: Secret,
}

impl FromRow for WithHash {
    fn from_row(row: &mut Row<'_>) -> db::Result<Self> {
        Ok(Self { account: Account::from_row(row)?, hash: Secret::new(row.take()?) })
    }
}

static REGISTER: Sql = Sql::insert(
    "conduit_users",
    "INSERT INTO conduit_users \
     (email, email_key, username, password_hash, token_version, created_at, updated_at) \
     VALUES ($1, $2, $3, $4, 1, $5, $6) \
     RETURNING id, email, username, bio, image, token_version",
);
static BY_EMAIL: Sql = Sql::select(
    "conduit_users",
    "SELECT id, email, username, bio, image, token_version, password_hash \
     FROM conduit_users WHERE email_key = $1",
);
static UPDATE: Sql = Sql::update(
    "conduit_users",
    "UPDATE conduit_users SET \
     email = COALESCE(CAST($1 AS TEXT), email), \
     email_key = COALESCE(CAST($2 AS TEXT), email_key), \
     username = COALESCE(CAST($3 AS TEXT), username), \
     password_hash = COALESCE(CAST($4 AS TEXT), password_hash), \
     token_version = token_version + CASE WHEN CAST($4 AS TEXT) IS NULL THEN 0 ELSE 1 END, \
     bio = CASE WHEN CAST($5 AS BOOLEAN) THEN CAST($6 AS TEXT) ELSE bio END, \
     image = CASE WHEN CAST($7 AS BOOLEAN) THEN CAST($8 AS TEXT) ELSE image END, \
     updated_at = CASE WHEN updated_at >= CAST($9 AS BIGINT) THEN updated_at + 1 ELSE $9 END \
     WHERE id = $10 RETURNING id, email, username, bio, image, token_version",
);
static TAKEN: Sql = Sql::select(
    "conduit_users",
    "SELECT EXISTS (SELECT 1 FROM conduit_users WHERE email_key = $1 AND id <> $2), \
     EXISTS (SELECT 1 FROM conduit_users WHERE username = $3 AND id <> $4)",
);

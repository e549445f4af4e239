//! Who asks: tokens, passwords, and how often a password may be wrong.
//!
//! What a user is, and which row of which table, is the business of the two surfaces that have users.

mod password;
mod throttle;
mod token;

use std::sync::{Arc, OnceLock};

use tracing::field::Empty;

pub(crate) use throttle::{Login, Verdict, sweep};
pub(crate) use token::{Audience, Credentials, Presented};

use crate::auth::password::Passwords;
use crate::auth::token::Keys;
use crate::db::{self, Db, Sql, Statements as _, params};
use crate::digest::hex;
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::settings::Settings;

/// What a worker judges tokens and passwords with; clones share it.
#[derive(Clone)]
pub(crate) struct Auth {
    shared: Arc<Shared>,
}

struct Shared {
    /// Known once the database is there, if it keeps the secret.
    keys: OnceLock<Keys>,
    settings: Arc<Settings>,
    passwords: Passwords,
}

impl Auth {
    pub(crate) fn new(settings: &Arc<Settings>) -> Self {
        let passwords = Passwords::new(settings.password_concurrency);
        let shared = Shared { keys: OnceLock::new(), settings: Arc::clone(settings), passwords };
        Self { shared: Arc::new(shared) }
    }

    /// Takes the secret from the settings, or else from the database, which is given one if it has none.
    ///
    /// # Errors
    ///
    /// The database is away, or the kernel gives no random numbers.
    pub(crate) async fn learn_key(&self, db: &Db) -> db::Result<()> {
        if self.shared.keys.get().is_some() {
            return Ok(());
        }
        let secret = match &self.shared.settings.secret_key {
            Some(key) => key.clone(),
            None => stored_secret(db).await?,
        };
        // Another task of this worker may have been quicker: it read the same.
        let _ = self.shared.keys.set(Keys::new(&secret));
        Ok(())
    }

    /// A token for a user, good until its end or until the user's tokens have another version.
    ///
    /// # Errors
    ///
    /// The secret is not known yet.
    pub(crate) fn issue(&self, audience: Audience, user: i64, version: i64) -> Result<Secret> {
        let lifetime = self.shared.settings.token_lifetime.unwrap_or(audience.lifetime());
        self.keys()?.issue(audience, user, version, lifetime).ok_or(Error::Internal)
    }

    /// Whose token it is; `None` for any that is not good, whatever is wrong with it.
    ///
    /// # Errors
    ///
    /// The secret is not known yet.
    pub(crate) fn verify(&self, audience: Audience, token: &str) -> Result<Option<Credentials>> {
        let span = tracing::info_span!(
            "auth.verify_token",
            auth.audience = audience.as_str(),
            auth.result = Empty,
            user.id = Empty
        );
        let keys = self.keys()?;
        let credentials = span.in_scope(|| keys.verify(audience, token));
        span.record("auth.result", if credentials.is_some() { "success" } else { "failure" });
        if let Some(credentials) = &credentials {
            span.record("user.id", credentials.user);
        }
        Ok(credentials)
    }

    /// The hash of a new password.
    ///
    /// # Errors
    ///
    /// Too many wait already.
    pub(crate) async fn hash(&self, password: Secret) -> Result<Secret> {
        self.shared.passwords.hash(password).await
    }

    fn keys(&self) -> Result<&Keys> {
        self.shared.keys.get().ok_or(Error::Unavailable { retry_after: 2 })
    }
}

/// Made by whoever comes first and the same for everyone: workers, replicas, and after a restart.
async fn stored_secret(db: &Db) -> db::Result<Secret> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| db::Error::Failed(error.to_string()))?;
    db.execute(&KEEP, params![hex(&bytes)]).await?;
    db.query_one(&READ, &[]).await.map(Secret::new)
}

static KEEP: Sql = Sql::insert(
    "app_secrets",
    "INSERT INTO app_secrets (name, value) VALUES ('secret_key', $1) ON CONFLICT DO NOTHING",
);
static READ: Sql =
    Sql::select("app_secrets", "SELECT value FROM app_secrets WHERE name = 'secret_key'");

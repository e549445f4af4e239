//! How often a password may be wrong: counted in the database, so that it is right across workers and replicas.
//!
//! An attempt is counted before the password is looked at, and taken back when it was right: however many come at once, no
//! more than the limit are ever tried.

use std::time::Duration;

use tracing::Instrument as _;
use tracing::field::Empty;

use super::{Audience, Auth};
use crate::db::{self, Db, FromRow, Row, Sql, Statements as _, params};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::time::now;

/// A password that somebody sends for an account.
pub(crate) struct Login {
    pub(crate) audience: Audience,
    /// The key of the e-mail.
    pub(crate) account: String,
    pub(crate) password: Secret,
    /// The hash of the account, if there is one.
    pub(crate) hash: Option<Secret>,
}

/// What becomes of it.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Verdict {
    Right,
    Wrong,
}

/// The three counters of a login, never with the e-mail in them.
struct Keys {
    pair: String,
    account: String,
    address: String,
}

struct Counted {
    key: String,
    failures: i64,
    window_start: i64,
}

impl FromRow for Counted {
    fn from_row(row: &mut Row<'_>) -> crate::db::Result<Self> {
        Ok(Self { key: row.take()?, failures: row.take()?, window_start: row.take()? })
    }
}

impl Auth {
    /// Judges a password.
    ///
    /// # Errors
    ///
    /// [`Error::TooMany`] before anything is hashed; the database is away; or too many wait already.
    pub(crate) async fn login(&self, db: &Db, login: Login) -> Result<Verdict> {
        let keys = Keys::of(&login);
        keys.count(db).await?;
        let span = tracing::info_span!(
            "auth.verify_password",
            auth.audience = login.audience.as_str(),
            auth.result = Empty
        );
        let verified = self.shared.passwords.verify(login.password, login.hash);
        let verified = verified.instrument(span.clone()).await;
        span.record("auth.result", if verified == Ok(true) { "success" } else { "failure" });
        match verified {
            Ok(true) => {
                keys.take_back(db).await?;
                db.execute(&CLEAR, params![&keys.pair]).await?;
                Ok(Verdict::Right)
            }
            Ok(false) => Ok(Verdict::Wrong),
            Err(error) => {
                keys.take_back(db).await?;
                Err(error)
            }
        }
    }
}

impl Keys {
    fn of(login: &Login) -> Self {
        let Login { audience, account, .. } = login;
        let audience = audience.as_str();
        // On a unix socket nobody knows.
        let address = saola::peer().and_then(|peer| peer.client);
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        Self {
            pair: sha256(format!("{audience}\0pair\0{account}\0{address}")),
            account: sha256(format!("{audience}\0account\0{account}")),
            address: sha256(format!("{audience}\0address\0{address}")),
        }
    }

    /// Counts an attempt, unless there were too many: then nothing is counted.
    async fn count(&self, db: &Db) -> Result<()> {
        // Most of those who come too often are turned away without a write.
        let all = params![&self.pair, &self.account, &self.address, now() - window()];
        self.check(&db.query(&COUNTED, all).await?, Attempt::Next)?;
        db.transaction(|tx| async move {
            let mut keys = [&self.pair, &self.account, &self.address];
            // In one order, so that two of them cannot wait for each other.
            keys.sort();
            let mut counted = Vec::with_capacity(keys.len());
            for key in keys {
                let now = now();
                counted.push(tx.query_one(&COUNT, params![key, now, now - window()]).await?);
            }
            self.check(&counted, Attempt::Counted)
        })
        .await
    }

    /// It was no failure.
    async fn take_back(&self, db: &Db) -> Result<()> {
        db.transaction(|tx| async move {
            let mut keys = [&self.pair, &self.account, &self.address];
            keys.sort();
            for key in keys {
                tx.execute(&TAKE_BACK, params![key]).await?;
            }
            Ok(())
        })
        .await
    }

    fn check(&self, counted: &[Counted], attempt: Attempt) -> Result<()> {
        let one = i64::from(attempt == Attempt::Next);
        let limit = |key: &str| if key == self.pair { PAIR_LIMIT } else { OTHER_LIMIT };
        let over = counted.iter().filter(|counted| counted.failures + one > limit(&counted.key));
        let end = over.map(|counted| counted.window_start + window()).max();
        end.map_or(Ok(()), |end| {
            let left = u64::try_from(end - now()).unwrap_or(0);
            Err(Error::TooMany { retry_after: left.div_ceil(1_000_000) })
        })
    }
}

/// Whether the attempt that is judged is among those that were counted.
#[derive(Copy, Clone, Eq, PartialEq)]
enum Attempt {
    Next,
    Counted,
}

/// In microseconds.
fn window() -> i64 {
    i64::try_from(WINDOW.as_micros()).unwrap_or(i64::MAX)
}

/// Deletes counts whose window is over.
pub(crate) async fn sweep(db: &Db) -> db::Result<()> {
    let over = now() - window();
    if db.query_opt::<i64>(&HAS_OVER, params![over]).await?.is_some() {
        db.execute(&DELETE_OVER, params![over]).await?;
    }
    Ok(())
}

/// From the first failure.
const WINDOW: Duration = Duration::from_mins(15);
const PAIR_LIMIT: i64 = 10;
const OTHER_LIMIT: i64 = 100;
static COUNTED: Sql = Sql::select(
    "app_auth_failures",
    "SELECT key, failures, window_start FROM app_auth_failures \
     WHERE key IN ($1, $2, $3) AND window_start > $4",
);
static COUNT: Sql = Sql::insert(
    "app_auth_failures",
    "INSERT INTO app_auth_failures (key, failures, window_start) VALUES ($1, 1, $2) \
     ON CONFLICT (key) DO UPDATE SET \
     failures = CASE WHEN app_auth_failures.window_start > $3 THEN app_auth_failures.failures + 1 ELSE 1 END, \
     window_start = CASE WHEN app_auth_failures.window_start > $3 THEN app_auth_failures.window_start \
     ELSE excluded.window_start END \
     RETURNING key, failures, window_start",
);
static TAKE_BACK: Sql = Sql::update(
    "app_auth_failures",
    "UPDATE app_auth_failures SET failures = failures - 1 WHERE key = $1 AND failures > 0",
);
static HAS_OVER: Sql = Sql::select(
    "app_auth_failures",
    "SELECT window_start FROM app_auth_failures WHERE window_start <= $1 LIMIT 1",
);
static DELETE_OVER: Sql = Sql::delete(
    "app_auth_failures",
    "DELETE FROM app_auth_failures WHERE key IN \
     (SELECT key FROM app_auth_failures WHERE window_start <= $1 LIMIT 500)",
);
static CLEAR: Sql =
    Sql::delete("app_auth_failures", "DELETE FROM app_auth_failures WHERE key = $1");

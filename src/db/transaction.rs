//! Transactions: all of their statements, or none.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Answer, Connection, Db, Error, Result, Sql, Statements, Value, observe};

/// A transaction that has begun. Dropped before its end, it closes its connection, and so rolls back.
pub(crate) struct Tx {
    shared: Arc<Shared>,
    db: Db,
}

/// Its connection, between two statements.
struct Shared(Mutex<State>);

struct State {
    connection: Option<Unfinished>,
    /// Whether a statement met another transaction: all of it may be tried again.
    is_in_conflict: bool,
}

/// A connection in the middle of a transaction.
struct Unfinished(Option<Connection>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.close();
        }
    }
}

impl Db {
    /// Runs `work` in a transaction: commits what it has done when it succeeds, else rolls back.
    ///
    /// In conflict with another transaction, all of it runs again, at most twice.
    ///
    /// # Errors
    ///
    /// What `work` gives, or why the transaction could not begin or end.
    pub(crate) async fn transaction<T, E, Fut>(&self, work: impl Fn(Tx) -> Fut) -> Result<T, E>
    where
        E: From<Error>,
        Fut: Future<Output = Result<T, E>>,
    {
        for _ in 0..RETRIES {
            if let Some(value) = self.attempt(&work).await? {
                return Ok(value);
            }
        }
        self.attempt(&work).await?.ok_or_else(|| Error::Conflict.into())
    }

    /// One run; `None` when it was in conflict.
    async fn attempt<T, E, Fut>(&self, work: &impl Fn(Tx) -> Fut) -> Result<Option<T>, E>
    where
        E: From<Error>,
        Fut: Future<Output = Result<T, E>>,
    {
        let connection = Some(self.begin().await?);
        let shared = Arc::new(Shared(Mutex::new(State { connection, is_in_conflict: false })));
        let result = work(Tx { shared: Arc::clone(&shared), db: self.clone() }).await;
        match result {
            Ok(value) => match self.end(&shared, COMMIT).await {
                Ok(()) => Ok(Some(value)),
                Err(Error::Conflict) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Err(error) => {
                let is_in_conflict = shared.lock().is_in_conflict;
                // What fails here closes the connection, which rolls back too.
                let _ = self.end(&shared, ROLLBACK).await;
                if is_in_conflict { Ok(None) } else { Err(error) }
            }
        }
    }

    async fn begin(&self) -> Result<Unfinished> {
        if !self.is_current() {
            return Err(Error::Away("its schema is not current".into()));
        }
        let mut unfinished = Unfinished(Some(self.connection().await?));
        // At once, not at the first write: SQLite cannot wait for the lock in the middle.
        let begin = if self.system() == "sqlite" { "BEGIN IMMEDIATE" } else { "BEGIN" };
        unfinished.0.as_mut().ok_or(LOST)?.script(begin).await?;
        Ok(unfinished)
    }

    async fn end(&self, shared: &Shared, how: &'static str) -> Result<()> {
        let mut unfinished = shared.take()?;
        let connection = unfinished.0.as_mut().ok_or(LOST)?;
        connection.script(how).await?;
        // Finished: back to its pool.
        drop(unfinished.0.take());
        Ok(())
    }
}

impl Statements for Tx {
    async fn run(&self, sql: &'static Sql, params: &[Value]) -> Result<Answer> {
        let mut unfinished = self.shared.take()?;
        let connection = unfinished.0.as_mut().ok_or(LOST)?;
        let result = {
            let work = pin!(connection.run(sql, params));
            observe::statement(sql, &self.db.0.place, work).await
        };
        let mut state = self.shared.lock();
        state.is_in_conflict |= matches!(result, Err(Error::Conflict));
        // Without an answer its state is unknown: it stays out, and is closed here.
        if !result.as_ref().is_err_and(Error::is_without_answer) {
            state.connection = Some(unfinished);
        }
        result
    }
}

impl Shared {
    fn take(&self) -> Result<Unfinished> {
        self.lock().connection.take().ok_or(LOST)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const RETRIES: usize = 2;
const COMMIT: &str = "COMMIT";
const ROLLBACK: &str = "ROLLBACK";
const LOST: Error = Error::Busy("its transaction has lost the connection");

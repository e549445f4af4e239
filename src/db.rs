//! The database: one layer over PostgreSQL and SQLite. It alone makes spans, series, classes of errors and time limits.
//!
//! A domain declares its statements as `static`s of [`Sql`] and runs them with the methods of [`Statements`], on [`Db`] or in
//! a transaction. It never names a driver.

mod error;
mod location;
mod migrations;
mod observe;
mod postgres;
mod size;
mod sql;
mod sqlite;
mod transaction;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use deadpool::managed::{Object, PoolError, TimeoutType};

pub(crate) use error::Error;
pub(crate) use location::Location;
pub(crate) use migrations::Unfit;
pub(crate) use sql::{Answer, Column, FromRow, Row, Sql, Value, params};
pub(crate) use transaction::Tx;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// The database of one worker; clones share its pool.
#[derive(Clone)]
pub(crate) struct Db(Arc<Shared>);

struct Shared {
    pool: Pool,
    connections: observe::Connections,
    place: Place,
    /// Whether the schema is the one that the statements are written for; until then nothing is asked.
    is_current: AtomicBool,
}

enum Pool {
    Postgres(Arc<postgres::Pool>),
    Sqlite(sqlite::Pool),
}

/// What spans say of where the database is.
struct Place {
    system: &'static str,
    namespace: String,
    host: Option<String>,
    port: Option<i64>,
}

/// What runs statements: the database itself, or a transaction.
pub(crate) trait Statements: Sync {
    /// Runs a statement as it is; the others are made of this.
    fn run(
        &self,
        sql: &'static Sql,
        params: &[Value],
    ) -> impl Future<Output = Result<Answer>> + Send;

    /// All rows.
    fn query<T: FromRow>(
        &self,
        sql: &'static Sql,
        params: &[Value],
    ) -> impl Future<Output = Result<Vec<T>>> + Send {
        async move {
            let mut answer = self.run(sql, params).await?;
            answer.rows().map(|mut row| T::from_row(&mut row)).collect()
        }
    }

    /// The first row, if there is one.
    fn query_opt<T: FromRow>(
        &self,
        sql: &'static Sql,
        params: &[Value],
    ) -> impl Future<Output = Result<Option<T>>> + Send {
        async move { self.run(sql, params).await?.first(T::from_row) }
    }

    /// The row that is always there: a count, or what an insertion returns.
    fn query_one<T: FromRow>(
        &self,
        sql: &'static Sql,
        params: &[Value],
    ) -> impl Future<Output = Result<T>> + Send {
        async move { self.run(sql, params).await?.first(T::from_row)?.ok_or_else(NO_ROW) }
    }

    /// How many rows were written.
    fn execute(
        &self,
        sql: &'static Sql,
        params: &[Value],
    ) -> impl Future<Output = Result<u64>> + Send {
        async move { Ok(self.run(sql, params).await?.affected) }
    }
}

impl Statements for Db {
    async fn run(&self, sql: &'static Sql, params: &[Value]) -> Result<Answer> {
        if !self.is_current() {
            return Err(Error::Away("its schema is not current".into()));
        }
        let work = pin!(async {
            match self.once(sql, params).await {
                // Of old age, perhaps: another connection may be fine. A write may have been done all the same.
                // Boxed, for it is rare: every statement's future would have the room for it.
                Err(Error::Died(_)) if sql.is_read() => Box::pin(self.again(sql, params)).await,
                result => result,
            }
        });
        observe::statement(sql, &self.0.place, work).await
    }
}

impl Db {
    /// A database that nothing has been asked of yet.
    ///
    /// # Errors
    ///
    /// The pool cannot be made; nothing is connected yet.
    pub(crate) fn new(location: &Location, connections: Option<usize>) -> Result<Self> {
        let pool = match location {
            Location::Sqlite(path) => Pool::Sqlite(
                sqlite::Pool::builder(sqlite::Manager::new(path.clone()))
                    .max_size(connections.unwrap_or(SQLITE_CONNECTIONS))
                    .wait_timeout(Some(SQLITE_WAIT_LIMIT))
                    .runtime(deadpool::Runtime::Tokio1)
                    .build()
                    .map_err(|error| Error::Failed(error.to_string()))?,
            ),
            // One to begin with: how many the server allows is the first thing that it is asked.
            Location::Postgres(config) => {
                let pool = postgres::Pool::new(config, connections.unwrap_or(1))?;
                Pool::Postgres(Arc::new(pool))
            }
        };
        let db = Self(Arc::new(Shared {
            pool,
            connections: observe::Connections::new(),
            place: location.place(),
            is_current: AtomicBool::new(false),
        }));
        db.show_pool();
        Ok(db)
    }

    /// `sqlite` or `postgresql`.
    pub(crate) fn system(&self) -> &'static str {
        self.0.place.system
    }

    /// Whether statements are let through.
    pub(crate) fn is_current(&self) -> bool {
        self.0.is_current.load(Relaxed)
    }

    /// Runs a statement on any connection.
    async fn once(&self, sql: &'static Sql, params: &[Value]) -> Result<Answer> {
        let mut connection = self.connection().await?;
        let result = connection.run(sql, params).await;
        connection.end(result)
    }

    /// Reads once more. All that the pool has may have died together, and a death shows only when it is tried: a fresh
    /// connection is certain once each of the old ones has been.
    async fn again(&self, sql: &'static Sql, params: &[Value]) -> Result<Answer> {
        for _ in 1..self.0.pool.status().max_size {
            match self.once(sql, params).await {
                Err(Error::Died(_)) => {}
                result => return result,
            }
        }
        self.once(sql, params).await
    }

    async fn connection(&self) -> Result<Connection> {
        let _waiting = observe::Waiting::begin();
        // Whatever comes of it: one that could not be made was counted while it was tried.
        let shown = Shown(self.clone());
        let link = match &self.0.pool {
            Pool::Postgres(pool) => match pool.connections.get().await {
                Ok(object) => Link::Postgres(object, Arc::clone(pool)),
                Err(PoolError::Backend(error)) => {
                    return Err(postgres::classify_connecting(&error));
                }
                Err(error) => return Err(of_pool(&error)),
            },
            Pool::Sqlite(pool) => match pool.get().await {
                Ok(object) => Link::Sqlite(object),
                Err(PoolError::Backend(error)) => return Err(error),
                Err(error) => return Err(of_pool(&error)),
            },
        };
        self.show_pool();
        Ok(Connection { link, _shown: shown })
    }

    fn show_pool(&self) {
        self.0.connections.show(&self.0.pool.status());
    }
}

impl Pool {
    fn status(&self) -> deadpool::Status {
        match self {
            Self::Postgres(pool) => pool.connections.status(),
            Self::Sqlite(pool) => pool.status(),
        }
    }
}

/// A connection, until it goes back to its pool.
struct Connection {
    link: Link,
    // Behind the link, so that the pool has it back when it is counted.
    _shown: Shown,
}

enum Link {
    Postgres(deadpool_postgres::Object, Arc<postgres::Pool>),
    Sqlite(Object<sqlite::Manager>),
}

impl Connection {
    async fn run(&mut self, sql: &'static Sql, params: &[Value]) -> Result<Answer> {
        match &mut self.link {
            Link::Postgres(object, pool) => pool.run(object, sql, params).await,
            Link::Sqlite(object) => sqlite::run(object, sql, params.to_vec()).await,
        }
    }

    async fn script(&mut self, text: &str) -> Result<()> {
        match &mut self.link {
            Link::Postgres(object, pool) => pool.script(object, text).await,
            Link::Sqlite(object) => sqlite::script(object, text.to_owned()).await,
        }
    }

    /// The same for what may wait for other processes: the lock of the schema, or a change of a large table.
    async fn long_script(&mut self, text: &str) -> Result<()> {
        match &mut self.link {
            Link::Postgres(object, pool) => pool.long_script(object, text).await,
            Link::Sqlite(object) => sqlite::script(object, text.to_owned()).await,
        }
    }

    /// Gives it back; one whose answer has not come is closed instead, for it may still come.
    fn end<T>(self, result: Result<T>) -> Result<T> {
        if result.as_ref().is_err_and(Error::is_without_answer) {
            self.close();
        }
        result
    }

    /// Closes it: what it has begun is rolled back.
    fn close(self) {
        match self.link {
            Link::Postgres(object, _) => drop(deadpool_postgres::Object::take(object)),
            Link::Sqlite(object) => drop(Object::take(object)),
        }
    }
}

/// Says how the pool stands once a connection has gone back, or has not come.
struct Shown(Db);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.show_pool();
    }
}

fn of_pool<E>(error: &PoolError<E>) -> Error {
    match error {
        PoolError::Timeout(TimeoutType::Wait) => {
            observe::Waiting::gave_up();
            Error::Busy("all connections are in use")
        }
        PoolError::Timeout(_) => Error::Away("no connection in time".into()),
        _ => Error::Away("its pool is closed".into()),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

const NO_ROW: fn() -> Error = || Error::Failed("a row that must be there is not".into());
const SQLITE_CONNECTIONS: usize = 4;
/// One writes at a time: who waits for the lock holds its connection meanwhile.
const SQLITE_WAIT_LIMIT: Duration = Duration::from_secs(5);

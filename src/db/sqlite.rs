//! SQLite: a few connections a worker, each used on a blocking thread.
//!
//! A connection moves to the thread for each call and comes back with the answer. If the caller leaves meanwhile, it stays
//! there, ends what it was asked, and is closed: what it had begun is rolled back.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use deadpool::managed::{self, Metrics, Object, RecycleError, RecycleResult};
use rusqlite::types::{ToSqlOutput, Type, ValueRef};
use rusqlite::{ErrorCode, ffi, params_from_iter};

use super::{Answer, Error, Sql, Value};

pub(super) type Pool = managed::Pool<Manager>;

/// Opens connections to one file.
#[derive(Debug)]
pub(crate) struct Manager {
    path: PathBuf,
}

/// A connection, while nobody else holds it.
#[derive(Debug)]
pub(crate) struct Idle(Option<rusqlite::Connection>);

impl Manager {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

impl managed::Manager for Manager {
    type Type = Idle;
    type Error = Error;

    async fn create(&self) -> Result<Idle, Error> {
        let deadline = Instant::now() + BUSY_TIMEOUT;
        loop {
            let path = self.path.clone();
            match saola::blocking(move || open(&path)).await {
                // The file is being made, or its mode changed, by another: SQLite does not wait for that by itself.
                Err(Error::Busy(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                opened => return opened.map(|connection| Idle(Some(connection))),
            }
        }
    }

    async fn recycle(&self, idle: &mut Idle, _: &Metrics) -> RecycleResult<Error> {
        match &idle.0 {
            Some(connection) if connection.is_autocommit() => Ok(()),
            _ => Err(RecycleError::message("left in the middle of its work")),
        }
    }
}

fn open(path: &std::path::Path) -> Result<rusqlite::Connection, Error> {
    let refused = |error: rusqlite::Error| match classify(&error) {
        busy @ Error::Busy(_) => busy,
        _ => Error::Refused(format!("cannot open {}: {error}", path.display())),
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| {
            Error::Refused(format!("cannot make {}: {error}", folder.display()))
        })?;
    }
    let connection = rusqlite::Connection::open(path).map_err(refused)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(refused)?;
    connection.execute_batch(PRAGMAS).map_err(refused)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Runs a statement.
pub(super) async fn run(
    object: &mut Object<Manager>,
    sql: &'static Sql,
    params: Vec<Value>,
) -> Result<Answer, Error> {
    on_its_thread(object, move |connection| {
        let mut statement = connection.prepare_cached(sql.for_sqlite())?;
        let width = statement.column_count();
        let mut answer = Answer { width, ..Answer::default() };
        let mut rows = statement.query(params_from_iter(params))?;
        while let Some(row) = rows.next()? {
            for column in 0..width {
                answer.values.push(value(row.get_ref(column)?)?);
            }
        }
        drop(rows);
        drop(statement);
        answer.affected = connection.changes();
        Ok(answer)
    })
    .await
}

/// Runs statements without parameters or rows.
pub(super) async fn script(object: &mut Object<Manager>, text: String) -> Result<(), Error> {
    on_its_thread(object, move |connection| connection.execute_batch(&text)).await
}

async fn on_its_thread<T: Send + 'static>(
    object: &mut Object<Manager>,
    work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let Some(connection) = object.0.take() else {
        return Err(Error::Failed("the connection is gone".into()));
    };
    let (connection, result) = saola::blocking(move || {
        let result = work(&connection);
        (connection, result)
    })
    .await;
    object.0 = Some(connection);
    result.map_err(|error| classify(&error))
}

fn value(column: ValueRef<'_>) -> rusqlite::Result<Value> {
    Ok(match column {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Real(_) | ValueRef::Blob(_) => {
            return Err(rusqlite::Error::InvalidColumnType(0, String::new(), Type::Real));
        }
    })
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Bool(yes) => ValueRef::Integer(i64::from(*yes)),
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

fn classify(error: &rusqlite::Error) -> Error {
    let rusqlite::Error::SqliteFailure(failure, _) = error else {
        return Error::Failed(error.to_string());
    };
    match (failure.code, failure.extended_code) {
        (
            _,
            ffi::SQLITE_CONSTRAINT_UNIQUE
            | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
            | ffi::SQLITE_CONSTRAINT_ROWID,
        ) => Error::Unique,
        (_, ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => Error::ForeignKey,
        (_, ffi::SQLITE_CONSTRAINT_CHECK) => Error::Check,
        (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => {
            Error::Busy("locked by another")
        }
        (
            ErrorCode::DiskFull
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure,
            _,
        ) => Error::Away(error.to_string()),
        _ => Error::Failed(error.to_string()),
    }
}

/// How long a statement waits for the lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// More than the application has.
const STATEMENTS: usize = 256;
/// `synchronous = FULL`: what was acknowledged survives the loss of power.
const PRAGMAS: &str = "\
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA journal_size_limit = 67108864;";

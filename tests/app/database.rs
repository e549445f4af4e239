//! The databases a test runs on: each test runs on a fresh SQLite file, and on a fresh PostgreSQL database where PostgreSQL
//! is installed.

use std::path::Path;

use rusqlite::types::ValueRef;
use tempfile::TempDir;

use crate::app::postgres::{self, Cluster};
use crate::setup::Setup;
use crate::wait;

/// A database of one test, gone at its end.
pub(crate) enum Database {
    Sqlite { folder: TempDir },
    Postgres { cluster: &'static Cluster, name: String, url: String },
}

/// Runs a test on every kind of database; says on which one it failed.
pub(crate) fn each(test: impl Fn(&Database)) {
    let postgres = || postgres::shared().map(Database::on);
    for database in [Some(Database::sqlite()), postgres()].into_iter().flatten() {
        let name = Name(database.url());
        test(&database);
        drop(name);
    }
}

impl Database {
    /// A file of its own, which does not exist yet.
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::Builder::new().prefix("saola-sqlite-").tempdir_in("/dev/shm");
        Self::Sqlite { folder: folder.or_else(|_| TempDir::new()).unwrap() }
    }

    pub(crate) fn on(cluster: &'static Cluster) -> Self {
        let (name, url) = cluster.database();
        Self::Postgres { cluster, name, url }
    }

    /// What `DATABASE_URL` is to be.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite { folder } => format!("sqlite:{}", folder.path().join("app.db").display()),
            Self::Postgres { url, .. } => url.clone(),
        }
    }

    /// The answer of a statement: a line for each row, `|` between columns.
    pub(crate) fn query(&self, sql: &str) -> String {
        match self {
            Self::Sqlite { folder } => in_file(&folder.path().join("app.db"), sql),
            Self::Postgres { cluster, name, .. } => cluster.query(name, sql),
        }
    }

    /// A statement that gives one number.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        let text = self.query(sql);
        text.parse().unwrap_or_else(|_| panic!("{sql} gave {text:?}"))
    }

    /// A server of two workers on it.
    pub(crate) fn setup(&self) -> Setup {
        Setup::new().env("DATABASE_URL", &self.url())
    }
}

fn in_file(path: &Path, sql: &str) -> String {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.busy_timeout(wait::DEADLINE).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let text = |column| match row.get_ref(column).unwrap() {
            ValueRef::Null => String::new(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => number.to_string(),
            ValueRef::Text(text) | ValueRef::Blob(text) => {
                String::from_utf8_lossy(text).into_owned()
            }
        };
        lines.push((0..columns).map(text).collect::<Vec<_>>().join("|"));
    }
    lines.join("\n")
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Self::Postgres { cluster, name, .. } = self {
            cluster.query("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"));
        }
    }
}

/// Says which database a failed test was on.
struct Name(String);

impl Drop for Name {
    #[expect(clippy::print_stdout, reason = "kept with the output of the test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("this was on {}", self.0);
        }
    }
}

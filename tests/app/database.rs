//! The databases a test runs on: each test runs on a fresh SQLite file, and on a fresh PostgreSQL database where PostgreSQL
//! is installed.

use tempfile::TempDir;

use crate::app::postgres::{self, Cluster};
use crate::setup::Setup;

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

    fn on(cluster: &'static Cluster) -> Self {
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

    /// A server of two workers on it.
    pub(crate) fn setup(&self) -> Setup {
        Setup::new().env("DATABASE_URL", &self.url())
    }
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

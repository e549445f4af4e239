//! The schema: which version there is, which there should be, and how to get from one to the other.
//!
//! Any number of processes may try at once: one holds the lock and migrates, the others find it done.

use std::time::{Duration, Instant};

use super::{Connection, Db, Error, Result, Sql, params};
use crate::digest::sha256;
use crate::time::now;

/// A file of `migrations/`, built into the program.
#[derive(Debug)]
pub(crate) struct Migration {
    version: i64,
    pub(crate) name: &'static str,
    template: &'static str,
}

/// In their order; a version that has been released never changes.
static MIGRATIONS: [Migration; 1] = [Migration {
    version: 1,
    name: "0001_initial",
    template: include_str!("../migrations/0001_initial.sql"),
}];

/// One that has been applied now, and how long it took.
#[derive(Debug)]
pub(crate) struct Migrated {
    pub(crate) name: &'static str,
    pub(crate) took: Duration,
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// It is of another program.
    #[error(
        "migration {name} has been applied with other text (version {version}): this program was not built from the files that the database was made with"
    )]
    Changed { name: &'static str, version: i64 },
    /// It is of a later program.
    #[error("the database has schema version {found}, newer than {known} of this program")]
    Newer { found: i64, known: i64 },
    /// More connections than the server has.
    #[error(
        "database pool: {workers} workers x {size} connections x 2 generations = {} exceed the {usable} usable connections; set DATABASE_POOL_SIZE to {} or less, or raise max_connections",
        workers * size * 2,
        (usable / (workers * 2)).max(1)
    )]
    TooMany { workers: usize, size: usize, usable: usize },
    /// It could not be done.
    #[error("cannot {doing}: {error}")]
    Database { doing: String, error: Error },
}

impl Db {
    /// The newest version that this program knows.
    pub(crate) fn newest() -> i64 {
        MIGRATIONS.last().map_or(0, |migration| migration.version)
    }

    /// What has still to be applied.
    ///
    /// # Errors
    ///
    /// The schema is not one of this program, or cannot be read.
    pub(crate) async fn pending(&self) -> Result<Vec<&'static Migration>, Unfit> {
        let doing = |error| Unfit::Database { doing: "read the schema version".into(), error };
        let mut connection = self.connection().await.map_err(doing)?;
        self.missing(&mut connection).await
    }

    /// Brings the schema up to date, and says what was applied. From then on statements are let through.
    ///
    /// # Errors
    ///
    /// The schema is not one of this program, or a migration fails; that one leaves nothing behind.
    pub(crate) async fn migrate(&self) -> Result<Vec<Migrated>, Unfit> {
        let mut done = Vec::new();
        if !self.pending().await?.is_empty() {
            let doing = |error| Unfit::Database { doing: "lock the schema".into(), error };
            let mut connection = self.connection().await.map_err(doing)?;
            let result = self.migrate_on(&mut connection, &mut done).await;
            // With it go its lock and whatever was not committed.
            connection.close();
            result?;
        }
        self.let_through();
        Ok(done)
    }

    /// The schema is current.
    pub(crate) fn let_through(&self) {
        self.0.is_current.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    async fn migrate_on(
        &self,
        connection: &mut Connection,
        done: &mut Vec<Migrated>,
    ) -> Result<(), Unfit> {
        let locking = |error| Unfit::Database { doing: "lock the schema".into(), error };
        let is_sqlite = self.system() == "sqlite";
        connection
            .long_script(if is_sqlite { "BEGIN IMMEDIATE" } else { POSTGRES_LOCK })
            .await
            .map_err(locking)?;
        for migration in self.missing(connection).await? {
            let start = Instant::now();
            self.apply(connection, migration).await.map_err(|error| Unfit::Database {
                doing: format!("apply migration {}", migration.name),
                error,
            })?;
            done.push(Migrated { name: migration.name, took: start.elapsed() });
        }
        if is_sqlite {
            connection.script("COMMIT").await.map_err(locking)?;
        }
        Ok(())
    }

    async fn apply(&self, connection: &mut Connection, migration: &Migration) -> Result<()> {
        let is_sqlite = self.system() == "sqlite";
        if !is_sqlite {
            connection.script("BEGIN").await?;
        }
        connection.script(CREATE_TABLE).await?;
        connection.long_script(&migration.text_for(self.system())).await?;
        let (version, checksum) = (migration.version, migration.checksum());
        connection.run(&APPLIED, params![version, migration.name, checksum, now()]).await?;
        if is_sqlite { Ok(()) } else { connection.script("COMMIT").await }
    }

    /// The migrations that the database lacks, if those it has are ours.
    async fn missing(&self, connection: &mut Connection) -> Result<Vec<&'static Migration>, Unfit> {
        let applied = self
            .applied(connection)
            .await
            .map_err(|error| Unfit::Database { doing: "read the schema version".into(), error })?;
        let found = applied.iter().map(|(version, _)| *version).max().unwrap_or(0);
        if found > Self::newest() {
            return Err(Unfit::Newer { found, known: Self::newest() });
        }
        let mut missing = Vec::new();
        for migration in &MIGRATIONS {
            match applied.iter().find(|(version, _)| *version == migration.version) {
                None => missing.push(migration),
                Some((_, checksum)) if *checksum == migration.checksum() => (),
                Some(_) => {
                    let Migration { name, version, .. } = *migration;
                    return Err(Unfit::Changed { name, version });
                }
            }
        }
        Ok(missing)
    }

    /// Version and checksum of each.
    async fn applied(&self, connection: &mut Connection) -> Result<Vec<(i64, String)>> {
        let has_table = if self.system() == "sqlite" { &SQLITE_TABLES } else { &POSTGRES_TABLES };
        if connection.run(has_table, &[]).await?.rows().next().is_none() {
            return Ok(Vec::new());
        }
        let mut answer = connection.run(&VERSIONS, &[]).await?;
        answer.rows().map(|mut row| Ok((row.take()?, row.take()?))).collect()
    }
}

impl Migration {
    fn checksum(&self) -> String {
        sha256(self.template)
    }

    /// The template as this system understands it.
    fn text_for(&self, system: &str) -> String {
        let id = match system {
            "sqlite" => "INTEGER PRIMARY KEY AUTOINCREMENT",
            _ => "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
        };
        let lines = self.template.lines().filter_map(|line| match line.strip_prefix('@') {
            Some(special) => special.strip_prefix(system),
            None => Some(line),
        });
        lines.collect::<Vec<_>>().join("\n").replace("@id", id)
    }
}

/// Held until the connection is closed; a statement may wait for it longer than others.
const POSTGRES_LOCK: &str = "SET statement_timeout = 0; SELECT pg_advisory_lock(7367616465)";
const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS app_migrations (
    version BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at BIGINT NOT NULL
)";
static SQLITE_TABLES: Sql = Sql::select(
    "sqlite_master",
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'app_migrations'",
);
static POSTGRES_TABLES: Sql = Sql::select(
    "tables",
    "SELECT CAST(table_name AS TEXT) FROM information_schema.tables \
     WHERE table_schema = current_schema() AND table_name = 'app_migrations'",
);
static VERSIONS: Sql =
    Sql::select("app_migrations", "SELECT version, checksum FROM app_migrations ORDER BY version");
static APPLIED: Sql = Sql::insert(
    "app_migrations",
    "INSERT INTO app_migrations (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_becomes_the_text_of_one_system() {
        let migration = Migration {
            version: 1,
            name: "x",
            template: "a @id\n@sqlite b\n@postgresql c\n-- @ d",
        };
        assert_eq!(migration.text_for("sqlite"), "a INTEGER PRIMARY KEY AUTOINCREMENT\n b\n-- @ d");
        assert!(migration.text_for("postgresql").ends_with("PRIMARY KEY\n c\n-- @ d"));
    }
}

//! Where a database is: what `DATABASE_URL` says.

use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::Place;

/// Where a database is.
#[derive(Clone)]
pub(crate) enum Location {
    /// The file of an SQLite database.
    Sqlite(PathBuf),
    /// A PostgreSQL server.
    Postgres(Box<Config>),
}

impl Location {
    /// Reads `sqlite:PATH`, `postgres://…` or `postgresql://…`.
    ///
    /// # Errors
    ///
    /// What it would have to be, in words that fit behind `is not`.
    pub(crate) fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        match scheme {
            "sqlite" if rest.contains(":memory:") || rest.contains("mode=memory") => {
                Err("possible: each worker would see its own database; give it a path")
            }
            "sqlite" if !rest.is_empty() => {
                Ok(Self::Sqlite(rest.strip_prefix("//").unwrap_or(rest).into()))
            }
            "postgres" | "postgresql" => {
                let config: Config = url.parse().map_err(|_| FORMS)?;
                Ok(Self::Postgres(Box::new(config)))
            }
            _ => Err(FORMS),
        }
    }

    /// What spans say of it.
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Sqlite(path) => Place {
                system: "sqlite",
                namespace: path.display().to_string(),
                host: None,
                port: None,
            },
            Self::Postgres(config) => Place {
                system: "postgresql",
                namespace: config.get_dbname().unwrap_or_default().to_owned(),
                host: config.get_hosts().first().map(|host| match host {
                    Host::Tcp(name) => name.clone(),
                    Host::Unix(path) => path.display().to_string(),
                }),
                port: config.get_ports().first().map(|port| i64::from(*port)).or(Some(5432)),
            },
        }
    }
}

const FORMS: &str = "sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/NAME";

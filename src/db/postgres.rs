//! PostgreSQL: a pool a worker, prepared statements, and no wait without an end.

use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::BytesMut;
use deadpool_postgres::{Manager, ManagerConfig, Object, RecyclingMethod};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Column, Config, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Answer, Error, Sql, Value};

/// A pool, and how to reach its server besides.
pub(crate) struct Pool {
    pub(super) connections: deadpool_postgres::Pool,
    config: Config,
    /// With `sslmode=require`. Otherwise in the clear: `prefer`, the driver's default, protects from nobody who can change
    /// what is sent, and would refuse servers whose certificate nobody has signed.
    tls: Option<MakeRustlsConnect>,
}

impl Pool {
    /// # Errors
    ///
    /// TLS is asked for, and this machine knows no authority to check a certificate with.
    pub(super) fn new(config: &Config, size: usize) -> Result<Self, Error> {
        let mut config = config.clone();
        config.connect_timeout(CONNECT_LIMIT);
        let options = config.get_options().unwrap_or_default().to_owned();
        config.options(format!("{options} -c statement_timeout={}ms", STATEMENT_LIMIT.as_millis()));
        config.application_name("saola");
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let tls = match config.get_ssl_mode() {
            SslMode::Require => Some(tls()?),
            _ => None,
        };
        let manager = match &tls {
            Some(tls) => Manager::from_config(config.clone(), tls.clone(), recycling),
            None => Manager::from_config(config.clone(), NoTls, recycling),
        };
        let connections = deadpool_postgres::Pool::builder(manager)
            .max_size(size)
            .wait_timeout(Some(WAIT_LIMIT))
            .create_timeout(Some(CONNECT_LIMIT))
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Failed(error.to_string()))?;
        Ok(Self { connections, config, tls })
    }

    /// Waits for an answer, as long as the server shows that it lives: one that is stopped, or cut off, keeps its
    /// connections open and says nothing.
    async fn patiently<T>(
        &self,
        mut work: Pin<&mut impl Future<Output = Result<T, tokio_postgres::Error>>>,
    ) -> Result<T, Error> {
        match timeout(SILENCE_LIMIT, &mut work).await {
            Ok(result) => result.map_err(|error| classify(&error)),
            // Boxed, for it is rare: every statement's future would have the room for it.
            Err(_) => Box::pin(self.through_silence(work)).await,
        }
    }

    async fn through_silence<T>(
        &self,
        mut work: Pin<&mut impl Future<Output = Result<T, tokio_postgres::Error>>>,
    ) -> Result<T, Error> {
        let connecting = async {
            match &self.tls {
                Some(tls) => self.config.connect(tls.clone()).await.map(drop),
                None => self.config.connect(NoTls).await.map(drop),
            }
        };
        if !matches!(timeout(SILENCE_LIMIT, connecting).await, Ok(Ok(()))) {
            return Err(Error::Away("it does not answer".into()));
        }
        match timeout(CALL_LIMIT, &mut work).await {
            Ok(result) => result.map_err(|error| classify(&error)),
            Err(_) => Err(Error::Away("the call took too long".into())),
        }
    }

    /// Runs a statement.
    pub(super) async fn run(
        &self,
        object: &Object,
        sql: &'static Sql,
        params: &[Value],
    ) -> Result<Answer, Error> {
        let work = pin!(async {
            let statement = object.prepare_cached(sql.text).await?;
            let params: Vec<_> = params.iter().map(parameter).collect();
            if statement.columns().is_empty() {
                let affected = object.execute(&statement, &params).await?;
                return Ok(Answer { affected, ..Answer::default() });
            }
            let rows = object.query(&statement, &params).await?;
            let affected = u64::try_from(rows.len()).unwrap_or(u64::MAX);
            let width = statement.columns().len();
            let mut values = Vec::with_capacity(rows.len() * width);
            for row in &rows {
                for (index, column) in row.columns().iter().enumerate() {
                    values.push(value(row, index, column)?);
                }
            }
            Ok(Answer { values, width, affected })
        });
        self.patiently(work).await
    }

    /// Runs statements without parameters or rows.
    pub(super) async fn script(&self, object: &Object, text: &str) -> Result<(), Error> {
        self.patiently(pin!(object.batch_execute(text))).await
    }

    /// The same for what may wait for other processes.
    pub(super) async fn long_script(&self, object: &Object, text: &str) -> Result<(), Error> {
        match timeout(LONG_LIMIT, object.batch_execute(text)).await {
            Ok(result) => result.map_err(|error| classify(&error)),
            Err(_) => Err(Error::Away("no answer in a minute".into())),
        }
    }
}

/// Certificates are checked, and the server's name with them: by the authorities of this machine, or those in the file that
/// `SSL_CERT_FILE` names.
fn tls() -> Result<MakeRustlsConnect, Error> {
    let (tls, problems) = MakeRustlsConnect::with_native_certs().map_err(|problems| {
        let problems = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Error::Refused(format!(
            "sslmode=require: no certificate authority to check the server with; install \
             ca-certificates or set SSL_CERT_FILE ({problems})"
        ))
    })?;
    for problem in problems {
        tracing::warn!(error = %problem, "certificate authority left out");
    }
    Ok(tls)
}

fn parameter(value: &Value) -> &(dyn ToSql + Sync) {
    value
}

fn value(row: &Row, index: usize, column: &Column) -> Result<Value, tokio_postgres::Error> {
    Ok(match *column.type_() {
        Type::BOOL => row.try_get::<_, Option<bool>>(index)?.into(),
        Type::INT4 => row.try_get::<_, Option<i32>>(index)?.map(i64::from).into(),
        Type::INT8 => row.try_get::<_, Option<i64>>(index)?.into(),
        // What is none of these fails here, and so in the first test of its statement.
        _ => row.try_get::<_, Option<String>>(index)?.into(),
    })
}

impl ToSql for Value {
    fn to_sql(
        &self,
        of: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Bool(yes) => yes.to_sql_checked(of, out),
            Self::Int(number) if *of == Type::INT4 => i32::try_from(*number)?.to_sql(of, out),
            Self::Int(number) => number.to_sql_checked(of, out),
            Self::Text(text) => text.to_sql_checked(of, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true // each value asks for itself
    }

    to_sql_checked!();
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***") // the driver asks for it; values are secrets
    }
}

pub(super) fn classify(error: &tokio_postgres::Error) -> Error {
    let Some(answer) = error.as_db_error() else {
        // The text of such an error is the driver's own: it names no values.
        let text = super::chain(error);
        let has_died = error.is_closed() || network(error).is_some();
        return if has_died { Error::Died(text) } else { Error::Failed(text) };
    };
    let code = answer.code();
    let text = || format!("{} ({})", answer.message(), code.code());
    match *code {
        SqlState::UNIQUE_VIOLATION => Error::Unique,
        SqlState::FOREIGN_KEY_VIOLATION => Error::ForeignKey,
        SqlState::CHECK_VIOLATION => Error::Check,
        SqlState::T_R_DEADLOCK_DETECTED | SqlState::T_R_SERIALIZATION_FAILURE => Error::Conflict,
        SqlState::INVALID_PASSWORD
        | SqlState::INVALID_AUTHORIZATION_SPECIFICATION
        | SqlState::INVALID_CATALOG_NAME
        | SqlState::INSUFFICIENT_PRIVILEGE => Error::Refused(text()),
        SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN => Error::Died(text()),
        // Cancelled by its limit, no connection or disk left, shutting down or starting up, read only.
        SqlState::QUERY_CANCELED | SqlState::READ_ONLY_SQL_TRANSACTION => Error::Away(text()),
        _ if ["08", "53", "57", "58"].iter().any(|class| code.code().starts_with(class)) => {
            Error::Away(text())
        }
        // A message may quote what it was given: only its code is told.
        _ => Error::Failed(format!("SQLSTATE {}", code.code())),
    }
}

/// Why there is no connection. Waiting helps where nobody answers, not where the two do not get on: over the password, the
/// database, the certificate.
pub(super) fn classify_connecting(error: &tokio_postgres::Error) -> Error {
    // A certificate that is not believed comes as bad data.
    let is_distrust = network(error).is_some_and(|error| error.kind() == ErrorKind::InvalidData);
    match classify(error) {
        Error::Died(why) if !is_distrust => Error::Away(why),
        Error::Died(why) | Error::Failed(why) => Error::Refused(why),
        error => error,
    }
}

/// What the network said, if it was that.
fn network(error: &tokio_postgres::Error) -> Option<&std::io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const WAIT_LIMIT: Duration = Duration::from_secs(1);
/// Silence after which the server is asked whether it lives.
const SILENCE_LIMIT: Duration = Duration::from_millis(900);
const LONG_LIMIT: Duration = Duration::from_mins(1);
/// The server gives up a statement after this long.
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);
/// What a call may then still take, 6 s in all.
const CALL_LIMIT: Duration = Duration::from_millis(4_200);

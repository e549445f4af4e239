//! What can go wrong at a database, in classes that a domain can act on.

/// Why a statement or a transaction did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A row with this key is there already.
    #[error("the key is taken")]
    Unique,
    /// The row that it refers to is not there (any more).
    #[error("the parent is gone")]
    ForeignKey,
    /// A value that the table does not allow.
    #[error("the table does not allow it")]
    Check,
    /// Two transactions were in each other's way; the whole of it may be tried again.
    #[error("in conflict with another transaction")]
    Conflict,
    /// The connection has died under the statement, which may have been done all the same.
    #[error("the connection has died: {0}")]
    Died(String),
    /// No answer in time, or nobody there.
    #[error("the database is away: {0}")]
    Away(String),
    /// It is there, and has no time: a lock of SQLite, or all connections in use.
    #[error("the database is busy: {0}")]
    Busy(&'static str),
    /// It does not want us: the password, the name of the database, the rights of the file.
    #[error("the database refuses: {0}")]
    Refused(String),
    /// Anything else is a mistake of ours. The text names no values.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// A word for the attribute `error.type`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::ForeignKey => "foreign_key",
            Self::Check => "check",
            Self::Conflict => "conflict",
            Self::Died(_) => "died",
            Self::Away(_) => "away",
            Self::Busy(_) => "busy",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }

    /// Whether the answer to what was asked may still come, or never.
    pub(crate) fn is_without_answer(&self) -> bool {
        matches!(self, Self::Died(_) | Self::Away(_))
    }

    /// Whether it is the answer of a constraint, which a domain expects, rather than a failure.
    pub(crate) fn is_constraint(&self) -> bool {
        match self {
            Self::Unique | Self::ForeignKey | Self::Check => true,
            Self::Conflict
            | Self::Died(_)
            | Self::Away(_)
            | Self::Busy(_)
            | Self::Refused(_)
            | Self::Failed(_) => false,
        }
    }
}

//! What goes to a database and what comes back: constant statements, values, rows.

use std::sync::OnceLock;

use super::Error;

/// A statement: constant text, with the operation and the table that name its span and its series.
///
/// Parameters are `$1`, `$2`, …; SQLite would number these by their first appearance, so it is given `?1`, `?2`, ….
pub(crate) struct Sql {
    pub(crate) operation: &'static str,
    pub(crate) collection: &'static str,
    pub(crate) text: &'static str,
    derived: OnceLock<Derived>,
}

/// What is made of a statement at its first use.
struct Derived {
    name: String,
    for_sqlite: String,
}

impl Sql {
    pub(crate) const fn select(collection: &'static str, text: &'static str) -> Self {
        Self::new("SELECT", collection, text)
    }

    pub(crate) const fn insert(collection: &'static str, text: &'static str) -> Self {
        Self::new("INSERT", collection, text)
    }

    pub(crate) const fn update(collection: &'static str, text: &'static str) -> Self {
        Self::new("UPDATE", collection, text)
    }

    pub(crate) const fn delete(collection: &'static str, text: &'static str) -> Self {
        Self::new("DELETE", collection, text)
    }

    const fn new(operation: &'static str, collection: &'static str, text: &'static str) -> Self {
        Self { operation, collection, text, derived: OnceLock::new() }
    }

    /// Whether it can be said twice without harm.
    pub(crate) fn is_read(&self) -> bool {
        self.operation == "SELECT"
    }

    /// The name of its spans.
    pub(crate) fn name(&self) -> &str {
        &self.derived().name
    }

    /// The text with SQLite's `?1` for `$1`.
    pub(crate) fn for_sqlite(&self) -> &str {
        &self.derived().for_sqlite
    }

    fn derived(&self) -> &Derived {
        self.derived.get_or_init(|| Derived {
            name: format!("{} {}", self.operation, self.collection),
            for_sqlite: self.text.replace('$', "?"),
        })
    }
}

/// A parameter or a column. It has no `Debug`: values are secrets.
#[derive(Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Parameters of a statement: `params![id, &name]`.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::db::Value::from($value)),*] };
}
pub(crate) use params;

/// A row, read from left to right.
pub(crate) struct Row<'a>(std::slice::IterMut<'a, Value>);

impl Row<'_> {
    /// The next column.
    ///
    /// # Errors
    ///
    /// There is none, or it is of another type: the statement and its reader disagree.
    pub(crate) fn take<T: Column>(&mut self) -> Result<T, Error> {
        let value = self.0.next().map(|value| std::mem::replace(value, Value::Null));
        value.and_then(T::from_value).ok_or_else(|| Error::Failed("a row of another shape".into()))
    }
}

/// A type that a column can have.
pub(crate) trait Column: Sized {
    fn from_value(value: Value) -> Option<Self>;
}

impl Column for bool {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Bool(yes) => Some(yes),
            Value::Int(number) => Some(number != 0), // SQLite has no type of its own for it
            Value::Null | Value::Text(_) => None,
        }
    }
}

impl Column for i64 {
    fn from_value(value: Value) -> Option<Self> {
        if let Value::Int(number) = value { Some(number) } else { None }
    }
}

impl Column for String {
    fn from_value(value: Value) -> Option<Self> {
        if let Value::Text(text) = value { Some(text) } else { None }
    }
}

impl<T: Column> Column for Option<T> {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

/// What a row is read into; a domain implements it beside its statements.
pub(crate) trait FromRow: Sized {
    fn from_row(row: &mut Row<'_>) -> Result<Self, Error>;
}

impl<T: Column> FromRow for T {
    fn from_row(row: &mut Row<'_>) -> Result<Self, Error> {
        row.take()
    }
}

impl<A: FromRow, B: FromRow> FromRow for (A, B) {
    fn from_row(row: &mut Row<'_>) -> Result<Self, Error> {
        Ok((A::from_row(row)?, B::from_row(row)?))
    }
}

/// What a statement gave.
#[derive(Default)]
pub(crate) struct Answer {
    /// Those of the first row, then those of the second, and so on.
    pub(super) values: Vec<Value>,
    /// Columns of a row.
    pub(super) width: usize,
    /// Rows that were written; of a read it means nothing.
    pub(crate) affected: u64,
}

impl Answer {
    /// The rows in their order.
    pub(crate) fn rows(&mut self) -> impl Iterator<Item = Row<'_>> {
        self.values.chunks_exact_mut(self.width.max(1)).map(|values| Row(values.iter_mut()))
    }

    /// The first row, read; `None` when there is none.
    pub(crate) fn first<T>(
        &mut self,
        read: impl FnOnce(&mut Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        self.rows().next().map(|mut row| read(&mut row)).transpose()
    }
}

//! What is wrong with the settings: each mistake says which value, from where, and what is allowed.

use std::fmt;

/// A value that cannot be used.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct Mistake(String);

impl Mistake {
    pub(crate) fn new(setting: &str, value: &str, source: &impl fmt::Display, what: &str) -> Self {
        Self(format!("{setting}: {:?} {what} (from {source})", value.trim_matches('"')))
    }

    /// A standard variable that has no row in the table.
    pub(crate) fn of_variable(variable: &str, value: &str, allowed: &str) -> Self {
        Self(format!("{variable}: {value:?} is not {allowed} (from environment)"))
    }

    /// One that the application found, in its words.
    pub(crate) fn of_application(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

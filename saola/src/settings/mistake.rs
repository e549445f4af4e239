//! What is wrong with the settings: each mistake says which value, from where, and what is allowed.

use std::fmt;

/// A value that cannot be used.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct Mistake {
    setting: String,
    value: String,
    source: String,
    what: String,
}

impl Mistake {
    pub(crate) fn new(setting: &str, value: &str, source: &impl fmt::Display, what: &str) -> Self {
        Self {
            setting: setting.to_owned(),
            value: value.trim_matches('"').to_owned(),
            source: source.to_string(),
            what: what.to_owned(),
        }
    }

    /// A standard variable that has no row in the table.
    pub(crate) fn of_variable(variable: &str, value: &str, allowed: &str) -> Self {
        let what = format!("is not {allowed}");
        Self {
            setting: variable.to_owned(),
            value: value.to_owned(),
            source: "environment".to_owned(),
            what,
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} {} (from {})", self.setting, self.value, self.what, self.source)
    }
}

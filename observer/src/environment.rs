//! Reading the variables of standards that are not ours (`OTEL_*`, `PYROSCOPE_*`); every mistake is collected.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

/// A variable whose value cannot be used.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct SettingError {
    /// Its name.
    pub variable: String,
    /// What it says; `***` where values are secrets.
    pub value: String,
    /// What it may say, or what is missing.
    pub allowed: String,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: {}", self.variable, self.value, self.allowed)
    }
}

/// Whether a value may be shown in an error.
#[derive(Copy, Clone, Eq, PartialEq)]
pub(crate) enum Secrecy {
    Open,
    Secret,
}

/// The environment under reading, and what was wrong with it.
pub(crate) struct Env<'a> {
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) errors: Vec<SettingError>,
}

impl Env<'_> {
    pub(crate) fn get(&self, variable: &str) -> Option<String> {
        (self.lookup)(variable)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    pub(crate) fn refuse(&mut self, variable: &str, value: &str, allowed: &str) {
        self.errors.push(SettingError {
            variable: variable.to_owned(),
            value: value.to_owned(),
            allowed: allowed.to_owned(),
        });
    }

    pub(crate) fn boolean(&mut self, variable: &str) -> bool {
        self.get(variable).is_some_and(|value| self.read_boolean(variable, &value))
    }

    pub(crate) fn read_boolean(&mut self, variable: &str, value: &str) -> bool {
        match value.to_ascii_lowercase().as_str() {
            "true" => true,
            "false" => false,
            _ => {
                self.refuse(variable, value, "true or false");
                false
            }
        }
    }

    pub(crate) fn one_of(&mut self, variable: &str, allowed: &[&str]) -> Option<String> {
        let value = self.get(variable)?;
        if allowed.contains(&value.as_str()) {
            return Some(value);
        }
        self.refuse(variable, &value, &allowed.join(" or "));
        None
    }

    pub(crate) fn parsed<T: FromStr>(&mut self, variable: &str, default: T, allowed: &str) -> T {
        let Some(value) = self.get(variable) else { return default };
        value.parse().unwrap_or_else(|_| {
            self.refuse(variable, &value, allowed);
            default
        })
    }

    pub(crate) fn duration(&mut self, variable: &str, default: u32) -> Duration {
        let milliseconds = self.parsed(variable, default, "milliseconds, a whole number");
        Duration::from_millis(milliseconds.into())
    }

    pub(crate) fn count(&mut self, variable: &str, default: usize) -> NonZeroUsize {
        let default = NonZeroUsize::new(default).unwrap_or(NonZeroUsize::MIN);
        let count = self.parsed(variable, default, "a number from 1 to 1000000");
        if count.get() > 1_000_000 {
            self.refuse(variable, &count.to_string(), "a number from 1 to 1000000");
        }
        count
    }

    /// `k=v,k2=v2`, percent-decoded.
    pub(crate) fn pairs(&mut self, variable: &str, secrecy: Secrecy) -> Vec<(String, String)> {
        let Some(list) = self.get(variable) else { return Vec::new() };
        let mut pairs = Vec::new();
        for item in list.split(',').filter(|item| !item.trim().is_empty()) {
            let pair = item.split_once('=').and_then(|(key, value)| {
                let key = percent_decoded(key.trim()).filter(|key| !key.is_empty())?;
                Some((key, percent_decoded(value.trim())?))
            });
            match pair {
                Some(pair) => pairs.push(pair),
                None if secrecy == Secrecy::Secret => self.refuse(variable, "***", PAIRS),
                None => self.refuse(variable, item, PAIRS),
            }
        }
        pairs
    }
}

pub(crate) const PAIRS: &str = "key=value pairs with commas between, percent-encoded";

/// A URL that may be shown: user and password taken out.
pub(crate) fn without_user(url: &str) -> String {
    // What stands before `://` may be a user with a slash in the password.
    let is_scheme = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    let parts = url.split_once("://").filter(|(scheme, _)| is_scheme(scheme));
    let (scheme, rest) = parts.unwrap_or(("", url));
    let Some((_, host)) = rest.rsplit_once('@') else { return url.to_owned() };
    if scheme.is_empty() { format!("***@{host}") } else { format!("{scheme}://***@{host}") }
}

pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&digits).ok().filter(|pair| !pair.starts_with('+'))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

        #[test]
        fn a_list_is_read_back_or_refused(list in any::<String>(), pairs in proptest::collection::vec((".{1,20}", ".{0,20}"), 1..8)) {
            let read = |list: &str| {
                let lookup = |_: &str| Some(list.to_owned());
                let mut env = Env { lookup: &lookup, errors: Vec::new() };
                let read = env.pairs("LIST", Secrecy::Secret);
                assert!(env.errors.iter().all(|error| error.value == "***"), "a secret is never shown");
                (read, env.errors.len())
            };
            read(&list);
            let encoded = |text: &str| text.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"));
            let list: Vec<_> =
                pairs.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect();
            prop_assert_eq!(read(&list.join(",")), (pairs, 0));
        }

        #[test]
        fn a_url_never_shows_its_user(user in "[a-z]{9}", rest in "[a-z@:/%]{0,20}") {
            for scheme in ["", "http://"] {
                let shown = without_user(&format!("{scheme}{user}:{user}@{rest}"));
                prop_assert!(!shown.contains(&user) || rest.contains(&user), "{shown}");
            }
        }
    }
}

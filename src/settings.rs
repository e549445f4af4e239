//! The application's own settings, from the environment. Those of server and telemetry are the library's.
//!
//! All mistakes are told at once, before anything is started: `main` hands them to the library.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderValue, Uri};

use crate::db::Location;
use crate::secret::Secret;

/// Everything that the application runs with.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) database: Location,
    /// Connections of a worker; `None` leaves it to the server's limit.
    pub(crate) pool_size: Option<usize>,
    /// Whether a worker may bring the schema up to date.
    pub(crate) auto_migrate: bool,
    /// What tokens are signed with; `None` has it made once and kept in the database.
    pub(crate) secret_key: Option<Secret>,
    /// How long a token is good for, where it is not left to its surface.
    pub(crate) token_lifetime: Option<Duration>,
    /// Passwords that a worker hashes at once.
    pub(crate) password_concurrency: NonZeroUsize,
    pub(crate) allowed_origins: Origins,
    /// Redis as a cache.
    pub(crate) redis_url: Option<Secret>,
    /// Where the shop's inventory is, if it is not this server.
    pub(crate) inventory_url: Option<Uri>,
    /// Whether there are endpoints that fail on purpose.
    pub(crate) simulation: bool,
}

/// Whose pages may read answers.
#[derive(Clone, Debug)]
pub(crate) enum Origins {
    /// Those of any site.
    Any,
    /// Those of these.
    These(Vec<HeaderValue>),
}

/// Every mistake in the variables of this process, for people to read; none when they are good.
pub(crate) fn mistakes() -> Vec<String> {
    Settings::of_process().err().unwrap_or_default()
}

impl Settings {
    /// The settings of this process.
    pub(crate) fn of_process() -> Result<Self, Vec<String>> {
        Self::read(std::env::vars_os().filter_map(|(name, value)| {
            // Bytes that are no text are no value that any of these could have.
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        }))
    }

    fn read(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, Vec<String>> {
        let mut variables = Variables {
            values: variables.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
            mistakes: Vec::new(),
        };
        let environment = variables.one_of("APP_ENV", &["development", "staging", "production"]);
        let is_production = environment == "production";
        let settings = Self {
            database: database(&mut variables),
            pool_size: pool_size(&mut variables),
            auto_migrate: variables.one_of("DATABASE_AUTO_MIGRATE", &["on", "off"]) == "on",
            secret_key: secret_key(&mut variables, is_production),
            token_lifetime: variables
                .number("ACCESS_TOKEN_EXPIRE_MINUTES", 1..=10_080)
                .map(Duration::from_mins),
            password_concurrency: variables
                .number("PASSWORD_CONCURRENCY", 1..=64)
                .and_then(|number| NonZeroUsize::new(usize::try_from(number).ok()?))
                .unwrap_or(const { NonZeroUsize::new(2).unwrap() }),
            allowed_origins: origins(&mut variables),
            redis_url: redis(&mut variables),
            inventory_url: inventory(&mut variables),
            simulation: if is_production {
                variables.one_of("SIMULATION", &["off", "on"]) == "on"
            } else {
                variables.one_of("SIMULATION", &["on", "off"]) == "on"
            },
        };
        if variables.mistakes.is_empty() { Ok(settings) } else { Err(variables.mistakes) }
    }
}

/// The variables, and what is wrong with them so far.
struct Variables {
    values: BTreeMap<String, String>,
    mistakes: Vec<String>,
}

impl Variables {
    fn text(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    /// `shown` is the value as everybody may see it.
    fn refuse(&mut self, name: &str, shown: impl fmt::Display, allowed: &str) {
        self.mistakes.push(format!("{name}: \"{shown}\" is not {allowed} (from the environment)"));
    }

    /// One of a few words; the first is the default.
    fn one_of(&mut self, name: &str, allowed: &[&'static str]) -> &'static str {
        let Some(text) = self.text(name) else { return allowed.first().copied().unwrap_or("") };
        if let Some(found) = allowed.iter().find(|word| **word == text) {
            return found;
        }
        self.refuse(name, text, &format!("one of {}", allowed.join(", ")));
        ""
    }

    fn number(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.text(name)?;
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let allowed = format!("a whole number from {} to {}", range.start(), range.end());
            self.refuse(name, text, &allowed);
        }
        number
    }
}

fn database(variables: &mut Variables) -> Location {
    const NAME: &str = "DATABASE_URL";
    let url = variables.text(NAME).unwrap_or_else(|| "sqlite:saola.db".to_owned());
    Location::parse(&url).unwrap_or_else(|allowed| {
        // What stands behind the scheme may be a password.
        let scheme = url.split(':').next().unwrap_or_default();
        variables.refuse(NAME, format_args!("{scheme}:***"), allowed);
        Location::Sqlite(PathBuf::new())
    })
}

fn pool_size(variables: &mut Variables) -> Option<usize> {
    const NAME: &str = "DATABASE_POOL_SIZE";
    let text = variables.text(NAME).filter(|text| text != "auto")?;
    let size = text.parse().ok().filter(|size| (1..=100).contains(size));
    if size.is_none() {
        variables.refuse(NAME, text, "auto or a whole number from 1 to 100");
    }
    size
}

fn secret_key(variables: &mut Variables, is_production: bool) -> Option<Secret> {
    const NAME: &str = "SECRET_KEY";
    let key = variables.text(NAME);
    match &key {
        None if is_production => variables.refuse(NAME, "", "set; in production it must be"),
        Some(key) if key.len() < 32 => variables.refuse(NAME, "***", "at least 32 bytes long"),
        _ => (),
    }
    key.map(Secret::new)
}

fn origins(variables: &mut Variables) -> Origins {
    const NAME: &str = "ALLOWED_ORIGINS";
    let Some(text) = variables.text(NAME) else { return Origins::These(Vec::new()) };
    if text.trim() == "*" {
        return Origins::Any;
    }
    let mut origins = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match HeaderValue::from_str(part) {
            Ok(origin) if is_origin(part) => origins.push(origin),
            _ => {
                let allowed = "an origin like https://example.com:8443, or * alone";
                variables.refuse(NAME, part, allowed);
            }
        }
    }
    Origins::These(origins)
}

/// `scheme://host[:port]` and nothing behind it.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    ["http", "https"].contains(&scheme)
        && authority.parse::<axum::http::uri::Authority>().is_ok_and(|parsed| {
            !authority.contains('@') && !parsed.host().is_empty() && parsed.host() != "*"
        })
}

fn redis(variables: &mut Variables) -> Option<Secret> {
    let url = variables.text("REDIS_URL")?;
    if !url.starts_with("redis://") {
        variables.refuse("REDIS_URL", "***", "redis://HOST:PORT");
    }
    Some(Secret::new(url))
}

fn inventory(variables: &mut Variables) -> Option<Uri> {
    let text = variables.text("INVENTORY_URL")?;
    let uri = text.parse::<Uri>().ok();
    let uri = uri.filter(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some());
    if uri.is_none() {
        variables.refuse("INVENTORY_URL", text, "http://HOST:PORT");
    }
    uri
}

/// What the library ends with when settings are wrong.
pub(crate) const EXIT_CODE: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        Settings::read(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test]
    fn without_a_word_it_is_a_development_server_on_sqlite() {
        let settings = read(&[]).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        assert!(matches!(settings.database, Location::Sqlite(path) if path.ends_with("saola.db")));
        assert!(settings.simulation && settings.auto_migrate && settings.secret_key.is_none());
    }

    #[test]
    fn all_mistakes_are_told_at_once_and_no_secret_with_them() {
        let Err(mistakes) = read(&[
            ("APP_ENV", "test"),
            ("DATABASE_URL", "mysql://root:canary@localhost/x"),
            ("DATABASE_POOL_SIZE", "0"),
            ("DATABASE_AUTO_MIGRATE", "maybe"),
            ("SECRET_KEY", "canary"),
            ("ACCESS_TOKEN_EXPIRE_MINUTES", "0"),
            ("PASSWORD_CONCURRENCY", "65"),
            ("ALLOWED_ORIGINS", "https://a.example,*,https://b.example/path"),
            ("REDIS_URL", "rediss://:canary@localhost"),
            ("INVENTORY_URL", "https://x"),
            ("SIMULATION", "yes"),
        ]) else {
            panic!("these are mistakes")
        };
        assert_eq!(mistakes.len(), 12, "{mistakes:#?}");
        assert!(!mistakes.concat().contains("canary"), "{mistakes:#?}");
    }

    #[test]
    fn production_needs_a_key_and_has_no_simulation() {
        assert!(read(&[("APP_ENV", "production")]).is_err());
        let key = "0123456789abcdef0123456789abcdef";
        let settings = read(&[("APP_ENV", "production"), ("SECRET_KEY", key)]);
        assert!(!settings.unwrap_or_else(|mistakes| panic!("{mistakes:?}")).simulation);
    }

    #[test]
    fn a_database_has_a_place_that_workers_can_share() {
        for (url, is_good) in [
            ("sqlite:/var/lib/x.db", true),
            ("sqlite::memory:", false),
            ("sqlite:", false),
            ("postgres://a:b@c/d", true),
            ("postgresql://a:b@c/d?sslmode=require", true),
            ("postgresql://a:b@c/d?sslmode=perhaps", false),
            ("postgres://a:b@c:port/d", false),
        ] {
            assert_eq!(read(&[("DATABASE_URL", url)]).is_ok(), is_good, "{url}");
        }
    }
}

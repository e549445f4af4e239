//! Where values come from: flags beat the environment, which beats the file, which beats the defaults.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::ArgMatches;

use crate::settings::mistake::Mistake;
use crate::settings::table::{SETTINGS, Setting, find};

/// The environment as it was when the process began.
#[derive(Clone, Default, Debug)]
pub(crate) struct Environment {
    variables: BTreeMap<OsString, OsString>,
    /// The text that the settings file had when it was last read, where that is what counts.
    file: Option<String>,
}

impl Environment {
    pub(crate) fn of_process() -> Self {
        Self { variables: std::env::vars_os().collect(), file: None }
    }

    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        Self { variables: variables.collect(), file: None }
    }

    /// The same, where the settings file has this text, whatever has become of it since.
    pub(crate) fn with_file(&self, text: Option<String>) -> Self {
        Self { file: text, ..self.clone() }
    }

    pub(crate) fn os(&self, name: &str) -> Option<OsString> {
        self.variables.get(&OsString::from(name)).cloned()
    }

    /// A variable that is set, not empty and text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.os(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty())
    }
}

/// Where a value was found.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum Source {
    Flag,
    Variable(String),
    File(PathBuf),
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The texts of one setting and where they were found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) texts: Vec<String>,
    pub(crate) source: Source,
}

/// All settings as texts.
#[derive(Debug)]
pub(crate) struct Sources {
    found: BTreeMap<&'static str, Found>,
    /// What stood in the file, if there is one.
    pub(crate) file: Option<String>,
}

impl Sources {
    /// Looks each setting up; what cannot be read at all is a mistake, and the others are still looked up.
    pub(crate) fn gather(
        flags: Option<&ArgMatches>,
        env: &Environment,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let (text, file) = file(flags, env, mistakes);
        let mut found = BTreeMap::new();
        for setting in SETTINGS {
            let value = from_flags(flags, setting)
                .or_else(|| from_environment(env, setting, mistakes))
                .or_else(|| file.get(setting.name).cloned())
                .unwrap_or_else(|| Found { texts: default(setting, env), source: Source::Default });
            found.insert(setting.name, value);
        }
        Self { found, file: text }
    }

    /// The value of a setting of the table.
    pub(crate) fn of(&self, name: &str) -> Found {
        self.found
            .get(name)
            .cloned()
            .unwrap_or(Found { texts: Vec::new(), source: Source::Default })
    }

    /// Every setting, its texts and their source, in the order of the table.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static Setting, &Found)> {
        SETTINGS
            .iter()
            .filter_map(|setting| self.found.get(setting.name).map(|found| (setting, found)))
    }
}

fn from_flags(flags: Option<&ArgMatches>, setting: &Setting) -> Option<Found> {
    let flags = flags?;
    // `saola log` has a `--group` of its own, in the place of the setting's.
    if setting.name == "group" && flags.try_contains_id("no_follow").is_ok() {
        return None;
    }
    let values = flags.try_get_many::<String>(setting.name).ok()??;
    let texts = values.flat_map(|value| split(setting, value)).collect();
    Some(Found { texts, source: Source::Flag })
}

fn from_environment(
    env: &Environment,
    setting: &Setting,
    mistakes: &mut Vec<Mistake>,
) -> Option<Found> {
    let variable = setting.variable();
    // An empty variable counts as one that is not set, but for texts that may be empty.
    let value =
        env.os(&variable).filter(|value| !value.is_empty() || setting.name == "server_header")?;
    let source = Source::Variable(variable);
    match value.into_string() {
        Ok(value) => Some(Found { texts: split(setting, &value), source }),
        Err(value) => {
            mistakes.push(Mistake::new(
                setting.name,
                &value.to_string_lossy(),
                &source,
                "is not text",
            ));
            None
        }
    }
}

fn default(setting: &Setting, env: &Environment) -> Vec<String> {
    match (setting.name, env.text("PORT")) {
        ("bind", Some(port)) => vec![format!("0.0.0.0:{port}")],
        ("workers", _) => {
            vec![env.text("WEB_CONCURRENCY").unwrap_or_else(|| setting.default.to_owned())]
        }
        _ if setting.default.is_empty() => Vec::new(),
        _ => split(setting, setting.default),
    }
}

fn split(setting: &Setting, text: &str) -> Vec<String> {
    if setting.repeats {
        text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
    } else {
        vec![text.to_owned()]
    }
}

/// The values of the file that `--config` or `SAOLA_CONFIG` names; empty without one.
fn file(
    flags: Option<&ArgMatches>,
    env: &Environment,
    mistakes: &mut Vec<Mistake>,
) -> (Option<String>, BTreeMap<&'static str, Found>) {
    let flag =
        flags.and_then(|flags| flags.try_get_one::<String>("config").ok().flatten().cloned());
    let Some(path) = flag.or_else(|| env.text("SAOLA_CONFIG")).map(PathBuf::from) else {
        return (None, BTreeMap::new());
    };
    let source = Source::File(path.clone());
    let mut refuse = |what: String| {
        mistakes.push(Mistake::new("config", &path.to_string_lossy(), &source, &what));
    };
    let text = match env.file.clone().map_or_else(|| std::fs::read_to_string(&path), Ok) {
        Ok(text) => text,
        Err(error) => {
            refuse(format!("cannot be read: {error}"));
            return (None, BTreeMap::new());
        }
    };
    let found = match text.parse::<toml::Table>() {
        Ok(table) => from_table(&table, &source, mistakes),
        Err(error) => {
            refuse(format!("is not TOML: {}", error.to_string().trim_end().replace('\n', " ")));
            BTreeMap::new()
        }
    };
    (Some(text), found)
}

fn from_table(
    table: &toml::Table,
    source: &Source,
    mistakes: &mut Vec<Mistake>,
) -> BTreeMap<&'static str, Found> {
    let mut found = BTreeMap::new();
    for (key, value) in table {
        let Some(setting) = find(key) else {
            mistakes.push(Mistake::new(key, &value.to_string(), source, &unknown(key)));
            continue;
        };
        let texts: Option<Vec<String>> = match value {
            toml::Value::Array(values) if setting.repeats => values.iter().map(text_of).collect(),
            other => text_of(other).map(|text| split(setting, &text)),
        };
        match texts {
            Some(texts) => _ = found.insert(setting.name, Found { texts, source: source.clone() }),
            None => mistakes.push(Mistake::new(
                key,
                &value.to_string(),
                source,
                "is not a single value",
            )),
        }
    }
    found
}

fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(if *yes { "on" } else { "off" }.to_owned()),
        toml::Value::Float(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => None,
    }
}

fn unknown(key: &str) -> String {
    let nearest = SETTINGS.iter().max_by(|left, right| {
        strsim::jaro_winkler(key, left.name).total_cmp(&strsim::jaro_winkler(key, right.name))
    });
    match nearest.filter(|setting| strsim::jaro_winkler(key, setting.name) > 0.8) {
        Some(setting) => format!("is not a setting; did you mean {}?", setting.name),
        None => "is not a setting".to_owned(),
    }
}

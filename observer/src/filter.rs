//! Which records become lines: levels by target, and what is wanted of access lines.

use saola_observability::closed::Level;
use saola_observability::record::RequestRecord;

/// Levels by target, written as in `RUST_LOG`: `info,sqlx=warn,shop::cart=debug`.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct LevelFilter {
    /// Longest target first; the empty one is for all others.
    directives: Vec<(String, Most)>,
}

impl Default for LevelFilter {
    fn default() -> Self {
        Self { directives: vec![(String::new(), Most::Level(Level::Info))] }
    }
}

impl LevelFilter {
    /// Reads directives with commas between; what no directive names has level `info`.
    ///
    /// # Errors
    ///
    /// The first directive that cannot be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut directives = Vec::new();
        for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            let (target, level) = match directive.split_once('=') {
                Some((target, level)) => (target.trim(), level.trim()),
                None if Most::parse(directive).is_some() => ("", directive),
                None => (directive, "trace"),
            };
            let is_target =
                |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-' | '.');
            let level = Most::parse(level).filter(|_| target.chars().all(is_target));
            let Some(level) = level else { return Err(directive.to_owned()) };
            // The last word about a target counts.
            directives.retain(|(other, _)| other != target);
            directives.push((target.to_owned(), level));
        }
        if !directives.iter().any(|(target, _)| target.is_empty()) {
            directives.push((String::new(), Most::Level(Level::Info)));
        }
        directives.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
        Ok(Self { directives })
    }

    /// Whether an event of this target and level becomes a line.
    pub fn allows(&self, target: &str, level: Level) -> bool {
        let found = self.directives.iter().find(|(prefix, _)| {
            // The last one, and mostly the only one, is for all.
            prefix.is_empty()
                || target
                    .strip_prefix(prefix.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        });
        // Levels are ordered from the most severe.
        match found {
            Some((_, Most::Level(most))) => level <= *most,
            Some((_, Most::Off)) | None => false,
        }
    }
}

/// The most verbose level that a directive lets through.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Most {
    Off,
    Level(Level),
}

impl Most {
    fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("off") {
            return Some(Self::Off);
        }
        let mut levels = Level::ALL.iter().copied();
        levels.find(|level| text.eq_ignore_ascii_case(level.as_str())).map(Self::Level)
    }
}

/// What `--access-log` may say.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub enum AccessLog {
    /// Every request gets a line.
    #[default]
    On,
    /// Only those whose line is of level `error`.
    Errors,
    /// None.
    Off,
}

impl AccessLog {
    /// Reads `on`, `errors` or `off`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "on" => Some(Self::On),
            "errors" => Some(Self::Errors),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// All that decides whether a record becomes a line.
#[derive(Clone, Debug)]
pub struct LineFilter {
    /// Levels of events. Default `info`.
    pub levels: LevelFilter,
    /// Which requests get an access line. Default all.
    pub access_log: AccessLog,
    /// Paths whose answers below 400 give no line. Default `/health`, `/ready`, `/metrics`.
    pub access_log_exclude: Vec<String>,
}

impl Default for LineFilter {
    fn default() -> Self {
        let exclude = ["/health", "/ready", "/metrics"];
        Self {
            levels: LevelFilter::default(),
            access_log: AccessLog::On,
            access_log_exclude: exclude.map(str::to_owned).to_vec(),
        }
    }
}

impl LineFilter {
    /// Whether a request whose line has this level becomes a line.
    pub fn allows_request(&self, request: &RequestRecord<'_>, level: Level) -> bool {
        let is_wanted = match self.access_log {
            AccessLog::On => true,
            AccessLog::Errors => level == Level::Error,
            AccessLog::Off => false,
        };
        let is_good = request.status.is_some_and(|status| status < 400) && level > Level::Warn;
        is_wanted
            && self.levels.allows(crate::logfmt::ACCESS_TARGET, level)
            && !(is_good && self.access_log_exclude.iter().any(|path| *path == request.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logfmt::tests::request;

    #[test]
    fn the_longest_target_decides() {
        let filter = LevelFilter::parse("warn, shop=info,shop::cart=debug,noisy=off").unwrap();
        assert!(filter.allows("other", Level::Warn) && !filter.allows("other", Level::Info));
        assert!(filter.allows("shop", Level::Info) && !filter.allows("shop", Level::Debug));
        assert!(filter.allows("shop::cart::db", Level::Debug));
        assert!(!filter.allows("shopping", Level::Info));
        assert!(!filter.allows("noisy", Level::Error));
        assert!(LevelFilter::parse("").unwrap().allows("x", Level::Info));
        assert!(LevelFilter::parse("sqlx").unwrap().allows("sqlx", Level::Trace));
        assert_eq!(LevelFilter::parse("info,x=loud"), Err("x=loud".to_owned()));
        assert!(LevelFilter::parse("a b=info").is_err());
    }

    #[test]
    fn probes_that_answer_well_give_no_line() {
        let filter = LineFilter::default();
        let mut probe = RequestRecord { path: "/health".into(), ..request() };
        assert!(!filter.allows_request(&probe, Level::Info));
        probe.status = Some(503);
        assert!(filter.allows_request(&probe, Level::Error));
        assert!(filter.allows_request(&request(), Level::Info));
        let errors = LineFilter { access_log: AccessLog::Errors, ..filter.clone() };
        assert!(!errors.allows_request(&request(), Level::Info));
        assert!(errors.allows_request(&probe, Level::Error));
        let off = LineFilter { access_log: AccessLog::Off, ..filter };
        assert!(!off.allows_request(&probe, Level::Error));
    }
}

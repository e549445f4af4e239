//! Texts as values. A mistake is kept, not returned: all of them are told at once.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;

use crate::settings::mistake::Mistake;
use crate::settings::source::{Found, Sources};

/// Reads values of the table and keeps what is wrong with them.
pub(crate) struct Values<'s> {
    pub(crate) sources: &'s Sources,
    pub(crate) mistakes: Vec<Mistake>,
}

impl Values<'_> {
    /// The text of a setting, `None` when it has neither value nor default.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.sources.of(name).texts.into_iter().next()
    }

    /// Reads the value with `parse`; what it refuses is a mistake that `allowed` completes: "is not …".
    pub(crate) fn parsed<T>(
        &mut self,
        name: &str,
        allowed: &str,
        fallback: T,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let Found { texts, source } = self.sources.of(name);
        let Some(text) = texts.first() else { return fallback };
        parse(text).unwrap_or_else(|| {
            self.mistakes.push(Mistake::new(name, text, &source, &format!("is not {allowed}")));
            fallback
        })
    }

    /// A whole number between two bounds.
    pub(crate) fn number<T>(&mut self, name: &str, least: T, most: T) -> T
    where
        T: std::str::FromStr + PartialOrd + Copy + fmt::Display,
    {
        let allowed = format!("a whole number from {least} to {most}");
        self.parsed(name, &allowed, least, |text| {
            text.parse().ok().filter(|number| (least..=most).contains(number))
        })
    }

    /// A time: `30` are seconds, else with a unit, as `500ms`, `30s`, `2m`.
    pub(crate) fn time(&mut self, name: &str, most: Duration) -> Duration {
        let allowed = format!(
            "a time like 30, 500ms, 30s or 2m, at most {}",
            humantime::format_duration(most)
        );
        self.parsed(name, &allowed, most, |text| duration(text).filter(|time| *time <= most))
    }

    /// A time that is not zero.
    pub(crate) fn positive(&mut self, name: &str, most: Duration) -> Duration {
        let time = self.time(name, most);
        if time.is_zero() {
            self.refuse(name, "is zero");
        }
        time
    }

    /// A size: `8192` are bytes, else with a unit, as `64KiB`.
    pub(crate) fn size(&mut self, name: &str, least: u64, most: u64) -> u64 {
        let allowed = format!("a size like 64KiB, from {least} to {most} bytes");
        self.parsed(name, &allowed, least, |text| {
            let size = text.parse::<ByteSize>().ok()?.as_u64();
            (least..=most).contains(&size).then_some(size)
        })
    }

    /// A size that has a unit, or 0 for none (S67).
    pub(crate) fn limit(&mut self, name: &str, least: u64) -> u64 {
        let allowed = format!("0, or a size with its unit like 256MiB, at least {least} bytes");
        self.parsed(name, &allowed, 0, |text| {
            if text == "0" {
                return Some(0);
            }
            let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
            let size = text.parse::<ByteSize>().ok().filter(|_| has_unit)?.as_u64();
            (size >= least).then_some(size)
        })
    }

    /// `on` or `off`.
    pub(crate) fn switch(&mut self, name: &str) -> bool {
        self.parsed(name, "one of on, off", true, |text| match text {
            "on" | "true" | "yes" | "1" => Some(true),
            "off" | "false" | "no" | "0" => Some(false),
            _ => None,
        })
    }

    /// Adds a mistake about a value that could be read but may not stand.
    pub(crate) fn refuse(&mut self, name: &str, what: &str) {
        let Found { texts, source } = self.sources.of(name);
        self.mistakes.push(Mistake::new(name, &texts.join(","), &source, what));
    }
}

/// Seconds without a unit, else as `humantime` reads it.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    text.parse().map(Duration::from_secs).ok().or_else(|| humantime::parse_duration(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_or_are_seconds() {
        for (text, expected) in [
            ("30", Some(Duration::from_secs(30))),
            ("500ms", Some(Duration::from_millis(500))),
            ("2m", Some(Duration::from_mins(2))),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(duration(text), expected, "{text:?}");
        }
    }
}

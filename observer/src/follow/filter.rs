//! The filter of `saola log`: terms about the keys of log lines, joined by `and` (or a space) and `or`.
//!
//! It asks the line itself, so it knows every key that a line can have, and no others.

use std::time::Duration;

use regex_lite::Regex;
use saola_observability::closed::Level;
use serde_json::{Map, Value};
use winnow::ascii::multispace1;
use winnow::combinator::{alt, cut_err, delimited, not, opt, separated};
use winnow::error::{ContextError, ErrMode};
use winnow::prelude::*;
use winnow::token::{take_till, take_while};

/// Which lines are wanted. The default wants all.
#[derive(Clone, Debug, Default)]
pub struct Filter(Option<Any>);

/// Alternatives, each of terms that must all hold.
type Any = Vec<Vec<Term>>;

/// A filter that cannot be read.
#[derive(Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[error("cannot read filter {filter:?} at column {column}")]
pub struct FilterError {
    /// The text.
    pub filter: String,
    /// Where it cannot be understood, in characters from 1.
    pub column: usize,
}

#[derive(Clone, Debug)]
struct Term {
    key: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Is(String),
    IsNot(String),
    Matches(Regex),
    Compares(Comparison, Bound),
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Comparison {
    Less,
    AtMost,
    More,
    AtLeast,
}

/// What is compared with.
#[derive(Copy, Clone, Debug)]
enum Bound {
    Number(f64),
    Level(Level),
}

impl Filter {
    /// Reads `key=value`, `key!=value`, `key>N` (also `>=`, `<`, `<=`) and `key~"regex"`, with `and`, `or` or spaces between.
    ///
    /// `trace` and `duration` mean `trace_id` and `duration_ms`; a duration may have a unit, a trace id may be cut to four
    /// digits; levels are compared by severity. A key that a line does not have satisfies only `!=`.
    ///
    /// # Errors
    ///
    /// Where the text cannot be understood.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Ok(Self(None));
        }
        let parsed = any.parse(trimmed).map_err(|error| FilterError {
            filter: trimmed.to_owned(),
            column: trimmed.split_at(error.offset()).0.chars().count() + 1,
        })?;
        Ok(Self(Some(parsed)))
    }

    /// Whether a line, as JSON, is wanted.
    pub(crate) fn wants(&self, line: &Map<String, Value>) -> bool {
        let Some(any) = &self.0 else { return true };
        any.iter().any(|terms| terms.iter().all(|term| term.holds(line)))
    }
}

impl Term {
    fn holds(&self, line: &Map<String, Value>) -> bool {
        let Some(value) = line.get(&self.key) else { return matches!(self.test, Test::IsNot(_)) };
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match &self.test {
            Test::Is(wanted) => self.is(&text, value, wanted),
            Test::IsNot(wanted) => !self.is(&text, value, wanted),
            Test::Matches(regex) => regex.is_match(&text),
            Test::Compares(comparison, bound) => {
                let order = match bound {
                    Bound::Number(bound) => {
                        value.as_f64().and_then(|value| value.partial_cmp(bound))
                    }
                    // Levels are ordered from the most severe.
                    Bound::Level(bound) => level(&text).map(|level| bound.cmp(&level)),
                };
                order.is_some_and(|order| match comparison {
                    Comparison::Less => order.is_lt(),
                    Comparison::AtMost => order.is_le(),
                    Comparison::More => order.is_gt(),
                    Comparison::AtLeast => order.is_ge(),
                })
            }
        }
    }

    fn is(&self, text: &str, value: &Value, wanted: &str) -> bool {
        if self.key == TRACE {
            // Other tools strip leading zeros.
            let is_begun_by = |text: &str| text.starts_with(wanted);
            return wanted.len() >= 4
                && (is_begun_by(text) || is_begun_by(text.trim_start_matches('0')));
        }
        text == wanted || value.as_f64().is_some_and(|value| number(wanted) == Some(value))
    }
}

fn any(input: &mut &str) -> ModalResult<Any> {
    separated(1.., all, (multispace1, "or", multispace1)).parse_next(input)
}

fn all(input: &mut &str) -> ModalResult<Vec<Term>> {
    let and = (multispace1, not(("or", multispace1)), opt(("and", multispace1)));
    separated(1.., cut_err(term), and).parse_next(input)
}

fn term(input: &mut &str) -> ModalResult<Term> {
    let mut key = take_while(1.., |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    let key = match key.parse_next(input)? {
        "trace" => TRACE,
        "duration" => DURATION,
        key => key,
    };
    let operator = alt((">=", "<=", "!=", "=", "~", ">", "<")).parse_next(input)?;
    let start = *input;
    let value = alt((quoted, bare)).parse_next(input)?;
    let Some(test) = test(key, operator, value) else {
        *input = start;
        return Err(ErrMode::Cut(ContextError::new()));
    };
    Ok(Term { key: key.to_owned(), test })
}

fn bare<'i>(input: &mut &'i str) -> ModalResult<&'i str> {
    take_till(1.., |c: char| c.is_whitespace() || matches!(c, '"' | '=' | '<' | '>' | '!'))
        .parse_next(input)
}

fn quoted<'i>(input: &mut &'i str) -> ModalResult<&'i str> {
    delimited('"', take_till(0.., '"'), '"').parse_next(input)
}

fn test(key: &str, operator: &str, value: &str) -> Option<Test> {
    let comparison = match operator {
        "=" => return Some(Test::Is(value.to_owned())),
        "!=" => return Some(Test::IsNot(value.to_owned())),
        "~" => return Regex::new(value).ok().map(Test::Matches),
        "<" => Comparison::Less,
        "<=" => Comparison::AtMost,
        ">" => Comparison::More,
        _ => Comparison::AtLeast,
    };
    let bound = match key {
        "level" => Bound::Level(level(value)?),
        DURATION => Bound::Number(number(value).or_else(|| milliseconds(value))?),
        _ => Bound::Number(number(value)?),
    };
    Some(Test::Compares(comparison, bound))
}

fn level(text: &str) -> Option<Level> {
    Level::ALL.iter().copied().find(|level| text.eq_ignore_ascii_case(level.as_str()))
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn milliseconds(text: &str) -> Option<f64> {
    humantime::parse_duration(text).ok().map(|time: Duration| time.as_secs_f64() * 1_000.0)
}

const TRACE: &str = "trace_id";
const DURATION: &str = "duration_ms";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wants(filter: &str) -> bool {
        let line = serde_json::json!({
            "level": "warn", "msg": "request", "worker": 1, "route": "/items/{id}", "path": "/shop/7",
            "status": 503, "outcome": "ok", "duration_ms": 250.5,
            "trace_id": "00f92f3577b34da6a3ce929d0e0e4736",
        });
        Filter::parse(filter).unwrap().wants(line.as_object().unwrap())
    }

    #[test]
    fn every_kind_of_term() {
        for filter in [
            "",
            "status=503",
            "status!=200",
            "status>=500",
            "status>502",
            "status<=503",
            "status<504",
            "duration>250ms",
            "duration<0.3s",
            "duration_ms>250",
            "route=/items/{id}",
            "path~\"^/shop\"",
            "level>=warn",
            "level<error",
            "level=warn",
            "trace=00f92f35",
            "trace=f92f",
            "worker=1",
            "outcome=ok",
            "nothing!=1",
            "msg=\"request\"",
        ] {
            assert!(wants(filter), "{filter}");
        }
        for filter in [
            "status=200",
            "status>503",
            "duration>1s",
            "path~^/$",
            "level>warn",
            "level>=error",
            "trace=92f3",
            "trace=00f",
            "trace=0000",
            "worker=2",
            "nothing=1",
            "nothing>1",
            "msg>1",
        ] {
            assert!(!wants(filter), "{filter}");
        }
    }

    #[test]
    fn terms_are_joined() {
        assert!(wants("status>=500 or duration_ms>900"));
        assert!(wants("status=200 or duration_ms>200"));
        assert!(wants("  status>=500 and worker=1  level=warn "));
        assert!(!wants("status>=500 worker=2"));
        assert!(wants("status>=500 worker=2 or worker=1 outcome=ok"));
        assert!(!wants("status=200 or worker=2 and status=503"));
    }

    #[test]
    fn what_cannot_be_read_is_pointed_at() {
        let column = |filter: &str| Filter::parse(filter).unwrap_err().column;
        for (filter, at) in [
            ("status>>5", 8),
            ("status", 7),
            ("=5", 1),
            ("status>x", 8),
            ("status=1 or", 12),
            ("status=1 or =2", 13),
            ("path~\"(\"", 6),
            ("level>=loud", 8),
            ("ä=1", 1),
        ] {
            assert_eq!(column(filter), at, "{filter}");
        }
        let text = Filter::parse("status>>5").unwrap_err().to_string();
        assert_eq!(text, "cannot read filter \"status>>5\" at column 8");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

        #[test]
        fn whatever_is_typed_is_a_filter_or_a_mistake_with_its_place(
            words in proptest::collection::vec(prop_oneof![
                proptest::arbitrary::any::<String>(),
                Just("status".to_owned()), Just(">=".to_owned()), Just("500".to_owned()), Just("or".to_owned()),
                Just("and".to_owned()), Just("path~\"".to_owned()), Just("\"(((((\"".to_owned()), Just("!=".to_owned()),
            ], 0..12),
        ) {
            let text = words.concat();
            let line = serde_json::json!({"status": 500, "path": "/", "trace_id": "00ff"});
            match Filter::parse(&text) {
                Ok(filter) => drop(filter.wants(line.as_object().unwrap())),
                Err(error) => prop_assert!(error.to_string().contains("at column"), "{error}"),
            }
        }
    }
}

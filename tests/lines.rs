//! A strict reader of logfmt, written from observer.md O23-O26 and sharing nothing with the encoder.

/// Longest line that a pipe takes whole, with its newline.
const LONGEST: usize = 4096;

/// The keys of an access line, in their order.
pub(crate) const ACCESS_KEYS: [&str; 20] = [
    "time",
    "level",
    "msg",
    "target",
    "service",
    "worker",
    "pid",
    "request_id",
    "trace_id",
    "span_id",
    "method",
    "path",
    "route",
    "status",
    "outcome",
    "duration_ms",
    "request_bytes",
    "response_bytes",
    "client",
    "user_agent",
];

/// One line: its pairs in their order.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) text: String,
    pairs: Vec<(String, String)>,
}

impl Line {
    /// Reads a line.
    ///
    /// # Panics
    ///
    /// If it is not exactly what the contract allows.
    pub(crate) fn parse(text: &str) -> Self {
        Self::try_parse(text).unwrap_or_else(|why| panic!("{why}\nin the line: {text}"))
    }

    pub(crate) fn try_parse(text: &str) -> Result<Self, String> {
        if text.len() + 1 > LONGEST {
            return Err(format!("{} bytes, more than a pipe takes whole", text.len()));
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut rest = text;
        loop {
            let (key, behind) = rest.split_once('=').ok_or("a key without a value")?;
            let is_key = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
            if key.is_empty() || !key.bytes().all(is_key) {
                return Err(format!("{key:?} is no key"));
            }
            if pairs.iter().any(|(other, _)| other == key) {
                return Err(format!("{key} stands twice"));
            }
            let (value, behind) = value(behind)?;
            pairs.push((key.to_owned(), value));
            match behind.strip_prefix(' ') {
                Some(next) => rest = next,
                None if behind.is_empty() => return Ok(Self { text: text.to_owned(), pairs }),
                None => return Err(format!("{behind:?} follows a value")),
            }
        }
    }

    /// The value of a key; empty when the line has none.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.pairs.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value.as_str())
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.pairs.iter().any(|(name, _)| name == key)
    }

    pub(crate) fn keys(&self) -> Vec<&str> {
        self.pairs.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The value of a key as a whole number.
    pub(crate) fn number(&self, key: &str) -> u64 {
        self.get(key).parse().unwrap_or_else(|_| panic!("{key} is no number in: {}", self.text))
    }

    pub(crate) fn is(&self, msg: &str) -> bool {
        self.get("msg") == msg
    }
}

fn value(text: &str) -> Result<(String, &str), String> {
    if !text.starts_with('"') {
        let end = text.find(' ').unwrap_or(text.len());
        let (bare, rest) = text.split_at(end);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/+@%,~-".contains(&byte);
        if bare.is_empty() || !bare.bytes().all(is_plain) {
            return Err(format!("{bare:?} may not stand bare"));
        }
        return Ok((bare.to_owned(), rest));
    }
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => {
                let (quoted, rest) = text.split_at(at + 1);
                let value =
                    serde_json::from_str(quoted).map_err(|error| format!("{quoted}: {error}"))?;
                check_visible(quoted)?;
                return Ok((value, rest));
            }
            _ => {}
        }
    }
    Err("a quote that nobody closes".to_owned())
}

/// What a terminal or a reader of lines could take for something else must be escaped.
fn check_visible(quoted: &str) -> Result<(), String> {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    match quoted.chars().find(|c| is_hidden(*c)) {
        Some(c) => Err(format!("{c:?} stands unescaped")),
        None => Ok(()),
    }
}

mod facts {
    use super::*;

    #[test]
    fn the_reader_takes_what_the_contract_allows() {
        let line = Line::parse(
            r#"time=2026-11-21T03:58:00.5Z msg="worker ready" route="/a/{id}" empty="" n=1"#,
        );
        assert_eq!(
            (line.get("msg"), line.get("route"), line.get("empty")),
            ("worker ready", "/a/{id}", "")
        );
        assert_eq!(line.keys(), ["time", "msg", "route", "empty", "n"]);
    }

    #[test]
    fn the_reader_refuses_everything_else() {
        let wrong = [
            "",
            "a",
            "a=",
            "=b",
            "a=b c",
            "a=b  c=d",
            "a=b a=c",
            "a=\"b",
            "a=\"b\"c=d",
            "a=b\"c",
            "a={b}",
            "a=b ",
            "a=\"\u{1b}[31m\"",
            "a=\"\u{2028}\"",
            "a=ü",
            "a b=c",
            "a=b\tc=d",
        ];
        for text in wrong {
            assert!(Line::try_parse(text).is_err(), "{text:?}");
        }
        assert!(Line::try_parse(&format!("a={}", "b".repeat(LONGEST))).is_err());
    }
}

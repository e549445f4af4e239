//! The fields of an event: the only keys on a line that code outside Saola chooses.

use saola_observability::record::Value;

use super::line::{LINE_BYTES, Line, key};

/// Whose fields they are.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Author {
    /// Supervisor or observer: their lines use the words of access lines for their own durations and routes.
    Saola,
    /// A worker's application: none of its events may look like an access line.
    Application,
}

/// Appends `fields`; those that do not fit are left out from the last backwards, and `truncated=N` says how many.
pub(super) fn write<'v>(
    line: &mut Line<'_>,
    author: Author,
    fields: impl ExactSizeIterator<Item = (&'v str, Value<'v>)>,
) {
    let total = fields.len();
    let mut starts = [0; MAX_FIELDS];
    let mut ends = [line.len(); MAX_FIELDS + 1];
    let mut kept = 0;
    for (key, value) in fields.take(MAX_FIELDS) {
        let mut name = Key::new(key, author);
        let is_hidden = is_secret(key) || is_secret(name.as_str());
        let mut copy = 1;
        while starts[..kept].iter().any(|at| line.has_key_at(*at, name.as_bytes())) {
            copy += 1;
            name.number(copy);
        }
        starts[kept] = line.next_key();
        let shown = if is_hidden { Value::Str("***") } else { value };
        line.value(name.as_str(), shown, VALUE_BYTES);
        if line.len() + line.closing_bytes() > LINE_BYTES {
            break;
        }
        kept += 1;
        ends[kept] = line.len();
    }
    if kept == total {
        return;
    }
    while kept > 0 && ends[kept] + TRUNCATED_BYTES + line.closing_bytes() > LINE_BYTES {
        kept -= 1;
    }
    line.cut_to(ends[kept]);
    line.number(key!("truncated"), total - kept);
}

/// A record has no more fields than this.
const MAX_FIELDS: usize = 64;
const VALUE_BYTES: usize = 512;
/// The longest `,"truncated":N` or ` truncated=N`.
const TRUNCATED_BYTES: usize = 36;

/// A key of an event, made harmless, on the stack.
struct Key {
    bytes: [u8; KEY_BYTES + 16],
    base: usize,
    len: usize,
}

impl Key {
    fn new(key: &str, author: Author) -> Self {
        let mut made = Self { bytes: [0; KEY_BYTES + 16], base: 0, len: 0 };
        for character in key.chars().take(KEY_BYTES) {
            made.push(&[match character {
                'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '.' => {
                    u8::try_from(character).unwrap_or(b'_')
                }
                _ => b'_',
            }]);
        }
        if made.len == 0 {
            made.push(b"field");
        }
        // After the replacements: `trace id` becomes a reserved key too.
        let of_access_lines = author == Author::Application && ACCESS.contains(&made.as_str());
        if of_access_lines || RESERVED.contains(&made.as_str()) {
            made.bytes.copy_within(..made.len, PREFIX.len());
            made.bytes[..PREFIX.len()].copy_from_slice(PREFIX);
            made.len += PREFIX.len();
        }
        made.base = made.len;
        made
    }

    /// Makes it the `copy`-th of its name: `key_2`, `key_3`.
    fn number(&mut self, copy: usize) {
        self.len = self.base;
        self.push(b"_");
        self.push(itoa::Buffer::new().format(copy).as_bytes());
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or("field")
    }
}

const KEY_BYTES: usize = 64;
const PREFIX: &[u8] = b"field_";

/// Says whether the value of a field of this name is never to be shown: it equals or ends in `password`, `passwd`,
/// `secret`, `token`, `authorization`, `cookie` or `api_key`, in any case.
pub fn is_secret(key: &str) -> bool {
    let key = key.as_bytes();
    let last = key.last().map(u8::to_ascii_lowercase);
    SECRET.iter().any(|ending| {
        // The last letter excludes most, and this is asked of every field.
        if last != ending.last().copied() {
            return false;
        }
        key.len().checked_sub(ending.len()).is_some_and(|at| key[at..].eq_ignore_ascii_case(ending))
    })
}

const SECRET: [&[u8]; 7] =
    [b"password", b"passwd", b"secret", b"token", b"authorization", b"cookie", b"api_key"];

/// Keys of Saola's own: no event can forge one.
const RESERVED: [&str; 11] = [
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
    "truncated",
];

/// Keys of access lines.
const ACCESS: [&str; 10] = [
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_harmless() {
        for (given, made) in [
            ("items", "items"),
            ("", "field"),
            ("level", "field_level"),
            ("a b=\"c\"\n", "a_b__c__"),
            ("größe", "gr__e"),
            ("trace id", "field_trace_id"),
        ] {
            assert_eq!(Key::new(given, Author::Application).as_str(), made, "{given:?}");
        }
        assert_eq!(Key::new(&"k".repeat(100), Author::Saola).as_str().len(), KEY_BYTES);
        assert_eq!(Key::new("duration_ms", Author::Application).as_str(), "field_duration_ms");
        assert_eq!(Key::new("duration_ms", Author::Saola).as_str(), "duration_ms");
        assert_eq!(Key::new("level", Author::Saola).as_str(), "field_level");
    }

    #[test]
    fn secrets_are_known_by_their_ending() {
        assert!(is_secret("db.password"));
        assert!(is_secret("API_KEY"));
        assert!(!is_secret("tokens_used"));
    }
}

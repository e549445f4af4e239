//! Whether an HTTP/1 head is complete, well-formed and unambiguous (RFC 9112 sections 2 to 6). Pure; bytes in, verdict out.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::hint::cold_path;

use crate::branch::{rare, unlikely};
use crate::charset;
use crate::config::Config;
use crate::request::answer::{Refusal, bad};

/// How far the bytes of a head have been read, so that no line is read twice, however slowly a head comes.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Everything before this is in complete lines.
    line_start: usize,
    /// So many bytes behind it hold no line end.
    seen: usize,
    lines: usize,
    version: Option<Version>,
    fields: Fields,
    /// The first mistake. It is told when the head is complete, so that one which is too large is told so.
    mistake: Option<&'static Refusal>,
}

/// What stands behind an accepted head.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Body {
    Length(u64),
    Chunked,
}

/// What is known of the bytes so far.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Verdict {
    Incomplete,
    Complete { end: usize, body: Body },
    Refused(&'static Refusal),
}

impl Scan {
    /// Looks at what came since the last call. `bytes` begins where the request line begins.
    pub(crate) fn advance(&mut self, bytes: &[u8], config: &Config) -> Verdict {
        let mut unread = bytes.get(self.line_start..).unwrap_or_default();
        loop {
            // A line is seldom cut, and seldom holds a tab: then its end is the first control character in it.
            let plain = if self.seen == 0 { plain_line(unread) } else { None };
            let Some((line, rest)) = plain.or_else(|| any_line(unread, self.seen)) else {
                cold_path();
                self.line_start = bytes.len().saturating_sub(unread.len());
                self.seen = unread.len();
                // The first half of a line end does not count, whether or not the second has come.
                let length = unread.strip_suffix(b"\r").unwrap_or(unread).len();
                return self
                    .too_long(length, bytes.len(), config)
                    .map_or(Verdict::Incomplete, Verdict::Refused);
            };
            let end = bytes.len().saturating_sub(rest.len());
            if let Some(refusal) = self.too_long(line.text.len(), end, config) {
                return rare(Verdict::Refused(refusal));
            }
            if self.mistake.is_none()
                && let Err(mistake) = self.read(&line)
            {
                self.mistake = rare(Some(mistake));
            }
            if line.text.is_empty() {
                return self.complete(end);
            }
            (unread, self.seen) = (rest, 0);
            self.lines = self.lines.saturating_add(1);
        }
    }

    /// Reads a complete line; `Err` is the answer to a head that must not be served.
    fn read(&mut self, line: &Line<'_>) -> Result<(), &'static Refusal> {
        if unlikely(line.kind == Kind::Unended) {
            return Err(bad!("a line must end with CR LF"));
        }
        match self.version {
            // `complete` says what a head without a request line is.
            _ if line.text.is_empty() => {}
            None => self.version = Some(request_line(line.text)?),
            Some(_) => self.fields.take(line)?,
        }
        Ok(())
    }

    fn complete(&self, end: usize) -> Verdict {
        let framing = match (self.mistake, self.version) {
            (Some(mistake), _) => rare(Err(mistake)),
            (None, Some(version)) => self.fields.framing(version),
            (None, None) => rare(Err(MALFORMED)),
        };
        framing.map_or_else(Verdict::Refused, |body| Verdict::Complete { end, body })
    }

    fn too_long(&self, line: usize, head: usize, config: &Config) -> Option<&'static Refusal> {
        match self.lines {
            0 if line > config.limit_request_line || head > config.limit_request_head => {
                Some(Refusal::URI_TOO_LONG)
            }
            0 => None,
            _ if line > config.limit_request_field_size || head > config.limit_request_head => {
                Some(Refusal::FIELDS_TOO_LARGE)
            }
            // The request line is a line too, so `lines` fields have been seen when one more begins.
            fields if fields > config.limit_request_fields && line > 0 => {
                Some(Refusal::FIELDS_TOO_LARGE)
            }
            _ => None,
        }
    }
}

/// A complete line without its end.
struct Line<'b> {
    text: &'b [u8],
    kind: Kind,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Kind {
    /// It is known to have no control character.
    Plain,
    Any,
    /// Its line feed stands alone.
    Unended,
}

/// Cuts off a line that is whole and has no other control character than those of its end.
fn plain_line(bytes: &[u8]) -> Option<(Line<'_>, &[u8])> {
    let (text, rest) = bytes.split_at_checked(uncontrolled(bytes))?;
    Some((Line { text, kind: Kind::Plain }, rest.strip_prefix(b"\r\n")?))
}

/// Cuts off a line that is whole and does not end in its first bytes, so many as were `seen`.
#[cold]
fn any_line(bytes: &[u8], seen: usize) -> Option<(Line<'_>, &[u8])> {
    let at = memchr::memchr(b'\n', bytes.get(seen..)?)?;
    let (text, rest) = bytes.split_at_checked(seen.saturating_add(at))?;
    let line = match text.strip_suffix(b"\r") {
        Some(text) => Line { text, kind: Kind::Any },
        None => Line { text, kind: Kind::Unended },
    };
    Some((line, rest.get(1..)?))
}

/// How many bytes stand before the first control character, a tab being one.
fn uncontrolled(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    let (words, rest) = bytes.as_chunks::<8>();
    for (start, word) in (0_usize..).step_by(8).zip(words) {
        // Eight bytes at once. A borrow reaches only bytes behind one that is found, and the first is what counts.
        let word = u64::from_le_bytes(*word);
        let low = word.wrapping_sub(ONES * 32) & !word;
        let differs = word ^ (ONES * 127);
        let delete = differs.wrapping_sub(ONES) & !differs;
        let found = (low | delete) & (ONES << 7);
        if found != 0 {
            let bits = usize::try_from(found.trailing_zeros()).unwrap_or(0);
            return start.saturating_add(bits / 8);
        }
    }
    let end = rest.iter().position(u8::is_ascii_control).unwrap_or(rest.len());
    bytes.len().saturating_sub(rest.len()).saturating_add(end)
}

/// Refuses what another reader could take for a line end.
#[cold]
fn printable(bytes: &[u8]) -> Result<(), &'static Refusal> {
    // Without a way out in the middle: so the compiler looks at many bytes at once.
    let is_bad = |byte: u8| (byte < 32 && byte != b'\t') || byte == 127;
    if bytes.iter().fold(false, |found, byte| found | is_bad(*byte)) {
        return Err(bad!("a control character in the request head"));
    }
    Ok(())
}

const MALFORMED: &Refusal = bad!("the request line is malformed");

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Version {
    Http10,
    Http11,
}

fn request_line(line: &[u8]) -> Result<Version, &'static Refusal> {
    let (method, rest) = charset::TOKEN.split(line);
    let rest = rest.strip_prefix(b" ").unwrap_or_default();
    let (target, version) = charset::PLAIN.split(rest);
    // What almost every request line is: nothing in it needs a second look.
    if version == b" HTTP/1.1" && target.starts_with(b"/") && (1..=32).contains(&method.len()) {
        return Ok(Version::Http11);
    }
    unusual_request_line(line)
}

#[cold]
fn unusual_request_line(line: &[u8]) -> Result<Version, &'static Refusal> {
    printable(line)?;
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(MALFORMED);
    };
    if !charset::TOKEN.is_all_of(method) || target.is_empty() || target.contains(&b'\t') {
        return Err(MALFORMED);
    }
    if target.contains(&b'#') {
        // RFC 9112 section 3.2: no form of target has a fragment. hyper cuts it off, so nobody behind us could tell.
        return Err(bad!("the target has a fragment"));
    }
    let is_plain = target.starts_with(b"/") && charset::PLAIN.is_all_of(target);
    if !is_plain && http::Uri::try_from(target).is_err() {
        // hyper would answer for itself, and nobody would hear of it.
        return Err(bad!("the target is malformed"));
    }
    if method.len() > 32 {
        return Err(Refusal::METHOD);
    }
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal::VERSION)
        }
        _ => Err(MALFORMED),
    }
}

/// What the framing of a body hangs on.
#[derive(Debug, Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    coding: Option<Coding>,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Coding {
    Chunked,
    Malformed,
    Unknown,
}

impl Fields {
    fn take(&mut self, line: &Line<'_>) -> Result<(), &'static Refusal> {
        let (name, rest) = charset::TOKEN.split(line.text);
        if unlikely(line.kind != Kind::Plain) {
            printable(rest)?;
        }
        let value = match rest {
            [b':', value @ ..] if !name.is_empty() => value,
            // A token has no space: this also refuses folded lines and a space before the colon (section 5.1, 5.2).
            rest if rest.contains(&b':') => return Err(bad!("a field name is malformed")),
            _ => return Err(bad!("a field line without a colon")),
        };
        if is_host(name) {
            self.hosts = self.hosts.saturating_add(1);
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() {
                return Err(bad!("Content-Length more than once"));
            }
            let value = length(value.trim_ascii());
            self.length = Some(value.ok_or(bad!("Content-Length is malformed"))?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let value = value.trim_ascii();
            self.coding = Some(match self.coding {
                None => coding(value),
                Some(Coding::Unknown) => Coding::Unknown,
                Some(_) if coding(value) == Coding::Unknown => Coding::Unknown,
                Some(_) => Coding::Malformed,
            });
        }
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Body, &'static Refusal> {
        match (version, self.hosts) {
            (_, 1) | (Version::Http10, 0) => {}
            (Version::Http11, 0) => return Err(bad!("Host is missing")),
            _ => return Err(bad!("Host more than once")),
        }
        match (self.coding, self.length) {
            (None, length) => Ok(Body::Length(length.unwrap_or(0))),
            (Some(_), Some(_)) => Err(bad!("Transfer-Encoding beside Content-Length")),
            (Some(_), None) if version == Version::Http10 => {
                Err(bad!("Transfer-Encoding in HTTP/1.0"))
            }
            (Some(Coding::Chunked), None) => Ok(Body::Chunked),
            (Some(Coding::Malformed), None) => Err(bad!("Transfer-Encoding is malformed")),
            (Some(Coding::Unknown), None) => Err(Refusal::CODING),
        }
    }
}

/// Of every head, so its four letters are compared as one number.
fn is_host(name: &[u8]) -> bool {
    let lower = |name: [u8; 4]| u32::from_ne_bytes(name) | 0x2020_2020;
    name.try_into().is_ok_and(|name| lower(name) == u32::from_ne_bytes(*b"host"))
}

fn length(value: &[u8]) -> Option<u64> {
    let digits = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| digits)?.parse::<i64>().ok()?;
    u64::try_from(number).ok()
}

#[cold]
fn coding(value: &[u8]) -> Coding {
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    if codings.clone().any(|coding| !coding.is_empty() && !starts_chunked(coding)) {
        return Coding::Unknown;
    }
    match (codings.next(), codings.next()) {
        (Some(only), None) if only.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
        _ => Coding::Malformed,
    }
}

/// `chunked`, also with parameters, which it does not take (section 7).
fn starts_chunked(coding: &[u8]) -> bool {
    let name = coding.split(|byte| *byte == b';').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

#[cfg(test)]
mod tests;

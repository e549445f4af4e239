//! Whether an HTTP/1 head is complete, well-formed and unambiguous (RFC 9112 sections 2 to 6). Pure; bytes in, verdict out.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::charset;
use crate::config::Config;
use crate::request::answer::Refusal;

/// How far the bytes of a head have been looked at, so that a slow head is not read again from its start.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Everything before this is in complete lines.
    line_start: usize,
    /// No line end before this.
    seen: usize,
    lines: usize,
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
    Refused(Refusal),
}

impl Scan {
    /// Looks at what came since the last call. `bytes` begins where the request line begins.
    pub(crate) fn advance(&mut self, bytes: &[u8], config: &Config) -> Verdict {
        loop {
            let rest = bytes.get(self.seen..).unwrap_or_default();
            let Some(at) = memchr::memchr(b'\n', rest) else {
                self.seen = bytes.len();
                // The first half of a line end does not count, whether or not the second has come.
                let line = bytes.get(self.line_start..).unwrap_or_default();
                let length = line.strip_suffix(b"\r").unwrap_or(line).len();
                return self
                    .too_long(length, bytes.len(), config)
                    .map_or(Verdict::Incomplete, Verdict::Refused);
            };
            let end = self.seen.saturating_add(at).saturating_add(1);
            let line = bytes.get(self.line_start..end).unwrap_or_default();
            let content = line.len().saturating_sub(2);
            if let Some(refusal) = self.too_long(content, end, config) {
                return Verdict::Refused(refusal);
            }
            self.line_start = end;
            self.seen = end;
            if matches!(line, b"\n" | b"\r\n") {
                return complete(bytes.get(..end).unwrap_or_default(), config);
            }
            self.lines = self.lines.saturating_add(1);
        }
    }

    fn too_long(&self, line: usize, head: usize, config: &Config) -> Option<Refusal> {
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

fn complete(head: &[u8], config: &Config) -> Verdict {
    match check(head, config) {
        Ok(body) => Verdict::Complete { end: head.len(), body },
        Err(refusal) => Verdict::Refused(refusal),
    }
}

/// Reads the lines of a complete head; `Err` is the answer to one that must not be served.
fn check(head: &[u8], config: &Config) -> Result<Body, Refusal> {
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    let version = request_line(content(lines.next().unwrap_or_default())?)?;
    let mut fields = Fields::default();
    let mut count = 0_usize;
    for line in lines {
        let line = content(line)?;
        if line.is_empty() {
            break;
        }
        count = count.saturating_add(1);
        if count > config.limit_request_fields {
            return Err(Refusal::FIELDS_TOO_LARGE);
        }
        fields.take(line)?;
    }
    fields.framing(version)
}

/// A line without its CRLF, and without anything that another reader could take for a line end.
fn content(line: &[u8]) -> Result<&[u8], Refusal> {
    let line = line.strip_suffix(b"\r\n").ok_or(Refusal::bad("a line must end with CR LF"))?;
    // Without a way out in the middle: so the compiler looks at many bytes at once.
    let is_bad = |byte: u8| (byte < 32 && byte != b'\t') || byte == 127;
    if line.iter().fold(false, |found, byte| found | is_bad(*byte)) {
        return Err(Refusal::bad("a control character in the request head"));
    }
    Ok(line)
}

#[derive(Copy, Clone, Eq, PartialEq)]
enum Version {
    Http10,
    Http11,
}

fn request_line(line: &[u8]) -> Result<Version, Refusal> {
    const MALFORMED: Refusal = Refusal::bad("the request line is malformed");
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(MALFORMED);
    };
    if !is_token(method) || target.is_empty() || target.contains(&b'\t') {
        return Err(MALFORMED);
    }
    if target.contains(&b'#') {
        // RFC 9112 section 3.2: no form of target has a fragment. hyper cuts it off, so nobody behind us could tell.
        return Err(Refusal::bad("the target has a fragment"));
    }
    if !is_plain(target) && http::Uri::try_from(target).is_err() {
        // hyper would answer for itself, and nobody would hear of it.
        return Err(Refusal::bad("the target is malformed"));
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

/// An origin-form target of unreserved and reserved characters (RFC 3986 section 2) needs no second look.
fn is_plain(target: &[u8]) -> bool {
    target.starts_with(b"/") && target.iter().all(|byte| charset::PLAIN.contains(*byte))
}

/// What the framing of a body hangs on.
#[derive(Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    coding: Option<Coding>,
}

#[derive(Copy, Clone, Eq, PartialEq)]
enum Coding {
    Chunked,
    Malformed,
    Unknown,
}

impl Fields {
    fn take(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let colon =
            memchr::memchr(b':', line).ok_or(Refusal::bad("a field line without a colon"))?;
        let (name, value) = line.split_at(colon);
        // A token has no space: this also refuses folded lines and a space before the colon (section 5.1, 5.2).
        if !is_token(name) {
            return Err(Refusal::bad("a field name is malformed"));
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts = self.hosts.saturating_add(1);
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() {
                return Err(Refusal::bad("Content-Length more than once"));
            }
            self.length = Some(length(value).ok_or(Refusal::bad("Content-Length is malformed"))?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.coding = Some(match self.coding {
                None => coding(value),
                Some(Coding::Unknown) => Coding::Unknown,
                Some(_) if coding(value) == Coding::Unknown => Coding::Unknown,
                Some(_) => Coding::Malformed,
            });
        }
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Body, Refusal> {
        match (version, self.hosts) {
            (_, 1) | (Version::Http10, 0) => {}
            (Version::Http11, 0) => return Err(Refusal::bad("Host is missing")),
            _ => return Err(Refusal::bad("Host more than once")),
        }
        match (self.coding, self.length) {
            (None, length) => Ok(Body::Length(length.unwrap_or(0))),
            (Some(_), Some(_)) => Err(Refusal::bad("Transfer-Encoding beside Content-Length")),
            (Some(_), None) if version == Version::Http10 => {
                Err(Refusal::bad("Transfer-Encoding in HTTP/1.0"))
            }
            (Some(Coding::Chunked), None) => Ok(Body::Chunked),
            (Some(Coding::Malformed), None) => Err(Refusal::bad("Transfer-Encoding is malformed")),
            (Some(Coding::Unknown), None) => Err(Refusal::CODING),
        }
    }
}

fn length(value: &[u8]) -> Option<u64> {
    let digits = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| digits)?.parse::<i64>().ok()?;
    u64::try_from(number).ok()
}

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

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| charset::TOKEN.contains(*byte))
}

#[cfg(test)]
mod tests;

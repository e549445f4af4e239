//! Who a request comes from: the socket's other end, or whom a trusted proxy names (RFC 7239, `X-Forwarded-*`).
//!
//! From anybody else these fields are taken away, so that an application which reads them itself is not fooled.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::answer::{Refusal, bad};
use super::check::is_host;
use crate::trust::Trusted;

/// Who a request comes from, as [`peer`](crate::peer) tells.
#[derive(Clone, Eq, PartialEq, Debug)]
#[non_exhaustive]
pub struct Peer {
    /// The client: the socket's other end, or whom a trusted proxy names. `None` on a unix socket without a proxy.
    pub client: Option<IpAddr>,
    /// The socket's other end, or the one in its PROXY header. `None` on a unix socket.
    pub socket: Option<SocketAddr>,
    /// What the client spoke: to this server, or to a trusted proxy.
    pub scheme: Scheme,
    /// The host that the client asked a trusted proxy for, if the proxy says so.
    pub host: Option<HeaderValue>,
}

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// No more of a field is read, from its end; what stands before was written by others.
const MOST_ENTRIES: usize = 32;
const MOST_BYTES: usize = 4096;

impl Peer {
    /// Whoever is at the other end of a socket, and nobody behind it.
    pub(crate) fn direct(socket: Option<SocketAddr>, scheme: Scheme) -> Self {
        let client = socket.map(|address| address.ip().to_canonical());
        Self { client, socket, scheme, host: None }
    }

    /// The client's port; 0 when only a proxy knows it.
    pub(crate) fn port(&self) -> u16 {
        let own = self.socket.filter(|socket| Some(socket.ip().to_canonical()) == self.client);
        own.map_or(0, |socket| socket.port())
    }
}

/// Completes `peer` with what trusted proxies say in the fields of a request; takes those of others away.
pub(crate) fn read(
    fields: &mut HeaderMap,
    mut peer: Peer,
    trusted: &Trusted,
) -> Result<Peer, &'static Refusal> {
    if !trusted.includes(peer.client) {
        let names: Vec<_> =
            fields.keys().filter(|name| is_forwarding(name.as_str())).cloned().collect();
        for name in names {
            fields.remove(name);
        }
        return Ok(peer);
    }
    // A quote that a client left open would swallow what its proxy wrote behind it.
    if !fields.get_all(FORWARDED).iter().all(closes_its_quotes) {
        return Err(bad!("Forwarded is malformed"));
    }
    let (standard, older) =
        (entries(fields, &FORWARDED, Entry::standard), entries(fields, &FOR, Entry::older));
    let (first, second) = (walk(&standard, trusted), walk(&older, trusted));
    if !standard.is_empty() && !older.is_empty() && first.client != second.client {
        return Err(bad!("Forwarded and X-Forwarded-For disagree"));
    }
    peer.client = first.client.or(second.client).or(peer.client);
    if let Some(scheme) = scheme(fields, first.proto)? {
        peer.scheme = scheme;
    }
    let host = first.host.or_else(|| last(fields, &HOST).map(Cow::Borrowed));
    let host = host.filter(|host| is_host(host.as_bytes()));
    peer.host = host.and_then(|host| HeaderValue::try_from(host.as_ref()).ok());
    Ok(peer)
}

/// Says whether proxies write a field of this name about whom they speak for.
pub(super) fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
}

/// One proxy's word about whom it speaks for.
#[derive(Debug, Default)]
struct Entry<'f> {
    /// `None` when it is hidden, unknown or malformed.
    address: Option<IpAddr>,
    proto: Option<Cow<'f, str>>,
    host: Option<Cow<'f, str>>,
}

impl<'f> Entry<'f> {
    fn older(text: &'f str) -> Self {
        Self { address: address(text), ..Self::default() }
    }

    /// `for=192.0.2.1;proto=https;host=example.org` (RFC 7239 section 4).
    fn standard(text: &'f str) -> Self {
        let mut entry = Self::default();
        for pair in split(text, ';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let value = unquoted(value.trim());
            match name.trim() {
                name if name.eq_ignore_ascii_case("for") => entry.address = address(&value),
                name if name.eq_ignore_ascii_case("proto") => entry.proto = Some(value),
                name if name.eq_ignore_ascii_case("host") => entry.host = Some(value),
                _ => {}
            }
        }
        entry
    }
}

/// The entries of a list field, the last written first.
fn entries<'f>(
    fields: &'f HeaderMap,
    name: &HeaderName,
    parse: fn(&'f str) -> Entry<'f>,
) -> Vec<Entry<'f>> {
    let (mut found, mut left) = (Vec::new(), MOST_BYTES);
    for value in fields.get_all(name).iter().rev() {
        let Some(rest) = left.checked_sub(value.len()) else { break };
        left = rest;
        let mut parts: Vec<_> = match value.to_str() {
            Ok(text) if *name == FORWARDED => split(text, ',').map(parse).collect(),
            Ok(text) => text.split(',').map(str::trim).map(parse).collect(),
            Err(_) => vec![Entry::default()],
        };
        parts.reverse();
        found.append(&mut parts);
    }
    found.truncate(MOST_ENTRIES);
    found
}

/// What the entries come to.
#[derive(Default)]
struct Word<'f> {
    client: Option<IpAddr>,
    proto: Option<Cow<'f, str>>,
    host: Option<Cow<'f, str>>,
}

/// From the nearest proxy outwards: the first address that is none of our own is the client. What is no address ends the
/// walk, and so does the end of the list; then it is the last one that was good.
fn walk<'f>(entries: &[Entry<'f>], trusted: &Trusted) -> Word<'f> {
    let mut word = Word::default();
    for entry in entries {
        if entry.address.is_some() || word.client.is_none() {
            word.proto.clone_from(&entry.proto);
            word.host.clone_from(&entry.host);
        }
        let Some(address) = entry.address else { break };
        word.client = Some(address);
        if !trusted.includes(word.client) {
            break;
        }
    }
    word
}

/// `http` or `https`, said once or several times alike. Anything else is not for us.
fn scheme(
    fields: &HeaderMap,
    standard: Option<Cow<'_, str>>,
) -> Result<Option<Scheme>, &'static Refusal> {
    let older = fields.get_all(PROTO).iter().filter_map(|value| value.to_str().ok());
    let older = older.flat_map(|text| text.split(',')).map(str::trim).map(Cow::Borrowed);
    let mut found = None;
    for text in standard.into_iter().chain(older) {
        let scheme = match text.to_ascii_lowercase().as_str() {
            "http" => Scheme::HTTP,
            "https" => Scheme::HTTPS,
            _ => continue,
        };
        if found.as_ref().is_some_and(|found| *found != scheme) {
            return Err(bad!("the forwarded schemes disagree"));
        }
        found = Some(scheme);
    }
    Ok(found)
}

fn last<'f>(fields: &'f HeaderMap, name: &HeaderName) -> Option<&'f str> {
    let value = fields.get_all(name).iter().next_back()?.to_str().ok()?;
    value.rsplit(',').next().map(str::trim)
}

/// An address as proxies write it: with a port, in brackets, or mapped into IPv6.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    bare.parse().or_else(|_| with_port()).ok().map(|address: IpAddr| address.to_canonical())
}

/// Where in a quoted string one is (RFC 9110 section 5.6.4).
#[derive(Default)]
struct Quotes {
    is_open: bool,
    is_escaped: bool,
}

impl Quotes {
    /// Takes the next byte; says whether a string is open behind it.
    fn take(&mut self, byte: u8) -> bool {
        let was_escaped = std::mem::take(&mut self.is_escaped);
        match byte {
            b'\\' if self.is_open && !was_escaped => self.is_escaped = true,
            b'"' if !was_escaped => self.is_open = !self.is_open,
            _ => {}
        }
        self.is_open
    }
}

fn closes_its_quotes(value: &HeaderValue) -> bool {
    let mut quotes = Quotes::default();
    !value.as_bytes().iter().fold(false, |_, byte| quotes.take(*byte))
}

/// Cuts at a separator that is not inside a quoted string.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quotes = Quotes::default();
    let is_cut = move |character: char| {
        // A character of several bytes is neither of those that matter.
        !quotes.take(u8::try_from(character).unwrap_or(b' ')) && character == separator
    };
    text.split(is_cut).map(str::trim)
}

fn unquoted(text: &str) -> Cow<'_, str> {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Cow::Borrowed(text);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut is_escaped = false;
    let kept = inner.chars().filter(|character| {
        is_escaped = *character == '\\' && !is_escaped;
        !is_escaped
    });
    Cow::Owned(kept.collect())
}

#[cfg(test)]
mod tests;

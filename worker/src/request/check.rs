//! Policy on a parsed request, HTTP/1 and HTTP/2 alike (RFC 9110 sections 4, 7 and 10): target, Host, method, Expect.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::answer::{Refusal, bad};
use crate::branch::{rare, unlikely};
use crate::charset;
use crate::config::HeaderMapping;

/// What has to be looked at more closely.
#[derive(Copy, Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is of another field")]
pub(crate) struct Marks {
    pub(crate) has_host: bool,
    pub(crate) has_many_hosts: bool,
    /// The first `Host` names none.
    pub(crate) has_bad_host: bool,
    /// `Expect` says something else than `100-continue`.
    pub(crate) expects_the_unknown: bool,
    /// There is one that a proxy may have written about its client.
    pub(crate) has_forwarding: bool,
    /// There is one with `_` in its name.
    pub(crate) has_underscore: bool,
}

/// Refuses what no service should see; brings an absolute target into origin form.
pub(crate) fn check<B>(
    request: &mut Request<B>,
    marks: Marks,
    mapping: HeaderMapping,
) -> Result<(), &'static Refusal> {
    if unlikely(marks.has_underscore) {
        underscores(request.headers_mut(), mapping)?;
    }
    if unlikely(matches!(*request.method(), Method::CONNECT | Method::TRACE)) {
        return Err(Refusal::METHOD);
    }
    target(request)?;
    if unlikely(marks.has_many_hosts) {
        return Err(bad!("Host more than once"));
    }
    authority(request, marks)?;
    if unlikely(marks.expects_the_unknown && request.version() != Version::HTTP_10) {
        return Err(Refusal::EXPECTATION);
    }
    Ok(())
}

/// `X_Forwarded_For` is `X-Forwarded-For` to every reader that makes variables of field names, as CGI does.
fn underscores(fields: &mut HeaderMap, mapping: HeaderMapping) -> Result<(), &'static Refusal> {
    match mapping {
        HeaderMapping::Pass => {}
        HeaderMapping::Refuse => return Err(bad!("a field name with an underscore")),
        HeaderMapping::Drop => {
            let has_one = |name: &&HeaderName| name.as_str().contains('_');
            let names: Vec<_> = fields.keys().filter(has_one).cloned().collect();
            for name in names {
                fields.remove(name);
            }
        }
    }
    Ok(())
}

fn target<B>(request: &Request<B>) -> Result<(), &'static Refusal> {
    let (method, uri) = (request.method(), request.uri());
    let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
    match uri.scheme_str() {
        None | Some("http" | "https") => {}
        Some(_) => return Err(bad!("the scheme of the target is not http")),
    }
    if unlikely(path == "*") {
        let allowed = *method == Method::OPTIONS && uri.scheme().is_none();
        return if allowed { Ok(()) } else { Err(bad!("the target * is for OPTIONS")) };
    }
    // RFC 3986 section 3: behind an authority the path may be empty, which means `/`. In HTTP/2 it may not.
    let may_be_empty = uri.scheme().is_some() && request.version() != Version::HTTP_2;
    let is_rooted = path.starts_with('/') || (may_be_empty && path.starts_with('?'));
    let bytes = path.as_bytes();
    let is_broken =
        bytes.iter().any(|byte| matches!(byte, b'#' | 0x80..=0xff)) || !is_escaped(bytes);
    if is_rooted && !is_broken { Ok(()) } else { rare(Err(bad!("the target is malformed"))) }
}

/// Says whether each `%` begins an escape (RFC 3986 section 2.1).
#[inline]
fn is_escaped(bytes: &[u8]) -> bool {
    // Most have none, and most are too short for a search that is fast in long ones.
    !bytes.contains(&b'%')
        || memchr::memchr_iter(b'%', bytes).all(|at| {
            let digits = bytes.get(at.saturating_add(1)..at.saturating_add(3));
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        })
}

/// Settles who is addressed: exactly one valid authority, which ends up in `Host`.
fn authority<B>(request: &mut Request<B>, marks: Marks) -> Result<(), &'static Refusal> {
    if unlikely(marks.has_bad_host) {
        return Err(bad!("Host is malformed"));
    }
    match request.uri().authority() {
        Some(_) => named(request),
        None if !marks.has_host && request.version() != Version::HTTP_10 => {
            rare(Err(bad!("Host is missing")))
        }
        None => Ok(()),
    }
}

/// The target names an authority: in HTTP/2 it always does.
#[inline(never)] // a frame of its own: an origin has none
fn named<B>(request: &mut Request<B>) -> Result<(), &'static Refusal> {
    let named = request.uri().authority().map_or("", Authority::as_str).to_owned();
    if !is_host(named.as_bytes()) {
        return Err(bad!("the authority is malformed"));
    }
    let host = request.headers().get(HOST);
    let differs = host.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(named.as_bytes()));
    if request.version() == Version::HTTP_2 && differs {
        return Err(bad!("Host and :authority differ"));
    }
    if host.is_none() || differs {
        // RFC 9112 section 3.2.2: the authority of an absolute target replaces Host.
        let value = HeaderValue::try_from(named).map_err(|_| bad!("the authority is malformed"))?;
        request.headers_mut().insert(HOST, value);
    }
    if request.version() != Version::HTTP_2
        && let Some(path) = request.uri().path_and_query().cloned()
    {
        *request.uri_mut() = Uri::from(rooted(path)?);
    }
    Ok(())
}

fn rooted(path: PathAndQuery) -> Result<PathAndQuery, &'static Refusal> {
    if path.as_str().starts_with('/') {
        return Ok(path);
    }
    let rooted = PathAndQuery::try_from(format!("/{}", path.as_str()));
    rooted.map_err(|_| bad!("the target is malformed"))
}

/// `reg-name`, IPv4 or `[IPv6]`, with an optional port (RFC 3986 section 3.2.2). User information is refused.
pub(crate) fn is_host(text: &[u8]) -> bool {
    let port = match text {
        [b'[', rest @ ..] => {
            let Some(close) = memchr::memchr(b']', rest) else { return false };
            let (address, port) = rest.split_at(close);
            let address = std::str::from_utf8(address).unwrap_or("");
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            port.get(1..).unwrap_or_default()
        }
        _ => match charset::NAME.split(text) {
            ([], _) => return false,
            (name, _) if !is_escaped(name) => return false,
            (_, port) => port,
        },
    };
    is_port(port)
}

fn is_port(text: &[u8]) -> bool {
    match text {
        [] | [b':'] => true,
        [b':', digits @ ..] if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {
            // Of as many digits the greater number is the later text.
            digits.len() < 5 || digits <= b"65535".as_slice()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::fields::Fields;

    fn read_and_check(
        request: &mut Request<()>,
        mapping: HeaderMapping,
    ) -> Result<(), &'static Refusal> {
        let marks = Fields::read(request.headers(), &mut None).marks;
        check(request, marks, mapping)
    }

    fn run(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> Result<Request<()>, u16> {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        read_and_check(&mut request, HeaderMapping::Drop)
            .map(|()| request)
            .map_err(|refusal| refusal.status.as_u16())
    }

    fn host(value: &str) -> u16 {
        run("GET", "/", &[("host", value)]).map_or_else(|status| status, |_| 200)
    }

    #[test]
    fn hosts() {
        for good in ["a", "a.b-c:80", "127.0.0.1:65535", "[::1]", "[::1]:8000", "a:", "%41"] {
            assert_eq!(host(good), 200, "{good}");
        }
        for bad in [
            "", "a@b", "a,b", "a/b", "a b", "a:65536", "a:x", "[::1", "[zz]", "[::1]x", ":80",
            "a%2",
        ] {
            assert_eq!(host(bad), 400, "{bad}");
        }
        assert_eq!(run("GET", "/", &[]).err(), Some(400));
    }

    #[test]
    fn targets() {
        let at = |method: &str, uri: &str| run(method, uri, &[("host", "a")]).err().unwrap_or(200);
        assert_eq!(at("GET", "/a%20b?c=%41"), 200);
        assert_eq!(at("OPTIONS", "*"), 200);
        assert_eq!(at("GET", "*"), 400);
        assert_eq!(at("GET", "/a%2"), 400);
        assert_eq!(at("GET", "/a%zz"), 400);
        assert_eq!(at("GET", "ftp://a/"), 400);
        assert_eq!(at("CONNECT", "a:80"), 501);
        assert_eq!(at("TRACE", "/"), 501);
        assert_eq!(at("PURGE", "/"), 200);
    }

    #[test]
    fn an_absolute_target_replaces_host() {
        let request = run("GET", "http://real:81/x?y", &[("host", "other")]).unwrap();
        assert_eq!(request.headers().get(HOST).unwrap(), "real:81");
        assert_eq!(request.uri(), "/x?y");
        let request = run("GET", "http://real?y", &[("host", "other")]).unwrap();
        assert_eq!(request.uri().path_and_query().unwrap().as_str(), "/?y");
    }

    #[test]
    fn underscores_in_names() {
        let mapped = |mapping| {
            let request = http::Request::get("/").header("host", "a").header("x-a", "1");
            let mut request = request.header("x_a", "2").header("x_a", "3").body(()).unwrap();
            read_and_check(&mut request, mapping)
                .map(|()| request.headers().len())
                .map_err(|refusal| refusal.status)
        };
        assert_eq!(mapped(HeaderMapping::Drop), Ok(2));
        assert_eq!(mapped(HeaderMapping::Pass), Ok(4));
        assert_eq!(mapped(HeaderMapping::Refuse), Err(http::StatusCode::BAD_REQUEST));
    }

    #[test]
    fn expectations() {
        let expect = |value: &str| {
            run("POST", "/", &[("host", "a"), ("expect", value)]).err().unwrap_or(200)
        };
        assert_eq!((expect("100-Continue"), expect("200-ok")), (200, 417));
    }
}

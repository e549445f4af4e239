//! Whom a request addresses: `Host`, or what stands in its place, as the record tells it.

use std::hint::cold_path;
use std::rc::Rc;

use super::check;

/// A host, looked at once: a connection keeps the last one, for its requests hardly ever address another.
#[derive(Debug)]
pub(crate) struct Host {
    /// As it was sent. A copy: a part of the request's head would keep all of that from being used again.
    text: Box<[u8]>,
    is_valid: bool,
    name_bytes: usize,
    port: Option<u16>,
}

impl Host {
    /// The host of this text: the one that is known already, or a new one that is known from now on.
    pub(crate) fn find(known: &mut Option<Rc<Self>>, text: &[u8]) -> Rc<Self> {
        match known {
            Some(host) if *host.text == *text => Rc::clone(host),
            _ => {
                cold_path();
                let host = Rc::new(Self::of(text));
                if text.len() <= LONGEST_KNOWN {
                    *known = Some(Rc::clone(&host));
                }
                host
            }
        }
    }

    fn of(text: &[u8]) -> Self {
        let (name, port) = server(text);
        let is_valid = check::is_host(text);
        Self { text: text.into(), is_valid, name_bytes: name.len(), port }
    }

    /// Whether it may be addressed at all.
    pub(crate) fn is_valid(&self) -> bool {
        self.is_valid
    }

    /// Its name, and its port if it is said.
    pub(crate) fn server(&self) -> (&[u8], Option<u16>) {
        (&self.text[..self.name_bytes], self.port)
    }
}

/// No name of the DNS is longer (RFC 1035 section 2.3.4), and idle connections keep what is known.
const LONGEST_KNOWN: usize = 255;

/// Who was addressed, and on which port if it is said (OpenTelemetry HTTP conventions, `server.address`).
pub(crate) fn server(host: &[u8]) -> (&[u8], Option<u16>) {
    // Digits behind the last colon: the colons of an IPv6 address stand in brackets.
    let digits = host.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    match host.split_at_checked(host.len() - digits) {
        Some(([name @ .., b':'], digits)) => {
            let port = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            (name, port)
        }
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_a_host_is_what_stands_behind_its_last_colon() {
        for (host, name, port) in [
            ("shop.test", "shop.test", None),
            ("shop.test:8000", "shop.test", Some(8000)),
            ("shop1:65535", "shop1", Some(65_535)),
            ("10.0.0.1", "10.0.0.1", None),
            ("[::1]", "[::1]", None),
            ("[::1]:80", "[::1]", Some(80)),
            ("shop.test:", "shop.test", None),
            ("shop.test:65536", "shop.test", None),
            (":1", "", Some(1)),
            ("7", "7", None),
            ("", "", None),
        ] {
            assert_eq!(server(host.as_bytes()), (name.as_bytes(), port), "{host}");
            let mut known = None;
            let found = Host::find(&mut known, host.as_bytes());
            assert_eq!(found.server(), (name.as_bytes(), port), "{host}");
        }
    }

    #[test]
    fn a_host_is_kept_until_another_is_addressed() {
        let mut known = None;
        let first = Host::find(&mut known, b"shop.test:80");
        assert!(Rc::ptr_eq(&first, &Host::find(&mut known, b"shop.test:80")));
        // Also one that is only longer.
        let other = Host::find(&mut known, b"shop.test:8000");
        assert_eq!(other.server(), (&b"shop.test"[..], Some(8000)));
        assert!(!Rc::ptr_eq(&first, &Host::find(&mut known, b"shop.test:80")));
        assert_eq!(
            first.server(),
            (&b"shop.test"[..], Some(80)),
            "a running request keeps its own"
        );
    }

    #[test]
    fn an_idle_connection_keeps_no_long_host() {
        let long = vec![b'a'; LONGEST_KNOWN + 1];
        let mut known = None;
        assert_eq!(Host::find(&mut known, &long).server(), (&*long, None));
        assert!(known.is_none());
        assert_eq!(Host::find(&mut known, &long[1..]).server(), (&long[1..], None));
        assert!(known.is_some());
    }

    #[test]
    fn a_bad_host_stays_bad() {
        let mut known = None;
        for _ in 0..2 {
            assert!(!Host::find(&mut known, b"a b").is_valid());
        }
        assert!(Host::find(&mut known, b"a").is_valid());
        assert!(!Host::find(&mut known, b"a b").is_valid());
    }
}

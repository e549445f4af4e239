//! The PROXY protocol, versions 1 and 2 (of the `HAProxy` project): a balancer's word about who is connected, once, before anything else.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::config::ProxyProtocol;

/// What a header says.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Header {
    Incomplete,
    Malformed,
    /// So many bytes; `None` keeps the socket's own address.
    Complete(usize, Option<SocketAddr>),
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// With its CR LF.
const LONGEST_V1: usize = 107;
const FIXED_V2: usize = 16;
const LONGEST_V2: usize = 4096;

/// Reads a header; gives its address, and what was read behind it.
///
/// # Errors
///
/// When the stream ends or fails first, or begins with anything else.
pub(super) async fn read(
    io: &mut (impl AsyncRead + Unpin),
    version: ProxyProtocol,
) -> io::Result<(Option<SocketAddr>, Bytes)> {
    let mut bytes = BytesMut::with_capacity(256);
    loop {
        match parse(&bytes, version) {
            Header::Complete(length, address) => {
                bytes.advance(length);
                return Ok((address, bytes.freeze()));
            }
            Header::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            Header::Incomplete => {}
        }
        if io.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn parse(bytes: &[u8], version: ProxyProtocol) -> Header {
    let agrees = |start: &[u8]| bytes.iter().zip(start).all(|(byte, expected)| byte == expected);
    match version {
        _ if bytes.is_empty() => Header::Incomplete,
        ProxyProtocol::V1 | ProxyProtocol::Auto if agrees(b"PROXY ") => first(bytes),
        ProxyProtocol::V2 | ProxyProtocol::Auto if agrees(SIGNATURE) => second(bytes),
        _ => Header::Malformed,
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`
fn first(bytes: &[u8]) -> Header {
    let bytes = bytes.get(..LONGEST_V1).unwrap_or(bytes);
    let Some(end) = memchr::memmem::find(bytes, b"\r\n") else {
        return if bytes.len() < LONGEST_V1 { Header::Incomplete } else { Header::Malformed };
    };
    let line = bytes.get(..end).and_then(|line| std::str::from_utf8(line).ok()).unwrap_or("");
    let words = line.strip_prefix("PROXY ").unwrap_or_default();
    let source = source(words);
    if source.is_none() && words.split(' ').next() != Some("UNKNOWN") {
        return Header::Malformed;
    }
    Header::Complete(end.saturating_add(2), source)
}

/// `TCP4 192.0.2.1 198.51.100.1 56324 443`, whole.
fn source(words: &str) -> Option<SocketAddr> {
    let mut words = words.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (from, _to) = (address()?, address()?);
    let (from_port, _to_port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then_some(SocketAddr::new(from, from_port))
}

/// Digits only, and no zero before others.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|_| is_plain && (word == "0" || !word.starts_with('0')))
}

/// Signature, version and command, family and transport, length of the rest.
fn second(bytes: &[u8]) -> Header {
    let Some((&[kind, family, high, low], rest)) =
        bytes.get(SIGNATURE.len()..).and_then(<[u8]>::split_first_chunk)
    else {
        return Header::Incomplete;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_V2 || !matches!(kind, 0x20 | 0x21) {
        return Header::Malformed;
    }
    // Behind the addresses may come fields of other kinds, which are skipped.
    let Some(rest) = rest.get(..length) else { return Header::Incomplete };
    let source = match (kind, family) {
        (0x21, 0x11) => match rest.split_first_chunk::<12>() {
            Some((&[a, b, c, d, _, _, _, _, high, low, _, _], _)) => {
                let port = u16::from_be_bytes([high, low]);
                Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port))
            }
            None => return Header::Malformed,
        },
        (0x21, 0x21) => match (rest.first_chunk::<16>(), rest.get(32..34), rest.get(35)) {
            (Some(address), Some(&[high, low]), Some(_)) => {
                let port = u16::from_be_bytes([high, low]);
                Some(SocketAddr::new(Ipv6Addr::from(*address).into(), port))
            }
            _ => return Header::Malformed,
        },
        // LOCAL: the balancer itself asks, as for a health check.
        // Unspecified, datagrams and unix sockets have no address that means anything here.
        (0x20, _) | (_, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => None,
        _ => return Header::Malformed,
    };
    Header::Complete(FIXED_V2.saturating_add(length), source)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v1(line: &str) -> Header {
        parse(format!("{line}\r\nGET /").as_bytes(), ProxyProtocol::V1)
    }

    fn v2(kind: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[kind, family], &length, rest].concat()
    }

    #[test]
    fn lines_of_version_1() {
        let from = |text: &str| Some(text.parse().unwrap());
        let line = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443";
        assert_eq!(v1(line), Header::Complete(line.len() + 2, from("192.0.2.1:56324")));
        let line = "PROXY TCP6 2001:db8::1 ::1 1 65535";
        assert_eq!(v1(line), Header::Complete(line.len() + 2, from("[2001:db8::1]:1")));
        assert_eq!(v1("PROXY UNKNOWN"), Header::Complete(15, None));
        assert_eq!(v1("PROXY UNKNOWN ffff:f...f:ffff 1 2"), Header::Complete(35, None));
        for bad in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1",
            "PROXY TCP4 192.0.2.1  198.51.100.1 56324 443",
            "PROXY TCP4 ::1 ::1 1 2",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 2",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 2",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2",
            "PROXY TCP4 192.0.2.1 198.51.100.1 01 2",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 2",
            "PROXY ",
            "GET / HTTP/1.1",
        ] {
            assert_eq!(v1(bad), Header::Malformed, "{bad}");
        }
        assert_eq!(v1(&format!("PROXY UNKNOWN {}", "x".repeat(91))), Header::Complete(107, None));
        assert_eq!(
            v1(&format!("PROXY UNKNOWN {}", "x".repeat(92))),
            Header::Malformed,
            "108 bytes"
        );
    }

    #[test]
    fn headers_of_version_2() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 1, 0xbb];
        let whole = |bytes: &[u8]| parse(bytes, ProxyProtocol::V2);
        let address = Some("192.0.2.1:56324".parse().unwrap());
        assert_eq!(whole(&v2(0x21, 0x11, &four)), Header::Complete(28, address));
        let with_more = [&four[..], &[4, 0, 1, 42]].concat();
        assert_eq!(whole(&v2(0x21, 0x11, &with_more)), Header::Complete(32, address));
        let mut six = [0; 36];
        six[15] = 1;
        six[33] = 80;
        assert_eq!(
            whole(&v2(0x21, 0x21, &six)),
            Header::Complete(52, Some("[::1]:80".parse().unwrap()))
        );
        assert_eq!(whole(&v2(0x20, 0x11, &four)), Header::Complete(28, None), "LOCAL");
        assert_eq!(whole(&v2(0x21, 0x00, &[])), Header::Complete(16, None));
        for bad in [
            v2(0x31, 0x11, &four),
            v2(0x22, 0x11, &four),
            v2(0x21, 0x11, &four[..11]),
            v2(0x21, 0x21, &six[..35]),
            v2(0x21, 0x13, &four),
            v2(0x21, 0x11, &[0; 4097]),
        ] {
            assert_eq!(whole(&bad), Header::Malformed, "{bad:?}");
        }
    }

    #[test]
    fn only_the_configured_version_is_read() {
        let both = [
            (ProxyProtocol::V1, &b"PROXY UNKNOWN\r\n"[..]),
            (ProxyProtocol::V2, &v2(0x20, 0, &[])),
        ];
        for (version, bytes) in both {
            for reader in [ProxyProtocol::V1, ProxyProtocol::V2, ProxyProtocol::Auto] {
                let is_read = matches!(parse(bytes, reader), Header::Complete(..));
                assert_eq!(is_read, reader == version || reader == ProxyProtocol::Auto);
            }
        }
    }

    proptest! {
        #[test]
        fn a_header_means_the_same_however_its_bytes_arrive(
            tail in proptest::collection::vec(any::<u8>(), 0..40),
            (is_second, kind, family) in (any::<bool>(), any::<u8>(), any::<u8>()),
        ) {
            let bytes = if is_second { v2(kind, family, &tail) } else { [b"PROXY TCP4 ", &tail[..], b"\r\n"].concat() };
            let whole = parse(&bytes, ProxyProtocol::Auto);
            for end in 0..bytes.len() {
                let part = parse(&bytes[..end], ProxyProtocol::Auto);
                prop_assert!(part == Header::Incomplete || part == whole, "{part:?} {whole:?}");
            }
        }
    }
}

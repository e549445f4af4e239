//! The table of section 6, rows W61 to W68, whole and split at every offset.

#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

fn whole(text: &str) -> Verdict {
    Scan::default().advance(text.as_bytes(), &Config::default())
}

fn byte_by_byte(text: &str) -> Verdict {
    let (config, mut scan) = (Config::default(), Scan::default());
    for end in 1..=text.len() {
        match scan.advance(&text.as_bytes()[..end], &config) {
            Verdict::Incomplete => {}
            verdict => return verdict,
        }
    }
    Verdict::Incomplete
}

fn status(text: &str) -> u16 {
    let verdict = whole(text);
    assert_eq!(byte_by_byte(text), verdict, "the verdict depends on the split: {text:?}");
    match verdict {
        Verdict::Incomplete => 0,
        Verdict::Complete { .. } => 200,
        Verdict::Refused(refusal) => refusal.status.as_u16(),
    }
}

fn with(fields: &str) -> u16 {
    status(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

proptest! {
    #[test]
    fn the_first_control_character_is_found_wherever_it_stands(
        bytes in proptest::collection::vec(prop_oneof![8 => 32_u8..=255, 1 => any::<u8>()], 0..40),
    ) {
        let first = bytes.iter().position(u8::is_ascii_control);
        prop_assert_eq!(uncontrolled(&bytes), first.unwrap_or(bytes.len()));
    }
}

#[test]
fn request_lines() {
    let line = |line: &str| status(&format!("{line}\r\nHost: a\r\n\r\n"));
    assert_eq!(line("GET / HTTP/1.1"), 200);
    assert_eq!(line("GET / HTTP/1.0"), 200);
    assert_eq!(line("GET / HTTP/2.0"), 505);
    assert_eq!(line("GET / HTTP/3.9"), 505);
    for bad in [
        "GET  / HTTP/1.1",
        "GET /",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "G@T / HTTP/1.1",
        "GET / http/1.1",
    ] {
        assert_eq!(line(bad), 400, "{bad}");
    }
    assert_eq!(line(&format!("{} / HTTP/1.1", "M".repeat(32))), 200);
    assert_eq!(line(&format!("{} / HTTP/1.1", "M".repeat(33))), 501);
}

#[test]
fn line_ends_and_fields() {
    assert_eq!(status("GET / HTTP/1.1\nHost: a\n\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\n\n"), 400);
    for bad in [
        "a\rb: c\r\n",
        "A: b\0c\r\n",
        "A: b\r\n folded\r\n",
        "A : b\r\n",
        ": b\r\n",
        "A b\r\n",
        "A(: b\r\n",
    ] {
        assert_eq!(with(bad), 400, "{bad:?}");
    }
    assert_eq!(with("A: tab\there\r\n"), 200);
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), 200);
    assert_eq!(with("Host: a\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\n"), 0);
}

#[test]
fn framing() {
    assert_eq!(
        whole("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n").body(),
        Some(Body::Length(7))
    );
    assert_eq!(
        whole("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n").body(),
        Some(Body::Chunked)
    );
    for bad in ["+3", "3, 3", "", "9223372036854775808", "-1", "0x3", "3 3", "12345678901234567890"]
    {
        assert_eq!(with(&format!("Content-Length: {bad}\r\n")), 400, "{bad:?}");
    }
    assert_eq!(with("Content-Length: 3\r\nContent-Length: 3\r\n"), 400);
    assert_eq!(with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), 400);
    for (value, answer) in [
        ("chunked, chunked", 400),
        ("chunked;a=b", 400),
        ("", 400),
        ("chunked,", 400),
        ("gzip, chunked", 501),
        ("chunked, gzip", 501),
        ("identity", 501),
        ("xchunked", 501),
    ] {
        assert_eq!(with(&format!("Transfer-Encoding: {value}\r\n")), answer, "{value:?}");
    }
    assert_eq!(with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400);
    assert_eq!(with("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"), 501);
    assert_eq!(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn limits_at_their_edges() {
    let line =
        |n: usize| status(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(n - 14)));
    assert_eq!((line(8191), line(8192), line(8193)), (200, 200, 414));
    let field = |n: usize| with(&format!("A: {}\r\n", "x".repeat(n - 3)));
    assert_eq!((field(8191), field(8192), field(8193)), (200, 200, 431));
    let fields = |n: usize| with(&"A: b\r\n".repeat(n - 1));
    assert_eq!((fields(99), fields(100), fields(101)), (200, 200, 431));
    let endless = "x".repeat(4 << 20);
    assert_eq!(whole(&endless), Verdict::Refused(Refusal::URI_TOO_LONG));
    let frame = "GET / HTTP/1.1\r\nHost: a\r\n".len() + 2;
    let head = |n: usize| {
        let many = format!("A: {}\r\n", "x".repeat(8000)).repeat(8);
        with(&format!("{many}B: {}\r\n", "x".repeat(n - 8 * 8005 - 5 - frame - 1)))
    };
    assert_eq!((head(65_535), head(65_536), head(65_537)), (200, 200, 431));
}

impl Verdict {
    fn body(self) -> Option<Body> {
        match self {
            Self::Complete { body, .. } => Some(body),
            _ => None,
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_change_its_mind(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let config = Config::default();
        let at_once = Scan::default().advance(&bytes, &config);
        let mut scan = Scan::default();
        let mut slow = Verdict::Incomplete;
        for end in 1..=bytes.len() {
            slow = scan.advance(&bytes[..end], &config);
            if slow != Verdict::Incomplete { break }
        }
        prop_assert_eq!(at_once, slow);
    }
}

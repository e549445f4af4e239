//! The encoder against an independent strict parser.

mod hostile;

use std::net::{IpAddr, Ipv4Addr};

use saola_observability::closed::{LostReason, Method, Protocol, Sampling};
use saola_observability::ids::{SpanId, TraceId};

use super::*;
pub(crate) use hostile::hostile;

const LIMITS: [(&str, usize); 3] = [("path", 1_024), ("user_agent", 256), ("msg", 1_024)];

pub(crate) fn request() -> RequestRecord<'static> {
    RequestRecord {
        start_wall_ns: 1_795_230_000_000_000_000,
        duration_ns: 3_210_000,
        trace: TraceId(*b"0123456789abcdef"),
        span: SpanId(*b"01234567"),
        parent: SpanId::NONE,
        remote_parent: false,
        is_https: false,
        route: "/items/{id}".into(),
        exception: None,
        request_bytes: 0,
        response_bytes: 42,
        status: Some(200),
        client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        client_port: 50_000,
        server_port: 8_000,
        cpu_samples: 0,
        method: Method::Get,
        protocol: Protocol::Http11,
        outcome: Outcome::Ok,
        sampling: Sampling::Ratio,
        path: "/items/7".into(),
        request_id: "r-1".into(),
        user_agent: "curl/8.5.0".into(),
        server_address: "localhost".into(),
        method_text: "".into(),
        tracestate: "".into(),
    }
}

fn origin() -> Origin {
    Origin { worker: Some(1), pid: Some(4_711) }
}

fn text(out: Vec<u8>) -> String {
    String::from_utf8(out).unwrap()
}

fn access(format: Format, request: &RequestRecord<'_>) -> String {
    let mut out = Vec::new();
    Encoder::new(format, "shop").request(&mut out, origin(), request);
    text(out)
}

#[test]
fn addresses_look_as_everywhere() {
    let all = (0..=255).flat_map(|octet: u8| {
        [[octet, 0, 10, 255], [9, octet, 99, 100], [1, 2, octet, 0], [255, 255, 255, octet]]
    });
    let longest: IpAddr = "fd00:1111:2222:3333:4444:5555:255.255.255.255".parse().unwrap();
    let v6 = [longest, "::1".parse().unwrap(), "::ffff:255.255.255.255".parse().unwrap()];
    for given in all.map(IpAddr::from).chain(v6) {
        let (shown, length) = address(given);
        assert_eq!(shown[..length], *given.to_string().as_bytes());
    }
}

#[test]
fn the_lines_of_many_processes_and_levels_are_those_that_each_would_have_alone() {
    let mut encoder = Encoder::new(Format::Logfmt, "shop");
    for round in 0..3_u16 {
        for pid in 0..70 {
            let origin = Origin { worker: Some(pid % 3), pid: Some(pid) };
            let request = RequestRecord { status: Some(200 + 300 * (round % 2)), ..request() };
            for format in [Format::Logfmt, Format::Json] {
                encoder.format = format;
                let (mut line, mut alone) = (Vec::new(), Vec::new());
                encoder.request(&mut line, origin, &request);
                Encoder::new(format, "shop").request(&mut alone, origin, &request);
                assert_eq!(text(line), text(alone));
            }
        }
    }
}

fn event_line(format: Format, event: &EventRecord) -> String {
    let mut out = Vec::new();
    Encoder::new(format, "shop").event_record(&mut out, origin(), event);
    text(out)
}

fn event(message: &str, fields: Vec<(String, OwnedValue)>) -> EventRecord {
    EventRecord {
        wall_ns: 1_795_230_000_000_000_000,
        level: Level::Warn,
        target: "shop::cart".into(),
        message: message.into(),
        trace: TraceId::NONE,
        span: SpanId::NONE,
        request_id: String::new(),
        fields,
    }
}

/// Reads one line as the format defines it and refuses everything else; written without a look at the encoder.
fn parse(line: &str) -> Vec<(String, String)> {
    let line = line.strip_suffix('\n').expect("a line ends in a newline");
    let mut pairs = Vec::new();
    let mut rest = line;
    loop {
        let (key, after) = rest.split_once('=').expect("a key has a value");
        let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        assert!(!key.is_empty() && key.chars().all(is_key), "bad key {key:?} in {line:?}");
        let end = if after.starts_with('"') {
            closing_quote(after)
        } else {
            after.find(' ').unwrap_or(after.len())
        };
        let (value, after) = after.split_at(end);
        let value: String = if value.starts_with('"') {
            serde_json::from_str(value).expect("a quoted value is a JSON string")
        } else {
            let is_bare = |c: char| c.is_ascii_alphanumeric() || "._:/+@%,~-".contains(c);
            assert!(!value.is_empty() && value.chars().all(is_bare), "bad value {value:?}");
            value.to_owned()
        };
        pairs.push((key.to_owned(), value));
        let Some(after) = after.strip_prefix(' ') else {
            assert!(after.is_empty(), "rubbish {after:?} in {line:?}");
            return pairs;
        };
        rest = after;
    }
}

fn closing_quote(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    panic!("no closing quote in {text:?}");
}

fn pairs_of_json(line: &str) -> Vec<(String, String)> {
    let object: serde_json::Value = serde_json::from_str(line.trim_end_matches('\n')).unwrap();
    let shown = |value: &serde_json::Value| value.as_str().map_or(value.to_string(), str::to_owned);
    object.as_object().unwrap().iter().map(|(key, value)| (key.clone(), shown(value))).collect()
}

fn value_of<'a>(pairs: &'a [(String, String)], key: &str) -> &'a str {
    let found: Vec<_> = pairs.iter().filter(|(name, _)| name == key).collect();
    assert_eq!(found.len(), 1, "{key} in {pairs:?}");
    &found[0].1
}

/// What may come of `given` in a place that takes `bytes`: itself, or a beginning of it with `…`.
fn is_cut_of(shown: &str, given: &str, bytes: usize) -> bool {
    if shown == given {
        return given.len() <= bytes;
    }
    let beginning = shown.strip_suffix('…');
    beginning.is_some_and(|kept| kept.len() <= bytes && given.starts_with(kept))
}

fn assert_harmless(line: &str) {
    assert!(line.len() <= LINE_BYTES, "{} bytes", line.len());
    assert_eq!(line.matches('\n').count(), 1);
    let hostile = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{ad}' | '\u{2028}'..='\u{202e}' | '\u{200b}'..='\u{200f}' | '\u{feff}')
    };
    assert!(!line.contains(hostile), "{line:?}");
}

#[test]
fn an_access_line_has_its_keys_in_order() {
    assert_eq!(
        access(Format::Logfmt, &request()),
        "time=2026-11-21T03:00:00.003210Z level=info msg=request target=saola::access service=shop \
         worker=1 pid=4711 request_id=r-1 trace_id=30313233343536373839616263646566 \
         span_id=3031323334353637 method=GET path=/items/7 route=\"/items/{id}\" status=200 \
         outcome=ok duration_ms=3.210 request_bytes=0 response_bytes=42 client=127.0.0.1 \
         user_agent=curl/8.5.0\n"
    );
}

#[test]
fn json_has_the_same_keys_and_values() {
    let line = access(Format::Json, &request());
    assert!(line.starts_with("{\"time\":\"2026-11-21T03:00:00.003210Z\",\"level\":\"info\""));
    assert!(line.contains("\"status\":200") && line.contains("\"duration_ms\":3.210"));
    let mut plain = parse(&access(Format::Logfmt, &request()));
    let mut json = pairs_of_json(&line);
    plain.sort();
    json.sort();
    assert_eq!(plain.len(), json.len());
    assert!(plain.iter().zip(&json).all(|(a, b)| a == b || a.0 == "duration_ms"));
}

#[test]
fn people_get_a_short_line() {
    assert_eq!(
        access(Format::Pretty, &request()),
        "03:00:00.003 INFO  w1 GET /items/{id} 200 3.2 ms  /items/7  30313233\n"
    );
    let fields = vec![("item".to_owned(), OwnedValue::Str("a b".into()))];
    assert_eq!(
        event_line(Format::Pretty, &event("sold out", fields)),
        "03:00:00.000 WARN  w1 sold out  item=\"a b\"\n"
    );
    assert_eq!(event_line(Format::Pretty, &event("bye", vec![])), "03:00:00.000 WARN  w1 bye\n");
}

#[test]
fn colours_follow_the_conventions() {
    let terminal = ColourFacts { is_terminal: true, ..ColourFacts::default() };
    assert!(terminal.wants_colour());
    assert!(!ColourFacts::default().wants_colour());
    assert!(!ColourFacts { no_color: Some("1"), ..terminal }.wants_colour());
    assert!(ColourFacts { no_color: Some(""), ..terminal }.wants_colour());
    assert!(!ColourFacts { term: Some("dumb"), ..terminal }.wants_colour());
    assert!(ColourFacts { clicolor_force: Some("1"), ..ColourFacts::default() }.wants_colour());
    assert!(!ColourFacts { clicolor_force: Some("0"), ..ColourFacts::default() }.wants_colour());
    let mut out = Vec::new();
    let mut encoder = Encoder::new(Format::Pretty, "shop");
    encoder.has_colour = true;
    encoder.request(&mut out, origin(), &request());
    assert!(text(out).contains("\x1b[32m200\x1b[0m"));
}

#[test]
fn levels_follow_status_outcome_and_time() {
    let encoder = Encoder::new(Format::Logfmt, "shop");
    let level = |status, outcome, duration_ns| {
        encoder.level(&RequestRecord { status, outcome, duration_ns, ..request() })
    };
    assert_eq!(level(Some(200), Outcome::Ok, 1), Level::Info);
    assert_eq!(level(Some(404), Outcome::Ok, 1), Level::Info);
    assert_eq!(level(Some(200), Outcome::Ok, 1_000_000_000), Level::Warn);
    assert_eq!(level(Some(500), Outcome::Ok, 1), Level::Error);
    assert_eq!(level(None, Outcome::Aborted, 1), Level::Info);
    for outcome in [Outcome::Panic, Outcome::Timeout, Outcome::Lost] {
        assert_eq!(level(None, outcome, 1), Level::Error);
    }
}

#[test]
fn a_lost_request_says_why_and_has_no_status() {
    let request = RequestRecord { outcome: Outcome::Lost, status: None, ..request() };
    let lost = LostRecord {
        request,
        slot: 3,
        pid: 99,
        signal: Some(11),
        exit_code: None,
        reason: LostReason::Crash,
        count: 1,
    };
    let mut out = Vec::new();
    Encoder::new(Format::Logfmt, "shop").lost(&mut out, &lost);
    let pairs = parse(&text(out));
    assert_eq!(value_of(&pairs, "outcome"), "lost");
    assert_eq!(value_of(&pairs, "worker"), "3");
    assert_eq!(value_of(&pairs, "pid"), "99");
    assert_eq!(value_of(&pairs, "reason"), "crash");
    assert_eq!(value_of(&pairs, "signal"), "SIGSEGV");
    assert!(!pairs.iter().any(|(key, _)| key == "status" || key == "response_bytes"));
}

#[test]
fn a_panic_names_message_place_and_frames() {
    let panic = PanicRecord {
        wall_ns: 1,
        trace: TraceId([1; 16]),
        span: SpanId([2; 8]),
        route: "/".into(),
        message: "index out of bounds\nlevel=info msg=forged".into(),
        location: "src/app.rs:10:5".into(),
        backtrace: "0: a\n1: b".into(),
    };
    let mut out = Vec::new();
    Encoder::new(Format::Logfmt, "shop").panic(&mut out, origin(), &panic);
    let line = text(out);
    assert_harmless(&line);
    let pairs = parse(&line);
    assert_eq!(value_of(&pairs, "msg"), "handler panicked");
    assert_eq!(value_of(&pairs, "level"), "error");
    assert_eq!(value_of(&pairs, "exception_message"), panic.message);
    assert_eq!(value_of(&pairs, "backtrace"), panic.backtrace);
}

#[test]
fn fields_can_not_forge_repeat_or_reveal() {
    let field = |key: &str| (key.to_owned(), OwnedValue::Str("x y".into()));
    let fields = ["level", "trace id", "item", "item", "item", "item_2", "db_password", "a=b c"];
    let pairs = parse(&event_line(Format::Logfmt, &event("m", fields.map(field).to_vec())));
    let keys: Vec<_> = pairs[7..].iter().map(|(key, _)| key.as_str()).collect();
    let made = [
        "field_level",
        "field_trace_id",
        "item",
        "item_2",
        "item_3",
        "item_2_2",
        "db_password",
        "a_b_c",
    ];
    assert_eq!(keys, made);
    assert_eq!(value_of(&pairs, "db_password"), "***");
}

#[test]
fn fields_that_do_not_fit_are_left_out_from_the_end() {
    let fields = (0..20).map(|n| (format!("k{n}"), OwnedValue::Str("v".repeat(500)))).collect();
    for format in [Format::Logfmt, Format::Json] {
        let line = event_line(format, &event("m", Vec::clone(&fields)));
        assert!(line.len() <= LINE_BYTES);
        let pairs = if format == Format::Json { pairs_of_json(&line) } else { parse(&line) };
        let kept = pairs.iter().filter(|(key, _)| key.starts_with('k')).count();
        let left_out: usize = value_of(&pairs, "truncated").parse().unwrap();
        assert_eq!(kept + left_out, 20);
        assert!(kept >= 7, "{kept}");
    }
}

#[test]
fn numbers_read_back() {
    let fields = vec![
        ("a".to_owned(), OwnedValue::F64(0.1)),
        ("b".to_owned(), OwnedValue::F64(f64::NAN)),
        ("c".to_owned(), OwnedValue::F64(f64::NEG_INFINITY)),
        ("d".to_owned(), OwnedValue::F64(1e300)),
        ("e".to_owned(), OwnedValue::I64(i64::MIN)),
        ("f".to_owned(), OwnedValue::Bool(true)),
    ];
    let line = event_line(Format::Logfmt, &event("m", fields.clone()));
    assert!(
        line.ends_with(" a=0.1 b=NaN c=-Inf d=1e300 e=-9223372036854775808 f=true\n"),
        "{line}"
    );
    let line = event_line(Format::Json, &event("m", fields));
    assert!(line.ends_with(
        "\"a\":0.1,\"b\":\"NaN\",\"c\":\"-Inf\",\"d\":1e300,\"e\":-9223372036854775808,\"f\":true}\n"
    ));
}

//! Bytes of a ring as a record. Total: any bytes give a record or `None`, never a panic.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
#![expect(
    clippy::inline_always,
    reason = "a request is made where it is read: each call would move its 300 bytes"
)]

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::closed::{Level, LostReason, Method, Outcome, Protocol, Sampling, SpanKind, SpanStatus};
use crate::ids::{SpanId, TraceId};
use crate::record::encode::{EVENT, LOST, MOST_FIELDS, PANIC, REQUEST, SPAN};
use crate::record::ended::{
    LONGEST_REQUEST_ID, LONGEST_SERVER_ADDRESS, LONGEST_USER_AGENT, REQUEST_FIXED,
};
use crate::record::{
    EventRecord, Kind, LostRecord, OwnedValue, PanicRecord, Record, RequestRecord, SpanRecord,
};

/// The first 8 bytes of a record.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Header {
    pub(crate) length: u32,
    pub(crate) kind: u8,
}

impl Header {
    pub(crate) fn read(word: u64) -> Self {
        let [a, b, c, d, kind, ..] = word.to_ne_bytes();
        Self { length: u32::from_ne_bytes([a, b, c, d]), kind }
    }

    /// How a record of this kind is counted when it is not read; events stand for what is unknown.
    pub(crate) fn counted_as(self) -> Kind {
        match self.kind {
            REQUEST | LOST => Kind::Request,
            SPAN => Kind::Span,
            _ => Kind::Event,
        }
    }
}

/// Decodes a payload. A longer payload of a known kind is taken and its tail ignored; an unknown kind is `None`.
#[inline(always)]
pub(crate) fn decode(kind: u8, payload: &[u8]) -> Option<Record<'_>> {
    let mut input = Input::new(payload);
    match kind {
        REQUEST => input.request().map(Record::Request),
        SPAN => input.span().map(Record::Span),
        EVENT => input.event().map(Record::Event),
        PANIC => input.panic().map(Record::Panic),
        LOST => input.lost().map(Record::Lost),
        _ => None,
    }
}

/// The server span of a request whose trace is not kept; `None` for all other records, and for what is no record.
pub(crate) fn unkept(kind: u8, payload: &[u8]) -> Option<SpanId> {
    if kind != REQUEST {
        return None;
    }
    let mut input = Input::new(payload);
    input.take::<{ 8 + 8 + 16 }>()?;
    let span = input.span_id()?;
    input.take::<{ 8 + 8 + 8 + 16 + 4 + 3 * 2 + 3 }>()?;
    (Sampling::from_number(input.u8()?)? == Sampling::Dropped).then_some(span)
}

/// [`Record::wall_ns`] of a payload, without decoding all of it.
pub(crate) fn wall_ns(kind: u8, payload: &[u8]) -> Option<u64> {
    let mut input = Input::new(payload);
    match kind {
        REQUEST | SPAN => input.end_ns(),
        EVENT | PANIC => input.u64(),
        LOST => {
            input.take::<LOST_FIXED>()?;
            input.end_ns()
        }
        _ => None,
    }
}

/// Bytes in front of the request of a lost one.
const LOST_FIXED: usize = 8 + 4 * 4 + 1;

/// Says whether this version knows records of a kind; others are skipped by their length, without complaint.
pub(crate) fn is_known(kind: u8) -> bool {
    matches!(kind, REQUEST | SPAN | EVENT | PANIC | LOST)
}

/// The address that [`ended::address`](super::ended::address) has written.
#[inline]
pub(crate) fn address(bytes: [u8; 16]) -> Option<IpAddr> {
    let address = u128::from_be_bytes(bytes);
    match u32::try_from(address ^ MAPPED) {
        Ok(v4) => Some(IpAddr::V4(Ipv4Addr::from_bits(v4))),
        Err(_) if address == 0 => None,
        Err(_) => Some(IpAddr::V6(Ipv6Addr::from_bits(address))),
    }
}

/// `::ffff:0:0`: what stands before an IPv4 address there.
const MAPPED: u128 = 0xffff << 32;

/// A fact that may be absent in a record that is whole; the outer option says whether the record is.
type Maybe<T> = Option<T>;

struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    #[inline(always)]
    fn request(&mut self) -> Option<RequestRecord<'a>> {
        // Of a length that the compiler knows: one check of the payload instead of one a field.
        let fixed = self.take::<REQUEST_FIXED>()?;
        let [.., flags] = *fixed;
        let (mut fixed, mut texts) = (Self::new(fixed), Texts::of(self.bytes));
        // In the order of the payload.
        Some(RequestRecord {
            remote_parent: flags & 1 != 0,
            is_https: flags & 2 != 0,
            start_wall_ns: fixed.u64()?,
            duration_ns: fixed.u64()?,
            trace: fixed.trace()?,
            span: fixed.span_id()?,
            parent: fixed.span_id()?,
            request_bytes: fixed.u64()?,
            response_bytes: fixed.u64()?,
            client: fixed.address()?,
            cpu_samples: fixed.u32()?,
            status: Some(fixed.u16()?).filter(|status| *status != 0),
            client_port: fixed.u16()?,
            server_port: fixed.u16()?,
            method: Method::from_number(fixed.u8()?)?,
            protocol: Protocol::from_number(fixed.u8()?)?,
            outcome: Outcome::from_number(fixed.u8()?)?,
            sampling: Sampling::from_number(fixed.u8()?)?,
            route: texts.next()?,
            exception: Some(texts.next()?).filter(|text| !text.is_empty()),
            path: texts.next()?,
            request_id: texts.sent(LONGEST_REQUEST_ID)?,
            user_agent: texts.sent(LONGEST_USER_AGENT)?,
            server_address: texts.sent(LONGEST_SERVER_ADDRESS)?,
            method_text: texts.next()?,
            tracestate: texts.next()?,
        })
    }

    fn lost(&mut self) -> Option<LostRecord<'a>> {
        let count = self.u64()?;
        let (slot, pid) = (self.u32()?, self.u32()?);
        let (signal, exit_code) = (self.optional_i32()?, self.optional_i32()?);
        let reason = LostReason::from_number(self.u8()?)?;
        let request = self.request()?;
        Some(LostRecord { request, slot, pid, signal, exit_code, reason, count })
    }

    fn span(&mut self) -> Option<SpanRecord> {
        Some(SpanRecord {
            start_ns: self.u64()?,
            duration_ns: self.u64()?,
            trace: self.trace()?,
            span: self.span_id()?,
            parent: self.span_id()?,
            request: self.span_id()?,
            kind: SpanKind::from_number(self.u8()?)?,
            status: SpanStatus::from_number(self.u8()?)?,
            status_text: self.owned()?,
            name: self.owned()?,
            attributes: self.fields()?,
        })
    }

    fn event(&mut self) -> Option<EventRecord> {
        let wall_ns = self.u64()?;
        let (trace, span) = (self.trace()?, self.span_id()?);
        let level = Level::from_number(self.u8()?)?;
        let (target, message, request_id) = (self.owned()?, self.owned()?, self.owned()?);
        let fields = self.fields()?;
        Some(EventRecord { wall_ns, level, target, message, trace, span, request_id, fields })
    }

    fn panic(&mut self) -> Option<PanicRecord> {
        Some(PanicRecord {
            wall_ns: self.u64()?,
            trace: self.trace()?,
            span: self.span_id()?,
            route: self.owned()?,
            message: self.owned()?,
            location: self.owned()?,
            backtrace: self.owned()?,
        })
    }

    fn fields(&mut self) -> Option<Vec<(String, OwnedValue)>> {
        let count = usize::from(self.u8()?);
        if count > MOST_FIELDS {
            return None;
        }
        let mut fields = Vec::with_capacity(count);
        for _ in 0..count {
            let key = self.owned()?;
            let value = match self.u8()? {
                0 => OwnedValue::Str(self.owned()?),
                1 => OwnedValue::U64(self.u64()?),
                2 => OwnedValue::I64(self.u64()?.cast_signed()),
                3 => OwnedValue::F64(f64::from_bits(self.u64()?)),
                4 => OwnedValue::Bool(self.u64()? != 0),
                _ => return None,
            };
            fields.push((key, value));
        }
        Some(fields)
    }

    /// Of a beginning and a duration.
    fn end_ns(&mut self) -> Option<u64> {
        Some(self.u64()?.saturating_add(self.u64()?))
    }

    fn address(&mut self) -> Option<Maybe<IpAddr>> {
        self.take().map(|bytes| address(*bytes))
    }

    fn optional_i32(&mut self) -> Option<Maybe<i32>> {
        let bits = self.u32()?;
        Some(Some(bits).filter(|bits| *bits != u32::MAX).map(u32::cast_signed))
    }

    fn trace(&mut self) -> Option<TraceId> {
        self.take().map(|bytes| TraceId(*bytes))
    }

    fn span_id(&mut self) -> Option<SpanId> {
        self.take().map(|bytes| SpanId(*bytes))
    }

    fn owned(&mut self) -> Option<String> {
        self.text().map(str::to_owned)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.counted()?).ok()
    }

    /// Bytes behind their length.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        let (bytes, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| *byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(|bytes| u16::from_ne_bytes(*bytes))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(|bytes| u64::from_ne_bytes(*bytes))
    }

    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(head)
    }
}

/// The texts of a request, one behind the other.
struct Texts<'a> {
    bytes: Input<'a>,
    /// The same, if all of it is UTF-8: then each text is, and they are looked at together.
    text: Option<&'a str>,
}

impl<'a> Texts<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes: Input::new(bytes), text: std::str::from_utf8(bytes).ok() }
    }

    /// A text of ours: UTF-8, or the record is damaged.
    #[inline(always)]
    fn next(&mut self) -> Option<Cow<'a, str>> {
        match self.quick() {
            Some(text) => Some(Cow::Borrowed(text)),
            None => self.strictly(),
        }
    }

    /// A text as it was sent: what is no UTF-8 in it is replaced, and then it is cut to at most `longest` bytes.
    #[inline(always)]
    fn sent(&mut self, longest: usize) -> Option<Cow<'a, str>> {
        match self.quick() {
            Some(text) => Some(Cow::Borrowed(text)),
            None => self.leniently(longest),
        }
    }

    #[inline(always)]
    fn quick(&mut self) -> Option<&'a str> {
        let (length, rest) = self.text?.split_at_checked(2)?;
        let length = u16::from_ne_bytes(*length.as_bytes().first_chunk()?);
        // What does not begin and end between characters is not UTF-8 by itself, whatever stands beside it.
        let (text, rest) = rest.split_at_checked(usize::from(length))?;
        self.text = Some(rest);
        Some(text)
    }

    #[cold]
    fn strictly(&mut self) -> Option<Cow<'a, str>> {
        std::str::from_utf8(self.by_itself()?).ok().map(Cow::Borrowed)
    }

    #[cold]
    fn leniently(&mut self, longest: usize) -> Option<Cow<'a, str>> {
        let mut text = String::from_utf8_lossy(self.by_itself()?);
        if let Cow::Owned(text) = &mut text {
            text.truncate(text.floor_char_boundary(longest)); // a character may have taken the place of a byte
        }
        Some(text)
    }

    /// The bytes of the next text; from here on each is looked at alone.
    fn by_itself(&mut self) -> Option<&'a [u8]> {
        if let Some(rest) = self.text.take() {
            self.bytes = Input::new(rest.as_bytes());
        }
        self.bytes.counted()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    use proptest::prelude::*;

    use super::*;
    use crate::record::Value;
    use crate::record::encode::{Encoder, Event, HEADER, Lost, PAD, Panic, Span};
    use crate::record::ended::Ended;
    use crate::record::words;

    fn request<'a>(path: &'a str, agent: &'a [u8]) -> Ended<'a> {
        Ended {
            start_wall_ns: 7,
            duration_ns: 8,
            trace: TraceId([1; 16]),
            span: SpanId([2; 8]),
            parent: SpanId::NONE,
            remote_parent: true,
            is_https: true,
            route: "/items/{id}",
            exception: "",
            request_bytes: 9,
            response_bytes: 10,
            status: 200,
            client: Some("127.0.0.1".parse().unwrap()),
            client_port: 11,
            server_port: 12,
            cpu_samples: 13,
            method: Method::Get,
            protocol: Protocol::Http11,
            outcome: Outcome::Ok,
            sampling: Sampling::Ratio,
            path,
            request_id: b"r",
            user_agent: agent,
            server_address: b"h",
            method_text: "",
            tracestate: "",
        }
    }

    /// The record of a request, as the ring gets it.
    fn record_of(request: &Ended<'_>) -> Vec<u8> {
        let texts = request.texts();
        let length = words::length(&texts);
        let places: Vec<AtomicU64> = (0..length / 8).map(|_| AtomicU64::new(u64::MAX)).collect();
        words::store(request, &texts, 0, &places);
        places.iter().flat_map(|place| place.load(Relaxed).to_ne_bytes()).collect()
    }

    #[test]
    fn a_request_reads_back() {
        let bytes = record_of(&request("/items/7", b"curl"));
        assert_eq!(bytes.len() % 8, 0);
        let Some(Record::Request(read)) = decode(REQUEST, &bytes[HEADER..]) else { panic!() };
        assert_eq!(
            (&*read.path, &*read.route, read.status),
            ("/items/7", "/items/{id}", Some(200))
        );
        assert_eq!(read.client, Some("127.0.0.1".parse().unwrap()));
        assert_eq!((&*read.user_agent, &read.exception), ("curl", &None));
        assert_eq!(read.end_wall_ns(), 15);
    }

    #[test]
    fn a_text_that_ends_inside_a_character_is_damaged_whatever_follows() {
        let id = "r".repeat(128);
        let id_bytes = id.as_bytes();
        let mut bytes = record_of(&Ended { request_id: id_bytes, ..request("/some/path", b"") });
        let Some(Record::Request(read)) = decode(REQUEST, &bytes[HEADER..]) else { panic!() };
        assert_eq!(read.request_id, id, "the byte of its length is no UTF-8");
        // The last byte of the path and the first of the length behind it are a character.
        let end = bytes.windows(10).position(|bytes| bytes == b"/some/path").unwrap() + 10;
        bytes[end - 1] = 0xc3;
        assert_eq!(&bytes[end..end + 2], [0x80, 0]);
        assert_eq!(decode(REQUEST, &bytes[HEADER..]), None);
    }

    #[test]
    fn what_was_sent_is_read_whatever_it_is_and_whatever_follows() {
        // The last byte of the one and the length of the other are a character.
        let address = [b'h'; 128];
        let bytes = record_of(&Ended { server_address: &address, ..request("/", b"curl\xc3") });
        let Some(Record::Request(read)) = decode(REQUEST, &bytes[HEADER..]) else { panic!() };
        assert_eq!((&*read.user_agent, read.server_address.len()), ("curl\u{fffd}", 128));
        assert_eq!((&*read.path, &*read.route), ("/", "/items/{id}"));
        let agent = "é".repeat(200);
        let bytes = record_of(&request("/", &agent.as_bytes()[1..]));
        let Some(Record::Request(read)) = decode(REQUEST, &bytes[HEADER..]) else { panic!() };
        let expected = format!("\u{fffd}{}", "é".repeat(126));
        assert_eq!(read.user_agent, expected, "the first byte became three, so less is kept");
    }

    #[test]
    fn who_reads_for_spans_is_told_which_requests_are_not_kept() {
        for sampling in Sampling::ALL.iter().copied() {
            let bytes = record_of(&Ended { sampling, ..request("/", b"") });
            let told = unkept(REQUEST, &bytes[HEADER..]);
            assert_eq!(told, (sampling == Sampling::Dropped).then_some(SpanId([2; 8])));
            assert_eq!(unkept(EVENT, &bytes[HEADER..]), None);
            assert_eq!(unkept(REQUEST, &bytes[HEADER..HEADER + 90]), None, "cut short");
        }
    }

    #[test]
    fn a_lost_request_reads_back() {
        let mut bytes = Vec::new();
        let lost = Lost {
            request: request("/", b""),
            slot: 3,
            pid: 4,
            signal: Some(9),
            exit_code: None,
            reason: LostReason::Crash,
            count: 1,
        };
        Encoder::lost(&mut bytes, &lost);
        let Some(Record::Lost(read)) = decode(LOST, &bytes[HEADER..]) else { panic!() };
        assert_eq!((read.slot, read.pid, read.signal, read.exit_code), (3, 4, Some(9), None));
    }

    #[test]
    fn the_beginning_of_a_record_tells_its_time() {
        let (trace, span) = (TraceId([1; 16]), SpanId([2; 8]));
        let mut records = [const { Vec::new() }; 5];
        let [ended, lost, child, event, panic] = &mut records;
        *ended = record_of(&request("/", b""));
        let (signal, exit_code, reason) = (None, None, LostReason::Crash);
        let request = request("/", b"");
        Encoder::lost(
            lost,
            &Lost { request, slot: 3, pid: 4, signal, exit_code, reason, count: 1 },
        );
        Encoder::span(
            child,
            &Span {
                start_ns: 20,
                duration_ns: 3,
                trace,
                span,
                parent: span,
                request: span,
                kind: SpanKind::Client,
                status: SpanStatus::Unset,
                status_text: "",
                name: "n",
                attributes: &[],
            },
        );
        let (level, fields) = (Level::Info, &[]);
        let (target, message, request_id) = ("t", "m", "");
        Encoder::event(
            event,
            &Event { wall_ns: 31, level, target, message, trace, span, request_id, fields },
        );
        let (route, location, backtrace) = ("r", "l", "b");
        Encoder::panic(
            panic,
            &Panic { wall_ns: 47, trace, span, route, message, location, backtrace },
        );
        let kinds = [REQUEST, LOST, SPAN, EVENT, PANIC];
        for ((kind, bytes), time) in kinds.into_iter().zip(&records).zip([15, 15, 23, 31, 47]) {
            let record = decode(kind, &bytes[HEADER..]).unwrap();
            assert_eq!(record.wall_ns(), time, "{record:?}");
            assert_eq!(wall_ns(kind, &bytes[HEADER..]), Some(time), "{record:?}");
            assert_eq!(wall_ns(kind, &bytes[HEADER..HEADER + 7]), None, "{record:?}");
        }
        assert_eq!(wall_ns(PAD, &[0; 64]), None);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let path = "é".repeat(600);
        let bytes = record_of(&request(&path, &[0xff; 400]));
        let Some(Record::Request(read)) = decode(REQUEST, &bytes[HEADER..]) else { panic!() };
        assert_eq!(read.path.len(), 1_024);
        assert!(read.user_agent.len() <= 256 && read.user_agent.starts_with('\u{fffd}'));
    }

    #[test]
    fn every_kind_of_value_reads_back() {
        let mut bytes = Vec::new();
        let attributes = [
            ("text", Value::Str("x")),
            ("u", Value::U64(u64::MAX)),
            ("i", Value::I64(-1)),
            ("f", Value::F64(0.5)),
            ("b", Value::Bool(true)),
        ];
        let span = Span {
            start_ns: 1,
            duration_ns: 2,
            trace: TraceId([1; 16]),
            span: SpanId([2; 8]),
            parent: SpanId([3; 8]),
            request: SpanId([4; 8]),
            kind: SpanKind::Client,
            status: SpanStatus::Error,
            status_text: "no",
            name: "SELECT",
            attributes: &attributes,
        };
        Encoder::span(&mut bytes, &span);
        let Some(Record::Span(read)) = decode(SPAN, &bytes[HEADER..]) else { panic!() };
        let values: Vec<_> = read.attributes.into_iter().map(|(_, value)| value).collect();
        assert_eq!(
            values,
            [
                OwnedValue::Str("x".into()),
                OwnedValue::U64(u64::MAX),
                OwnedValue::I64(-1),
                OwnedValue::F64(0.5),
                OwnedValue::Bool(true)
            ]
        );
    }

    proptest! {
        #[test]
        fn a_request_put_together_in_words_is_that_of_bytes(
            texts in prop::collection::vec(".{0,40}", 5),
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 3),
            longer in prop::collection::vec(0_usize..60, 8),
            numbers in any::<(u64, u64, u16, u16, u32)>(),
        ) {
            // A few longer ones, some beyond their bounds.
            let texts = texts.iter().zip(&longer).map(|(text, times)| text.repeat((*times).max(40) - 39));
            let texts: Vec<String> = texts.collect();
            let sent = sent.iter().zip(&longer[5..]).map(|(sent, times)| sent.repeat((*times).max(40) - 39));
            let sent: Vec<Vec<u8>> = sent.collect();
            let ended = Ended {
                duration_ns: numbers.0,
                response_bytes: numbers.1,
                client_port: numbers.2,
                server_port: numbers.3,
                cpu_samples: numbers.4,
                route: &texts[0],
                exception: &texts[1],
                request_id: &sent[0],
                server_address: &sent[1],
                method_text: &texts[2],
                tracestate: &texts[3],
                ..request(&texts[4], &sent[2])
            };
            let words = record_of(&ended);
            let mut bytes = Vec::new();
            let reason = LostReason::Crash;
            let lost = Lost { request: ended, slot: 0, pid: 0, signal: None, exit_code: None, reason, count: 1 };
            Encoder::lost(&mut bytes, &lost);
            let payload = &bytes[HEADER + LOST_FIXED..];
            let (of_words, rest) = words[HEADER..].split_at(payload.len().min(words.len() - HEADER));
            prop_assert_eq!(of_words, &payload[..of_words.len()]);
            prop_assert!(rest.iter().chain(&payload[of_words.len()..]).all(|byte| *byte == 0));
            prop_assert_eq!(words[6..8].to_vec(), bytes[6..8].to_vec(), "the flags");
            let Some(Record::Request(read)) = decode(REQUEST, &words[HEADER..]) else { panic!() };
            prop_assert!(texts[4].starts_with(&*read.path) && read.path.len() + 3 >= texts[4].len().min(1_024));
            let shown = String::from_utf8_lossy(&sent[2]);
            prop_assert!(shown.starts_with(&*read.user_agent) || sent[2].len() > 256);
        }

        #[test]
        fn any_event_reads_back_and_any_bytes_are_survived(
            message in ".{0,200}",
            keys in prop::collection::vec(".{0,20}", 0..70),
            noise in prop::collection::vec(any::<u8>(), 0..600),
            kind in any::<u8>(),
            at in any::<prop::sample::Index>(),
            flip in any::<u8>(),
        ) {
            let fields: Vec<_> = keys.iter().map(|key| (key.as_str(), Value::Str(key))).collect();
            let event = Event {
                wall_ns: 1,
                level: Level::Warn,
                target: "t",
                message: &message,
                trace: TraceId::NONE,
                span: SpanId::NONE,
                request_id: "",
                fields: &fields,
            };
            let mut bytes = Vec::new();
            Encoder::event(&mut bytes, &event);
            let Some(Record::Event(read)) = decode(EVENT, &bytes[HEADER..]) else { panic!() };
            prop_assert_eq!(&read.message, &message);
            prop_assert_eq!(read.fields.len(), keys.len().min(MOST_FIELDS));
            let _ = decode(kind, &noise);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let _ = decode(EVENT, &bytes[HEADER..]);
        }
    }
}

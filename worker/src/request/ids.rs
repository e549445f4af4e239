//! Request ids and W3C trace context: what a caller sent is kept when it is well-formed, else made here.

use std::cell::RefCell;

use bytes::{BufMut, BytesMut};
use http::{HeaderName, HeaderValue};
use saola_observability::ids::{SpanId, TraceId};

use super::fields::Single;
use crate::branch::unlikely;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Makes ids. One a worker, seeded after the fork: a generator seeded before it makes twins.
pub(crate) struct Ids {
    /// State of xoshiro256++ (Blackman and Vigna, 2019): fast and well spread; ids are no secrets.
    state: [u64; 4],
    /// Request ids are cut from one buffer, so that 64 of them cost one allocation.
    texts: BytesMut,
}

/// The caller's side of a trace.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Parent {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    pub(crate) sampled: bool,
}

/// Where a request id comes from.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Origin {
    /// The caller sent it, so it stands in its field already.
    Kept,
    Made,
}

impl Ids {
    /// Seeds from the kernel, or from a number in tests.
    pub(crate) fn new(seed: Option<u64>) -> Result<Self, getrandom::Error> {
        let mut state = [0; 4];
        match seed {
            Some(seed) => {
                state = [seed, seed ^ 0x9e37_79b9_7f4a_7c15, !seed, 0xd1b5_4a32_d192_ed03];
            }
            None => {
                for word in &mut state {
                    *word = getrandom::u64()?;
                }
            }
        }
        // The one state the generator never leaves.
        state[3] |= 1;
        let mut ids = Self { state, texts: BytesMut::new() };
        // A small seed needs a few steps before its bits have spread.
        for _ in 0..16 {
            ids.next();
        }
        Ok(ids)
    }

    #[inline(never)] // wanted several times a request: one copy of it in the processor's cache is enough
    pub(crate) fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    pub(crate) fn trace(&mut self) -> TraceId {
        let (high, low) = (u128::from(self.next()), u128::from(self.next() | 1));
        TraceId((high << 64 | low).to_be_bytes())
    }

    pub(crate) fn span(&mut self) -> SpanId {
        SpanId((self.next() | 1).to_be_bytes())
    }

    /// A new request id: 32 hex digits.
    pub(crate) fn request(&mut self) -> HeaderValue {
        const LENGTH: usize = 32;
        if unlikely(self.texts.capacity() < LENGTH) {
            self.texts = BytesMut::with_capacity(64 * LENGTH);
        }
        let id = self.trace();
        self.texts.put_slice(&id.hex());
        let text = self.texts.split_to(LENGTH).freeze();
        HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("invalid"))
    }

    /// The caller's request id if it sent exactly one well-formed, else a new one.
    pub(super) fn keep_or_make(&mut self, sent: &Single<'_>) -> (HeaderValue, Origin) {
        match sent.get() {
            Some(id) if is_request_id(id.as_bytes()) => (id.clone(), Origin::Kept),
            _ => (self.request(), Origin::Made),
        }
    }
}

thread_local! {
    /// Seeded at the first use in each thread, which comes after the fork: nothing before it makes spans.
    static OF_THREAD: RefCell<Option<Ids>> = const { RefCell::new(None) };
}

/// A new id for a child span, on any thread of a worker; `None` when the kernel gives no random numbers.
pub fn new_span_id() -> Option<SpanId> {
    OF_THREAD
        .try_with(|ids| {
            let mut ids = ids.borrow_mut();
            if ids.is_none() {
                *ids = Ids::new(None).ok();
            }
            ids.as_mut().map(Ids::span)
        })
        .ok()
        .flatten()
}

/// Reads `traceparent` (W3C Trace Context level 2, section 3.2).
pub(super) fn parent(sent: &Single<'_>) -> Option<Parent> {
    sent.get().and_then(|value| read_parent(value.as_bytes()))
}

#[inline(never)] // a frame of its own: few requests come with one
fn read_parent(value: &[u8]) -> Option<Parent> {
    let (head, tail) = value.split_at_checked(55)?;
    let [v1, v2, b'-', rest @ ..] = head else { return None };
    match (v1, v2) {
        (b'f', b'f') => return None,
        (b'0', b'0') if !tail.is_empty() => return None,
        // A later version may add fields behind a dash.
        _ if !tail.is_empty() && tail[0] != b'-' => return None,
        _ => {}
    }
    let version = [*v1, *v2];
    if !version.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let (trace, rest) = rest.split_at_checked(32)?;
    let (span, flags) = rest.strip_prefix(b"-")?.split_at_checked(16)?;
    let [high, low] = flags.strip_prefix(b"-")? else { return None };
    let (trace, span) = (TraceId::from_hex(trace)?, SpanId::from_hex(span)?);
    let (_, low) = (hex_digit(*high)?, hex_digit(*low)?);
    (!trace.is_none() && !span.is_none()).then_some(Parent { trace, span, sampled: low & 1 == 1 })
}

/// Keeps `tracestate` when it is small enough to pass on (section 3.3: drop it whole rather than cut it).
pub(super) fn tracestate(sent: &Single<'_>) -> Option<HeaderValue> {
    let value = sent.get()?;
    let members = value.as_bytes().split(|byte| *byte == b',').count();
    (value.len() <= 512 && members <= 32 && value.to_str().is_ok()).then(|| value.clone())
}

fn is_request_id(text: &[u8]) -> bool {
    (1..=128).contains(&text.len())
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._:/+=@-".contains(byte))
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// A field as it was sent. What is tested may be forgotten.
    fn sent(values: &[&str]) -> Single<'static> {
        let mut sent = Single::default();
        let values: Vec<HeaderValue> = values.iter().map(|value| value.parse().unwrap()).collect();
        values.leak().iter().for_each(|value| sent.add(value));
        sent
    }

    #[test]
    fn the_traceparent_table() {
        let ok = parent(&sent(&[GOOD])).unwrap();
        assert_eq!(ok.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((ok.span.to_string().as_str(), ok.sampled), ("00f067aa0ba902b7", true));
        let unsampled = GOOD.replace("-01", "-00");
        assert!(!parent(&sent(&[&unsampled])).unwrap().sampled);
        let tail = format!("{}-what-comes", GOOD.replacen("00", "01", 1));
        assert!(parent(&sent(&[&tail])).is_some(), "a later version with a tail");
        for bad in [
            GOOD.to_uppercase(),
            GOOD.replacen("00", "ff", 1),
            format!("{GOOD}-tail"),
            format!("{}x", GOOD.replacen("00", "01", 1)),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("-01", "-0g"),
            GOOD.replace('-', "_"),
            GOOD.replacen("00", "0g", 1),
            "00".to_owned(),
        ] {
            assert_eq!(parent(&sent(&[&bad])), None, "{bad}");
        }
        assert_eq!(parent(&sent(&[GOOD, GOOD])), None, "doubled");
        assert_eq!(parent(&Single::default()), None);
    }

    #[test]
    fn four_generators_say_a_million_ids_and_none_twice() {
        let mut seen = std::collections::HashSet::new();
        for mut ids in (0..4).map(|_| Ids::new(None).unwrap()) {
            assert!((0..250_000).all(|_| seen.insert(ids.trace())), "an id came twice");
        }
    }

    #[test]
    fn tracestate_is_kept_whole_or_dropped() {
        assert!(tracestate(&sent(&["a=1,b=2"])).is_some());
        assert!(tracestate(&sent(&[&"a".repeat(513)])).is_none());
        assert!(tracestate(&sent(&[&["a=1"; 33].join(",")])).is_none());
    }

    #[test]
    fn a_request_id_is_kept_when_it_is_well_formed() {
        let mut ids = Ids::new(Some(7)).unwrap();
        assert_eq!(
            ids.keep_or_make(&sent(&["a.B_9:/+=@-"])),
            ("a.B_9:/+=@-".parse().unwrap(), Origin::Kept)
        );
        for bad in [&["a b"][..], &["x\"y"], &[""], &["a", "b"], &[&"a".repeat(129)]] {
            let (made, origin) = ids.keep_or_make(&sent(bad));
            assert_eq!(origin, Origin::Made);
            assert!(
                made.len() == 32 && made.to_str().unwrap().bytes().all(|b| hex_digit(b).is_some()),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn two_workers_never_make_the_same_id() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..4 {
            let mut ids = Ids::new(None).unwrap();
            for _ in 0..25_000 {
                assert!(seen.insert(ids.trace()));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(5_000) })]

        #[test]
        fn a_context_that_is_taken_is_the_one_that_was_sent(
            changes in proptest::collection::vec((0_usize..60, 0x20_u8..0x7f), 0..4), tail in "[ -~]{0,4}",
        ) {
            let mut sent = GOOD.to_owned().into_bytes();
            sent.extend(tail.bytes());
            for (at, byte) in changes {
                sent.get_mut(at).into_iter().for_each(|place| *place = byte);
            }
            let (value, mut field) = (HeaderValue::from_bytes(&sent).unwrap(), Single::default());
            field.add(&value);
            if let Some(parent) = parent(&field) {
                let taken = format!("-{}-{}-", parent.trace, parent.span);
                prop_assert_eq!(&sent[2..53], taken.as_bytes());
            }
        }
    }
}

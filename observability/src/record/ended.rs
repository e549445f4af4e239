//! A request that has ended: what is of fixed length as words, and its texts, cut to their bounds.

use std::net::IpAddr;

use crate::closed::{Method, Outcome, Protocol, Sampling};
use crate::ids::{SpanId, TraceId};
use crate::layout::halves;

// Words are put together by shifts here and in words.rs, and read as bytes in the order of the machine.
const _: () =
    assert!(cfg!(target_endian = "little"), "the first byte of a word has to be its lowest");

/// Bytes of a request's fixed part.
pub(crate) const REQUEST_FIXED: usize = 95;
/// Bytes of the texts that are kept as they were sent.
pub(crate) const LONGEST_REQUEST_ID: usize = 128;
pub(crate) const LONGEST_USER_AGENT: usize = 256;
pub(crate) const LONGEST_SERVER_ADDRESS: usize = 255;

/// A request as its end writes it. `route` and `exception` are texts: a record explains itself, also to an observer of
/// another generation.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) start_wall_ns: u64,
    pub(crate) duration_ns: u64,
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    pub(crate) parent: SpanId,
    pub(crate) remote_parent: bool,
    pub(crate) is_https: bool,
    pub(crate) route: &'a str,
    pub(crate) exception: &'a str,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) status: u16,
    pub(crate) client: Option<IpAddr>,
    pub(crate) client_port: u16,
    pub(crate) server_port: u16,
    pub(crate) cpu_samples: u32,
    pub(crate) method: Method,
    pub(crate) protocol: Protocol,
    pub(crate) outcome: Outcome,
    pub(crate) sampling: Sampling,
    pub(crate) path: &'a str,
    pub(crate) request_id: &'a [u8],
    pub(crate) user_agent: &'a [u8],
    pub(crate) server_address: &'a [u8],
    pub(crate) method_text: &'a str,
    pub(crate) tracestate: &'a str,
}

/// The texts of a request in the order of the payload.
pub(crate) struct Texts<'a> {
    /// UTF-8, or a field as it was sent, which may be anything: who reads it makes UTF-8 of it.
    pub(crate) texts: [&'a [u8]; 8],
    /// Whether one was longer.
    pub(crate) is_cut: bool,
}

impl<'a> Ended<'a> {
    /// What is of fixed length, in the order of the payload: in memory [`REQUEST_FIXED`] bytes, and one of no meaning.
    #[inline]
    pub(crate) fn fixed(&self) -> [u64; REQUEST_FIXED.div_ceil(8)] {
        let [trace, trace_rest] = halves(self.trace.0);
        let [client, client_rest] = halves(address(self.client));
        let samples = u64::from(self.cpu_samples)
            | u64::from(self.status) << 32
            | u64::from(self.client_port) << 48;
        let flags = u8::from(self.remote_parent) | u8::from(self.is_https) << 1;
        let kinds = u64::from(self.server_port)
            | u64::from(self.method.number()) << 16
            | u64::from(self.protocol.number()) << 24
            | u64::from(self.outcome.number()) << 32
            | u64::from(self.sampling.number()) << 40
            | u64::from(flags) << 48;
        [
            self.start_wall_ns,
            self.duration_ns,
            trace,
            trace_rest,
            u64::from_ne_bytes(self.span.0),
            u64::from_ne_bytes(self.parent.0),
            self.request_bytes,
            self.response_bytes,
            client,
            client_rest,
            samples,
            kinds,
        ]
    }

    /// Its texts, cut to their bounds.
    #[inline]
    pub(crate) fn texts(&self) -> Texts<'a> {
        let mut is_cut = false;
        let mut cut = |text: &'a [u8], longest| {
            if text.len() <= longest {
                return text;
            }
            is_cut = true;
            beginning(text, longest)
        };
        let texts = [
            cut(self.route.as_bytes(), 128),
            cut(self.exception.as_bytes(), 128),
            cut(self.path.as_bytes(), 1_024),
            cut(self.request_id, LONGEST_REQUEST_ID),
            cut(self.user_agent, LONGEST_USER_AGENT),
            cut(self.server_address, LONGEST_SERVER_ADDRESS),
            cut(self.method_text.as_bytes(), 16),
            cut(self.tracestate.as_bytes(), 512),
        ];
        Texts { texts, is_cut }
    }
}

impl Texts<'_> {
    /// Bytes of them in the payload.
    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.texts.iter().map(|text| 2 + text.len()).sum()
    }
}

/// The longest beginning of at most so many bytes that ends between two characters, if the text has any.
#[cold]
fn beginning(text: &[u8], longest: usize) -> &[u8] {
    let is_inside = |at: usize| text.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let mut ends = (longest.saturating_sub(3)..=longest).rev();
    let end = ends.find(|end| !is_inside(*end)).unwrap_or(longest);
    text.get(..end).unwrap_or(text)
}

/// An address as 16 bytes, IPv4 mapped into IPv6 (RFC 4291 section 2.5.5.2); "none" is the unspecified address.
pub(crate) fn address(address: Option<IpAddr>) -> [u8; 16] {
    match address {
        None => [0; 16],
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped().octets(),
        Some(IpAddr::V6(v6)) => v6.octets(),
    }
}

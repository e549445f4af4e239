//! What the worker wants to know of a request's fields, found in one pass over them: each look-up by name would hash it.

use std::rc::Rc;

use http::{HeaderMap, HeaderValue};

use super::check::Marks;
use super::host::Host;

/// The fields that the worker itself reads.
#[derive(Debug, Default)]
pub(crate) struct Fields<'h> {
    /// The first of them.
    pub(crate) host: Option<Rc<Host>>,
    /// The first of them.
    pub(crate) user_agent: Option<&'h HeaderValue>,
    pub(crate) request_id: Single<'h>,
    pub(crate) traceparent: Single<'h>,
    pub(crate) tracestate: Single<'h>,
    pub(crate) marks: Marks,
}

/// A field that means something only if it comes once.
#[derive(Debug, Default)]
pub(crate) struct Single<'h> {
    value: Option<&'h HeaderValue>,
    is_doubled: bool,
}

impl<'h> Single<'h> {
    pub(super) fn add(&mut self, value: &'h HeaderValue) {
        self.is_doubled = self.value.replace(value).is_some();
    }

    pub(super) fn get(&self) -> Option<&'h HeaderValue> {
        self.value.filter(|_| !self.is_doubled)
    }
}

impl<'h> Fields<'h> {
    /// `known` is the host that the connection keeps.
    pub(crate) fn read(all: &'h HeaderMap, known: &mut Option<Rc<Host>>) -> Self {
        let mut fields = Self::default();
        let marks = &mut fields.marks;
        for (name, value) in all {
            match name.as_str() {
                "host" if fields.host.is_some() => marks.has_many_hosts = true,
                "host" => {
                    let host = Host::find(known, value.as_bytes());
                    (marks.has_host, marks.has_bad_host) = (true, !host.is_valid());
                    fields.host = Some(host);
                }
                "expect" => {
                    let is_known = value.as_bytes().eq_ignore_ascii_case(b"100-continue");
                    marks.expects_the_unknown |= !is_known;
                }
                "user-agent" => fields.user_agent = fields.user_agent.or(Some(value)),
                "x-request-id" => fields.request_id.add(value),
                "traceparent" => fields.traceparent.add(value),
                "tracestate" => fields.tracestate.add(value),
                name => {
                    marks.has_forwarding |= super::forwarded::is_forwarding(name);
                    marks.has_underscore |= has_underscore(name.as_bytes());
                }
            }
        }
        fields
    }
}

/// Eight bytes at once: names are too short for what finds a byte in long texts.
fn has_underscore(name: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let (words, rest) = name.as_chunks::<8>();
    let in_word = |word: &[u8; 8]| {
        let differs = u64::from_ne_bytes(*word) ^ (ONES * u64::from(b'_'));
        differs.wrapping_sub(ONES) & !differs & (ONES << 7) != 0
    };
    words.iter().any(in_word) || rest.contains(&b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        });
        lines.collect()
    }

    #[test]
    fn each_field_is_found_where_it_stands() {
        let all = all(&[
            ("accept", "*/*"),
            ("host", "a"),
            ("user-agent", "first"),
            ("user-agent", "second"),
            ("x-request-id", "1"),
            ("traceparent", "2"),
            ("traceparent", "2"),
        ]);
        let fields = Fields::read(&all, &mut None);
        assert_eq!(fields.host.unwrap().server(), (&b"a"[..], None));
        assert_eq!(fields.user_agent.unwrap(), "first");
        assert_eq!(fields.request_id.get().unwrap(), "1");
        assert!(fields.traceparent.get().is_none(), "doubled");
        assert!(fields.tracestate.get().is_none(), "absent");
    }

    #[test]
    fn what_needs_a_closer_look_is_marked() {
        let marks =
            |name, value| Fields::read(&all(&[("host", "a"), (name, value)]), &mut None).marks;
        let quiet = marks("accept", "*/*");
        assert!(quiet.has_host && !quiet.has_many_hosts && !quiet.expects_the_unknown);
        assert!(!quiet.has_forwarding && !quiet.has_underscore);
        assert!(marks("host", "a").has_many_hosts);
        assert!(!marks("expect", "100-Continue").expects_the_unknown);
        assert!(marks("expect", "200-ok").expects_the_unknown);
        for name in ["x_real_ip", "_", "a-long-name_", "eightlen_", "_eightlen"] {
            assert!(marks(name, "").has_underscore, "{name}");
        }
        assert!(!marks("x-long-name-without-one", "").has_underscore);
        for name in ["forwarded", "x-real-ip", "x-forwarded-prefix"] {
            assert!(marks(name, "").has_forwarding, "{name}");
        }
    }
}

//! One running request, from its begin to its end.

use std::marker::PhantomData;
use std::net::IpAddr;

use crate::clock::monotonic_ns;
use crate::closed::{Method, Phase, Protocol};
use crate::ids::{SpanId, TraceId};
use crate::in_flight::ending::Route;
use crate::in_flight::label::Label;
use crate::in_flight::{Detail, End, InFlight, entry};

/// A running request. It stays on the thread where it began; dropped without [`Request::end`] it ends as aborted.
pub struct Request {
    pub(super) in_flight: &'static InFlight,
    /// Its place in the table; none when the table was full.
    pub(super) entry: Option<u32>,
    /// Whether it was counted as started; if not, it is not counted at its end either.
    pub(super) is_counted: bool,
    /// What it leaves behind.
    pub(super) detail: Detail,
    pub(super) method: Method,
    pub(super) protocol: Protocol,
    pub(super) start_ns: u64,
    pub(super) start_wall_ns: u64,
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) parent: SpanId,
    pub(super) remote_parent: bool,
    pub(super) client: Option<IpAddr>,
    pub(super) client_port: u16,
    pub(super) route: Route,
    pub(super) phase: Phase,
    pub(super) ended: bool,
    pub(super) not_send: PhantomData<*const ()>,
}

impl Request {
    /// Names the route template: the label `http_route`. The last call wins; until then it is `unmatched`. Gives the name that
    /// the request has now, as [`InFlight::route`].
    pub fn set_route(&mut self, template: &str) -> &'static str {
        self.route = self.in_flight.endings.route(template);
        self.publish_kind();
        self.route.text
    }

    /// The route template named last.
    pub fn route(&self) -> &'static str {
        self.route.text
    }

    /// Says where the request is.
    pub fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
        self.publish_kind();
    }

    /// Its method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The trace it belongs to.
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// Its own span.
    pub fn span(&self) -> SpanId {
        self.span
    }

    /// When it began, monotonic nanoseconds.
    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// What the profiler takes samples under; `None` when the table was full. It is good as long as the request runs.
    pub fn label(&self) -> Option<Label> {
        self.entry.and_then(|entry| self.in_flight.entries.label(entry))
    }

    /// What it leaves behind.
    pub fn detail(&self) -> Detail {
        self.detail
    }

    /// Ends it: histogram, byte counters, exceptions, record and free entry in one transaction.
    pub fn end(mut self, end: &End<'_>) {
        self.ended = true;
        self.in_flight.finish(&self, end);
    }

    #[cold]
    fn abort(&mut self) {
        self.ended = true;
        let known = self.entry.map(|entry| self.in_flight.entries.texts(entry)).unwrap_or_default();
        let end = End {
            end_ns: monotonic_ns(),
            path: &known.path,
            request_id: known.request_id.as_bytes(),
            ..End::default()
        };
        self.in_flight.finish(self, &end);
    }

    fn publish_kind(&self) {
        if let Some(entry) = self.entry {
            let kind = entry::Kind {
                route: self.route.id,
                method: self.method,
                protocol: self.protocol,
                phase: self.phase,
            };
            self.in_flight.entries.set_kind(entry, kind);
        }
    }
}

impl Drop for Request {
    #[inline]
    fn drop(&mut self) {
        if !self.ended {
            self.abort();
        }
    }
}

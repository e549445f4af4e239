//! What is known of a request from its head: who asks what of whom, under which ids.

use std::rc::Rc;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Method, Uri, Version};
use saola_observability::closed::{self, Protocol, Sampling};
use saola_observability::ids::{SpanId, TraceId};
use saola_observability::{Begin, Detail, End, Request};
use tokio::time::Instant;

use super::answer::text;
use super::fields::Fields;
use super::forwarded::Peer;
use super::host::{Host, server};
use super::ids::{self, Origin};
use crate::connection::Connection;
use crate::worker::Worker;

/// A request as it comes from its connection.
pub(crate) struct Head<'r> {
    pub(crate) method: &'r Method,
    pub(crate) version: Version,
    /// `None` when it was refused unread.
    pub(crate) uri: Option<&'r Uri>,
    pub(crate) fields: &'r Fields<'r>,
    /// Whom trusted proxies name; `None` when it is the connection's own peer.
    pub(crate) peer: Option<Box<Peer>>,
}

/// What is known of a request from its head, once.
pub(crate) struct Facts {
    pub(crate) method: Method,
    pub(crate) version: Version,
    path: Option<PathAndQuery>,
    /// Who was addressed: `Host`, or the authority that HTTP/2 has in its place (RFC 9113 section 8.3.1).
    host: Option<Rc<Host>>,
    user_agent: Option<HeaderValue>,
    pub(crate) request_id: HeaderValue,
    pub(crate) id_origin: Origin,
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    pub(crate) tracestate: Option<HeaderValue>,
    pub(super) peer: Option<Box<Peer>>,
    pub(crate) sampling: Sampling,
    pub(super) start: Instant,
}

impl Facts {
    /// `parent` is the caller's part of the trace.
    pub(super) fn of(
        head: Head<'_>,
        parent: Option<&ids::Parent>,
        connection: &Connection,
    ) -> Self {
        let Head { method, version, uri, fields, peer } = head;
        let worker = &connection.worker;
        let start = connection.begin_of(version);
        let mut ids = worker.ids.borrow_mut();
        let trace = parent.map_or_else(|| ids.trace(), |parent| parent.trace);
        let (request_id, id_origin) = ids.keep_or_make(&fields.request_id);
        // What only the record says is not kept for nobody.
        let detail = worker.slot.in_flight().detail();
        let path = uri.filter(|_| detail != Detail::Nothing).and_then(Uri::path_and_query);
        let (mut host, mut user_agent) = (None, None);
        if detail == Detail::Full {
            let named = || {
                let authority = uri?.authority()?.as_str();
                Some(Host::find(&mut connection.host.borrow_mut(), authority.as_bytes()))
            };
            host = fields.host.clone().or_else(named);
            user_agent = fields.user_agent.cloned();
        }
        Self {
            method: method.clone(),
            version,
            path: path.cloned(),
            host,
            user_agent,
            request_id,
            id_origin,
            trace,
            span: ids.span(),
            tracestate: parent.and_then(|_| ids::tracestate(&fields.tracestate)),
            sampling: worker.decider.borrow_mut().at_head(trace, parent, start),
            peer,
            start,
        }
    }

    /// Counts the request, and puts it into the table of the slot.
    pub(super) fn enter_table(
        &self,
        parent: Option<&ids::Parent>,
        connection: &Connection,
    ) -> Request {
        let Worker { clock, slot, .. } = &*connection.worker;
        let start_ns = clock.monotonic_ns(self.start);
        let own = connection.peer.borrow();
        let peer = self.peer.as_deref().unwrap_or(&own);
        slot.in_flight().begin(&Begin {
            method: label(&self.method),
            protocol: protocol(self.version),
            start_ns,
            start_wall_ns: clock.wall_ns(start_ns),
            trace: self.trace,
            span: self.span,
            parent: parent.map_or(SpanId::NONE, |parent| parent.span),
            remote_parent: parent.is_some(),
            sampled: self.sampling.is_sampled(),
            client: peer.client,
            client_port: peer.port(),
            request_id: self.request_id.as_bytes(),
            path: self.path.as_ref().map_or("", PathAndQuery::path),
        })
    }

    /// Adds what only the record says to how the request ended.
    pub(super) fn tell<'f>(&'f self, end: &mut End<'f>, method: closed::Method, peer: &'f Peer) {
        if method == closed::Method::Other {
            end.method_text = self.method.as_str();
        }
        end.path = self.path.as_ref().map_or("", PathAndQuery::path);
        end.user_agent = self.user_agent.as_ref().map_or(&[], HeaderValue::as_bytes);
        // As texts, which is in line: two schemes are compared by a function that nothing else calls here.
        end.is_https = peer.scheme.as_str() == Scheme::HTTPS.as_str();
        let port;
        (end.server_address, port) = match (&peer.host, &self.host) {
            (Some(named), _) => server(named.as_bytes()),
            (None, Some(host)) => host.server(),
            (None, None) => (&b""[..], None),
        };
        end.server_port = port.unwrap_or(if end.is_https { 443 } else { 80 });
        end.tracestate = self.tracestate.as_ref().map_or("", text);
        end.request_id = self.request_id.as_bytes();
    }
}

/// As [`closed::Method::parse`] of its name; every request asks, so without a look at names.
fn label(method: &Method) -> closed::Method {
    match *method {
        Method::GET => closed::Method::Get,
        Method::HEAD => closed::Method::Head,
        Method::POST => closed::Method::Post,
        Method::PUT => closed::Method::Put,
        Method::PATCH => closed::Method::Patch,
        Method::DELETE => closed::Method::Delete,
        Method::OPTIONS => closed::Method::Options,
        _ => closed::Method::Other,
    }
}

fn protocol(version: Version) -> Protocol {
    match version {
        Version::HTTP_2 => Protocol::Http2,
        Version::HTTP_10 => Protocol::Http10,
        _ => Protocol::Http11,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use saola_observability::closed;

    use super::label;

    #[test]
    fn a_method_has_the_label_of_its_name() {
        for name in closed::Method::ALL.iter().map(|method| method.as_str()).chain(["get", "TRACE"])
        {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(label(&method), closed::Method::parse(name), "{name}");
        }
    }
}

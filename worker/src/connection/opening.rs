//! What comes before HTTP on a connection: the PROXY header, then TLS; each under its deadline.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use tokio::time::Instant;

use super::Connection;
use super::drive::{Stage, drive};
use super::proxy;
use super::transport::{Begun, Transport};
use crate::accept::{Speech, Stream};
use crate::config::ProxyProtocol;
use crate::metrics;

/// What a connection may turn out to speak.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Speaks {
    /// Its first bytes tell.
    Either,
    Http1,
    Http2,
}

const PROXY_HEADER: Duration = Duration::from_secs(3);
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Does what the listener asks for first; `None` when the client did not do its part.
pub(super) async fn open<I: Stream>(
    mut io: I,
    speech: Speech,
    connection: &Rc<Connection>,
    mut since: Instant,
) -> Option<Transport<I>> {
    let mut read = Bytes::new();
    if speech.proxy != ProxyProtocol::Off {
        connection.opens_until(since + PROXY_HEADER);
        read = header(&mut io, speech.proxy, connection).await?;
        since = Instant::now();
    }
    let begun = Begun { read, io };
    let transport = match &connection.worker.tls {
        Some(_) if speech.tls => {
            connection.opens_until(since + HANDSHAKE);
            handshake(begun, connection).await?
        }
        _ => Transport::Plain(begun),
    };
    connection.opened();
    Some(transport)
}

/// The header is required of a trusted peer, and of nobody else taken.
async fn header<I: Stream>(
    io: &mut I,
    version: ProxyProtocol,
    connection: &Rc<Connection>,
) -> Option<Bytes> {
    let allowed = &connection.worker.config.proxy_allow_ips;
    let read = if allowed.includes(connection.peer.borrow().client) {
        drive(connection, Future(pin!(proxy::read(io, version)))).await
    } else {
        None
    };
    let Some(Ok((address, rest))) = read else {
        metrics::REJECTED.with(["proxy_header"]).inc();
        return None;
    };
    if let Some(address) = address {
        let mut peer = connection.peer.borrow_mut();
        peer.client = Some(address.ip().to_canonical());
        peer.socket = Some(address);
    }
    Some(rest)
}

async fn handshake<I: Stream>(
    begun: Begun<I>,
    connection: &Rc<Connection>,
) -> Option<Transport<I>> {
    let tls = connection.worker.tls.as_ref()?;
    // A failed handshake was answered with its alert; there is nobody else to tell.
    let stream = drive(connection, Future(pin!(tls.accept(begun)))).await?.ok()?;
    connection.speaks.set(match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Speaks::Http2,
        _ => Speaks::Http1,
    });
    connection.peer.borrow_mut().scheme = Scheme::HTTPS;
    Some(Transport::Tls(Box::new(stream)))
}

/// Any future as a part of a connection's life.
struct Future<'f, F>(Pin<&'f mut F>);

impl<F: std::future::Future> Stage for Future<'_, F> {
    type Output = F::Output;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0.as_mut().poll(cx)
    }
}

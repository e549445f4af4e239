//! The bodies of a request and of its response: counted, limited, and tied to the record.

use std::hint::cold_path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::large::{LARGE, Rest};
use super::reading::Reading;
use super::scope::{Holder, Running, caught};
use crate::BoxError;
use crate::branch::{rare, unlikely};

/// The body of a request as the service gets it: hyper's, with the limit of the settings and a count.
///
/// It can be sent to another thread; its frames are read from the connection only while it is polled.
pub struct RequestBody {
    incoming: Option<Incoming>,
    reading: Option<Arc<Reading>>,
}

/// Why a request body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// It is longer than `limit_request_body`, or than [`body_limit`](crate::body_limit) allows.
    #[error("the request body is longer than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The connection failed or the body was malformed.
    #[error("cannot read the request body")]
    Read(#[source] hyper::Error),
}

impl RequestBody {
    /// A body without a byte, for tests of services.
    pub fn empty() -> Self {
        Self { incoming: None, reading: None }
    }

    /// Without a [`Reading`] there is nothing to read.
    #[inline]
    pub(crate) fn new(incoming: Incoming, reading: Option<Arc<Reading>>) -> Self {
        Self { incoming: reading.is_some().then_some(incoming), reading }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.gives_up();
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let (Some(incoming), Some(reading)) = (&mut this.incoming, &this.reading) else {
            return Poll::Ready(None);
        };
        if !reading.is_allowed() {
            return Poll::Ready(Some(Err(BodyError::TooLarge { limit: reading.limit() })));
        }
        let Poll::Ready(polled) = Pin::new(&mut *incoming).poll_frame(cx) else {
            reading.waits();
            return Poll::Pending;
        };
        let Some(frame) = polled.transpose().map_err(BodyError::Read)? else {
            reading.ends();
            return Poll::Ready(None);
        };
        let length =
            frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
        if !reading.takes(length, incoming.is_end_stream()) {
            return Poll::Ready(Some(Err(BodyError::TooLarge { limit: reading.limit() })));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestBody")
            .field("read", &self.reading.as_ref().map(|reading| reading.bytes()))
            .finish_non_exhaustive()
    }
}

pin_project_lite::pin_project! {
    /// What hyper sends: the service's body or an answer of the worker's own. Its end is the end of the record.
    pub(crate) struct ResponseBody<B> {
        #[pin]
        source: Source<B>,
        // What the head has promised; reaching it is the end, because hyper does not ask again.
        promised: Option<u64>,
        // Ends the record when hyper drops the body.
        holder: Option<Holder>,
        // Of a frame too large to be given to hyper as it is.
        rest: Option<Box<Rest>>,
    }
}

pin_project_lite::pin_project! {
    #[project = SourceProjection]
    pub(crate) enum Source<B> {
        Own { bytes: Option<Bytes> },
        Service { #[pin] body: B },
    }
}

impl<B> Source<B> {
    pub(crate) fn service(body: B) -> Self {
        Self::Service { body }
    }

    pub(crate) fn own(bytes: Bytes) -> Self {
        Self::Own { bytes: Some(bytes) }
    }
}

impl<B: HttpBody> ResponseBody<B> {
    pub(crate) fn new(source: Source<B>, promised: Option<u64>, holder: Holder) -> Self {
        Self { source, promised, holder: Some(holder), rest: None }
    }
}

/// A piece of a response body.
#[derive(Debug)]
pub(crate) enum Piece<D> {
    Own(Bytes),
    Service(D),
}

impl<D: Buf> Buf for Piece<D> {
    fn remaining(&self) -> usize {
        match self {
            Self::Own(bytes) => rare(bytes.remaining()),
            Self::Service(data) => data.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => rare(bytes.chunk()),
            Self::Service(data) => data.chunk(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Own(bytes) => {
                cold_path();
                bytes.advance(count);
            }
            Self::Service(data) => data.advance(count),
        }
    }

    fn chunks_vectored<'a>(&'a self, parts: &mut [std::io::IoSlice<'a>]) -> usize {
        match self {
            Self::Own(bytes) => rare(bytes.chunks_vectored(parts)),
            Self::Service(data) => data.chunks_vectored(parts),
        }
    }
}

impl<B: HttpBody<Error: Into<BoxError>>> HttpBody for ResponseBody<B> {
    type Data = Piece<B::Data>;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let this = self.project();
        let Some(holder) = this.holder.as_ref() else { return rare(Poll::Ready(None)) };
        let running = std::rc::Rc::clone(&holder.0);
        if unlikely(running.expired.get().is_some()) {
            // The head has gone: only a cut tells the client.
            return Poll::Ready(Some(Err(running.cut_short().into())));
        }
        running.remember(cx.waker());
        if unlikely(this.rest.is_some()) {
            return gives_part(&running, this.rest, *this.promised);
        }
        let mut body = match this.source.project() {
            SourceProjection::Own { bytes } => return gives_own(&running, bytes, *this.promised),
            SourceProjection::Service { body } => body,
        };
        let (mut polled, mut is_last) = (Poll::Pending, false);
        running.takes_loop();
        let is_caught = caught(&running, || {
            polled = body.as_mut().poll_frame(cx);
            is_last = body.is_end_stream();
        });
        if let Err(panicked) = is_caught {
            cold_path();
            // The connection is cut: the head has gone, nothing else can tell the client.
            return Poll::Ready(Some(Err(panicked.into())));
        }
        if is_last {
            running.keeps_loop();
        } else {
            running.leaves_loop();
        }
        let Poll::Ready(polled) = polled else {
            running.gave_frame(false);
            return Poll::Pending;
        };
        match polled {
            None => {
                if running.sent(0, *this.promised, true) {
                    this.holder.take();
                }
                Poll::Ready(None)
            }
            Some(Ok(mut frame)) => {
                // hyper does not ask again behind these.
                let is_end = is_last || frame.is_trailers();
                if let Some(data) = frame.data_mut()
                    && unlikely(data.remaining() > LARGE)
                    && running.sends_large()
                {
                    *this.rest = Some(Box::new(Rest::of(data, is_end)));
                    return gives_part(&running, this.rest, *this.promised);
                }
                gives(&running, frame.map_data(Piece::Service), *this.promised, is_end)
            }
            Some(Err(error)) => {
                cold_path();
                running.body_failed();
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
            && match &self.source {
                Source::Own { bytes } => bytes.as_ref().is_none_or(Bytes::is_empty),
                Source::Service { body } => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own { bytes } => SizeHint::with_exact(
                bytes.as_ref().map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            ),
            Source::Service { body } => body.size_hint(),
        }
    }
}

/// What becomes of one call for a frame.
type Given<D> = Poll<Option<Result<Frame<Piece<D>>, BoxError>>>;

/// Gives hyper a frame, and keeps the books of it.
fn gives<D: Buf>(
    running: &Running,
    frame: Frame<Piece<D>>,
    promised: Option<u64>,
    is_end: bool,
) -> Given<D> {
    running.gave_frame(true);
    running.connection.sends(length(&frame));
    running.sent(length(&frame), promised, is_end);
    Poll::Ready(Some(Ok(frame)))
}

/// Gives hyper all of an answer of the worker's own.
#[cold]
fn gives_own<D: Buf>(
    running: &Running,
    bytes: &mut Option<Bytes>,
    promised: Option<u64>,
) -> Given<D> {
    if let Some(bytes) = bytes.take().filter(|bytes| !bytes.is_empty()) {
        return gives(running, Frame::data(Piece::Own(bytes)), promised, true);
    }
    running.sent(0, promised, true);
    Poll::Ready(None)
}

/// Gives hyper the next part of a large frame.
#[cold]
fn gives_part<D: Buf>(
    running: &Running,
    left: &mut Option<Box<Rest>>,
    promised: Option<u64>,
) -> Given<D> {
    let Some(rest) = left else { return Poll::Ready(None) };
    let (part, is_end) = rest.next();
    left.take_if(|rest| rest.is_over());
    gives(running, Frame::data(Piece::Own(part)), promised, is_end)
}

fn length<D: Buf>(frame: &Frame<D>) -> u64 {
    frame.data_ref().map_or(0, |data| u64::try_from(data.remaining()).unwrap_or(u64::MAX))
}

//! The head gate: an I/O wrapper under hyper that gives it only complete, accepted heads and the bytes of their bodies.
//! It never rewrites a byte; it can only refuse, and then it writes the answer itself when hyper has flushed all others.

mod outgoing;

use std::hint::cold_path;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::Connection;
use super::head::{Body, Scan, Verdict};
use super::opening::Speaks;
use super::scratch::{poll_scratch, scratched};
use super::serve::Place;
use crate::accept::Stream;
use crate::branch::{rare, unlikely};
use crate::request::answer::Refusal;

/// What a new connection turned out to speak.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Opening {
    Http1,
    Http2,
    /// It ended, or its first head was refused.
    Over,
}

pub(crate) struct Gate<I: Stream> {
    io: I,
    connection: Rc<Connection>,
    /// Bytes that hyper has not seen: a part of a head, or what lies behind the current message.
    held: BytesMut,
    /// How many of them hyper may have.
    passed: usize,
    /// How far a part of a head has been read.
    scan: Option<Box<Scan>>,
    empty_lines: u8,
    mode: Mode,
    /// The rest of a refusal that is still to be written.
    refusal: Option<Bytes>,
    is_shut: bool,
    _place: Place,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Mode {
    Head,
    Body(u64),
    /// Behind a chunked head, and in HTTP/2: hyper reads whatever comes.
    Through,
    Refused,
}

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<I: Stream> Gate<I> {
    pub(super) fn new(io: I, connection: Rc<Connection>, place: Place) -> Self {
        Self {
            io,
            connection,
            held: BytesMut::new(),
            passed: 0,
            scan: None,
            empty_lines: 0,
            mode: Mode::Head,
            refusal: None,
            is_shut: false,
            _place: place,
        }
    }

    /// Waits until the protocol is known and the first head is complete, so that hyper's buffers wait for it too.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Opening>> {
        loop {
            if self.connection.is_head_late.take() {
                self.refuse(Refusal::HEAD_TIMEOUT);
            }
            if self.mode == Mode::Refused {
                ready!(self.poll_finish(cx))?;
                return Poll::Ready(Ok(Opening::Over));
            }
            let is_preface = self.may_be_http2() && !self.held.is_empty() && agrees(&self.held);
            if is_preface && self.held.len() >= PREFACE.len() {
                self.mode = Mode::Through;
                self.connection.speaks_http2();
                if !self.connection.counts_frames(&self.held) {
                    return Poll::Ready(Err(flood()));
                }
                return Poll::Ready(Ok(Opening::Http2));
            }
            if is_preface {
                self.connection.head_begins();
            } else {
                if self.connection.speaks.get() == Speaks::Http2 && !self.held.is_empty() {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                self.judge();
                match self.mode {
                    Mode::Head => {}
                    Mode::Refused => continue,
                    Mode::Body(_) | Mode::Through => return Poll::Ready(Ok(Opening::Http1)),
                }
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(Opening::Over));
            }
        }
    }

    fn may_be_http2(&self) -> bool {
        self.connection.worker.config.http2 && self.connection.speaks.get() != Speaks::Http1
    }

    /// Looks whether what is held is a complete head, and sets the mode accordingly.
    fn judge(&mut self) {
        if unlikely(self.connection.is_head_late.take()) {
            return self.refuse(Refusal::HEAD_TIMEOUT);
        }
        if unlikely(!self.held.is_empty() || self.empty_lines > 0) {
            self.judge_held();
        }
    }

    #[inline(never)] // a frame of its own: a head mostly comes whole, and is not held
    fn judge_held(&mut self) {
        while self.empty_lines < 2 && self.held.starts_with(b"\r\n") {
            self.held.advance(2);
            self.empty_lines += 1;
        }
        let is_half_line =
            self.held.len() < 2 && self.held.starts_with(b"\r") && self.empty_lines < 2;
        if self.held.is_empty() || is_half_line {
            if is_half_line || self.empty_lines > 0 {
                self.connection.head_begins();
            }
            return;
        }
        let scan = self.scan.get_or_insert_default();
        match scan.advance(&self.held, &self.connection.worker.config) {
            Verdict::Incomplete => self.connection.head_begins(),
            Verdict::Refused(refusal) => self.refuse(refusal),
            Verdict::Complete { end, body } => {
                self.passed = self.accept(end, body, self.held.len());
            }
        }
    }

    /// A head ends within so many bytes: says how many of them hyper may have, and what is due behind them.
    fn accept(&mut self, end: usize, body: Body, there: usize) -> usize {
        self.scan = None;
        self.empty_lines = 0;
        self.connection.head_complete();
        match body {
            Body::Length(length) => {
                let begun = usize::try_from(length).unwrap_or(usize::MAX).min(there - end);
                self.mode = Mode::Body(length - u64::try_from(begun).unwrap_or(length));
                end + begun
            }
            // No head is ever looked for behind a chunked body.
            Body::Chunked => {
                cold_path();
                self.connection.last_request.set(true);
                self.mode = Mode::Through;
                there
            }
        }
    }

    /// Looks at what came behind `before` while a head is due and nothing is held. A head that comes whole, as most do, stays
    /// where hyper has its bytes; what it may not have yet is taken back.
    fn look(&mut self, out: &mut ReadBuf<'_>, before: usize) {
        let bytes = out.filled().get(before..).unwrap_or_default();
        let mut count = 0;
        // An empty line before a head is so rare that it may be held.
        if !bytes.starts_with(b"\r") {
            let mut scan = Scan::default();
            match scan.advance(bytes, &self.connection.worker.config) {
                Verdict::Incomplete => {
                    cold_path();
                    self.scan = Some(Box::new(scan));
                    self.connection.head_begins();
                }
                Verdict::Refused(refusal) => {
                    cold_path();
                    out.set_filled(before);
                    return self.refuse(refusal);
                }
                Verdict::Complete { end, body } => count = self.accept(end, body, bytes.len()),
            }
        }
        if unlikely(count < bytes.len()) {
            self.held.extend_from_slice(bytes.get(count..).unwrap_or_default());
            out.set_filled(before + count);
        }
    }

    fn refuse(&mut self, refusal: &'static Refusal) {
        self.refusal = Some(self.connection.refuse(refusal));
        self.connection.linger.set(true);
        self.held = BytesMut::new();
        self.mode = Mode::Refused;
    }

    /// Reads into what is held. `Ok(0)` is the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let count = ready!(poll_scratch(&mut self.io, cx))?;
        scratched(count, |bytes| self.held.extend_from_slice(bytes));
        Poll::Ready(Ok(count))
    }

    /// Gets on with a head; says whether hyper is to look at what it has got: the head, or the end of the stream.
    fn poll_head(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        self.judge();
        if self.mode != Mode::Head {
            return Poll::Ready(Ok(false));
        }
        if unlikely(!self.held.is_empty()) {
            return self.poll_fill(cx).map_ok(|count| count == 0);
        }
        let before = out.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
        let is_end = out.filled().len() == before;
        if !is_end {
            self.look(out, before);
        }
        Poll::Ready(Ok(is_end || out.filled().len() > before))
    }

    /// Reads what hyper may have unseen: the rest of a body of known length, or all there is.
    fn poll_direct(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        match self.mode {
            Mode::Body(left) => {
                ready!(Pin::new(&mut (&mut self.io).take(left)).poll_read(cx, out))?;
            }
            _ => ready!(Pin::new(&mut self.io).poll_read(cx, out))?,
        }
        let bytes = out.filled().get(before..).unwrap_or_default();
        if unlikely(!self.connection.counts_frames(bytes)) {
            return Poll::Ready(Err(flood()));
        }
        if let Mode::Body(left) = self.mode {
            let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            self.mode = Mode::Body(left.saturating_sub(count));
        }
        Poll::Ready(Ok(()))
    }

    /// Behind an upgrade everything passes, until the drain's deadline.
    fn upgraded(&mut self, cx: &Context<'_>) -> io::Result<()> {
        if unlikely(self.connection.is_upgraded.get()) {
            self.mode = Mode::Through;
            self.connection.remember(cx);
            if self.connection.worker.is_forced.get() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    }

    /// Keeps the books of what the client takes.
    fn noted(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Pending => self.connection.blocked(&self.io),
            Poll::Ready(Ok(bytes)) => self.connection.written(bytes),
            Poll::Ready(Err(_)) => {}
        }
        polled
    }

    /// Writes what is left of a refusal, shuts the write side, and reads on until the client has seen it (W60).
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = &mut self.refusal {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            rest.advance(count);
            if rest.is_empty() || count == 0 {
                self.refusal = None;
            }
        }
        if !self.is_shut {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.is_shut = true;
            self.connection.lingers_since_now();
        }
        // A close with unread input resets the connection, and the client loses the answer with it.
        while self.connection.linger.get() {
            match ready!(poll_scratch(&mut self.io, cx)) {
                Ok(0) | Err(_) => break,
                Ok(_) => self.connection.linger_byte(),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: Stream> AsyncRead for Gate<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.upgraded(cx)?;
        loop {
            if unlikely(this.passed > 0) {
                let count = this.passed.min(out.remaining());
                out.put_slice(this.held.get(..count).unwrap_or_default());
                this.held.advance(count);
                this.passed -= count;
                if this.held.is_empty() {
                    this.held = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            match this.mode {
                Mode::Body(0) => this.mode = Mode::Head,
                Mode::Body(left) if !this.held.is_empty() => {
                    cold_path();
                    this.passed = usize::try_from(left).unwrap_or(usize::MAX).min(this.held.len());
                    this.mode =
                        Mode::Body(left.saturating_sub(u64::try_from(this.passed).unwrap_or(left)));
                }
                Mode::Through if !this.held.is_empty() => this.passed = this.held.len(),
                Mode::Body(_) | Mode::Through => return this.poll_direct(cx, out),
                // To hyper a refusal is the end of the stream between two requests.
                Mode::Refused => return rare(Poll::Ready(Ok(()))),
                Mode::Head => {
                    if ready!(this.poll_head(cx, out))? {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<I: Stream> Drop for Gate<I> {
    fn drop(&mut self) {
        let worker = &self.connection.worker;
        if self.connection.is_upgraded.get() {
            worker.upgraded.set(worker.upgraded.get().saturating_sub(1));
        }
        if self.connection.is_aborted.get() {
            self.io.abort_on_close();
        } else if self.connection.is_orderly.get() && !self.is_shut {
            // What does not fit into the kernel's buffer at once is not waited for.
            let _ = Pin::new(&mut self.io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}

fn flood() -> io::Error {
    io::Error::other("too many frames")
}

/// Says whether the bytes are those of the HTTP/2 preface as far as they go.
fn agrees(bytes: &[u8]) -> bool {
    bytes.iter().zip(PREFACE).all(|(byte, expected)| byte == expected)
}

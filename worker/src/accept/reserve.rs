//! A process without descriptors: it pauses, and every second it gives one up to answer one client.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use saola_observability::Slot;
use saola_observability::closed::Level;

use super::{Speech, Taken, take};
use crate::metrics;

/// The descriptor that is held for that moment, and how long it has lasted.
pub(super) struct Reserve {
    slot: &'static Slot,
    held: Option<OwnedFd>,
    since: Option<Instant>,
    warned: Option<Instant>,
    pause: Duration,
    refused: u64,
}

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(1);

impl Reserve {
    pub(super) fn new(slot: &'static Slot) -> Self {
        Self { slot, held: hold(), since: None, warned: None, pause: FIRST, refused: 0 }
    }

    /// A connection was accepted.
    pub(super) fn eases(&mut self) {
        (self.since, self.pause) = (None, FIRST);
    }

    /// There was no descriptor for a client of this listener; says how long to leave all of them alone.
    pub(super) fn exhausted(&mut self, listener: &OwnedFd, speech: Speech) -> Duration {
        let now = Instant::now();
        if now.duration_since(*self.since.get_or_insert(now)) >= PATIENCE {
            self.refuse_one(listener, speech);
        }
        if self.warned.is_none_or(|last| now.duration_since(last) >= Duration::from_mins(1)) {
            self.warned = Some(now);
            let refused = self.refused.to_string();
            let (message, fields) = ("no descriptor for a connection", [("refused", &*refused)]);
            crate::worker::event(self.slot, Level::Warn, message, None, &fields);
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST);
        pause
    }

    fn refuse_one(&mut self, listener: &OwnedFd, speech: Speech) {
        self.held = None;
        if let Taken::Socket(socket) = take(listener) {
            self.refused = self.refused.saturating_add(1);
            metrics::REJECTED.with(["descriptors"]).inc();
            refuse(socket, speech);
        }
        self.held = hold();
    }
}

/// Nothing is as easily had as this, and as easily given up.
fn hold() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").ok().map(OwnedFd::from)
}

/// Answers 503 and closes, without waiting for anything. A client that is owed TLS first is only closed.
pub(super) fn refuse(socket: OwnedFd, speech: Speech) {
    if speech.tls {
        return;
    }
    // Any stream socket can be written to as this one; what is not sent at once is not sent.
    let mut stream = UnixStream::from(socket);
    let _ = stream.write_all(UNAVAILABLE);
    let _ = stream.shutdown(Shutdown::Write);
    // A close with unread input resets the connection, and the client loses the answer with it.
    let mut unread = [0; 4096];
    while stream.read(&mut unread).is_ok_and(|length| length > 0) {}
}

const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 49\r\n\
retry-after: 1\r\nconnection: close\r\n\r\n{\"error\":\"the server is overloaded\",\"status\":503}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_whole_also_for_a_client_that_has_asked() {
        let (mut client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        refuse(server.into(), Speech::default());
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        assert_eq!(length.parse(), Ok(body.len()));
    }
}

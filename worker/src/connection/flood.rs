//! What becomes of a client that floods its connection: it is closed, counted, and named once a minute.

use std::error::Error;

use saola_observability::closed::Level;
use tokio::time::Instant;

use super::Connection;
use crate::metrics;

impl Connection {
    /// Looks at bytes that came in; `false` when they are too many frames of HTTP/2.
    pub(super) fn counts_frames(&self, bytes: &[u8]) -> bool {
        let mut frames = self.frames.borrow_mut();
        let Some(frames) = frames.as_mut() else { return true };
        let is_fine = frames.take(bytes, Instant::now());
        if !is_fine {
            self.flooded();
        }
        is_fine
    }

    /// A piece of a response body of so many bytes was handed over.
    pub(crate) fn sends(&self, bytes: u64) {
        if let Some(frames) = self.frames.borrow_mut().as_mut() {
            frames.sends(bytes);
        }
    }

    /// Counts a connection that `h2` has ended because of its load.
    pub(super) fn failed(&self, error: &hyper::Error) {
        let reason = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        if reason.and_then(h2::Error::reason) == Some(h2::Reason::ENHANCE_YOUR_CALM) {
            self.flooded();
        }
    }

    fn flooded(&self) {
        metrics::REJECTED.with(["h2_flood"]).inc();
        if self.worker.flood_event.borrow_mut().is_due(Instant::now()) {
            let peer =
                self.peer.borrow().client.map_or_else(|| "unix".to_owned(), |ip| ip.to_string());
            let fields = [("peer", peer.as_str())];
            self.worker.event(Level::Warn, "a client floods its HTTP/2 connection", &fields);
        }
    }
}

//! Every deadline of a connection, looked at together: one coarse timer is enough for all of them.

use std::time::Duration;

use tokio::time::Instant;

use super::Connection;
use crate::metrics;

/// What the clock says about a connection.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Due {
    /// Nothing before then.
    At(Instant),
    /// Something was marked expired: poll everything, then ask again.
    Again,
    /// Idle for too long: close it, with a goodbye where the protocol has one.
    Idle,
    /// Close it now.
    Cut,
}

/// Reading on behind the last answer.
#[derive(Copy, Clone)]
pub(super) struct Lingering {
    pub(super) since: Instant,
    pub(super) last_byte: Instant,
}

/// How late a deadline may be noticed.
const COARSE: Duration = Duration::from_millis(100);
const LINGER_QUIET: Duration = Duration::from_secs(2);
const LINGER_TOTAL: Duration = Duration::from_secs(10);

impl Connection {
    /// Looks at every deadline of the connection. Marks what has expired.
    pub(super) fn due(&self, now: Instant) -> Due {
        self.attention.set(false);
        if self.worker.is_forced.get() {
            return Due::Cut;
        }
        let mut nearest = now + self.shortest();
        if let Some(Lingering { since, last_byte }) = self.lingering.get() {
            let end = (since + LINGER_TOTAL).min(last_byte + LINGER_QUIET);
            return if end <= now { Due::Cut } else { Due::At(end) };
        }
        for running in self.open.borrow().iter() {
            match running.deadline(now) {
                Some((deadline, late)) if deadline <= now => {
                    running.expire(late);
                    return Due::Again;
                }
                Some((deadline, _)) => nearest = nearest.min(deadline),
                None => {}
            }
        }
        match self.stalls(now) {
            Some(end) if end <= now => return self.stalled(),
            Some(end) => nearest = nearest.min(end),
            None => {}
        }
        if self.open.borrow().is_empty() && !self.unsent.is_waiting() {
            let (end, expired) = self.silence();
            if end <= now {
                return self.silent(expired);
            }
            nearest = nearest.min(end);
        }
        Due::At(nearest)
    }

    /// When the client must have taken something; `None` when nothing waits for it.
    fn stalls(&self, now: Instant) -> Option<Instant> {
        let timeout = self.worker.config.write_timeout;
        let unsent = self.unsent.deadline(now, timeout);
        let open = self.open.borrow();
        // One paused stream beside living ones is the client's right, also when those are short; all of them paused, and
        // nothing asked for meanwhile, is a stall.
        let streams = open
            .iter()
            .map(|running| running.waits_for_client().filter(|_| running.is_stream()))
            .collect::<Option<Vec<_>>>()
            .and_then(|since| since.into_iter().max())
            .map(|since| since.max(self.idle_since.get()) + timeout);
        unsent.into_iter().chain(streams).min()
    }

    fn stalled(&self) -> Due {
        metrics::TIMEOUTS.with(["write"]).inc();
        for running in self.open.borrow().iter() {
            running.times_out();
        }
        // What the kernel still holds is thrown away: the client does not want it.
        self.is_aborted.set(true);
        Due::Cut
    }

    /// What the client owes while no request is open, and until when.
    fn silence(&self) -> (Instant, Owed) {
        let config = &self.worker.config;
        let idle_end = |since| self.worker.draining.get().map(|draining| draining.idle_end(since));
        match self.head_since.get() {
            Some(since) if self.has_head_byte.get() => {
                (since + config.header_timeout, Owed::RestOfHead)
            }
            Some(since) => {
                let end = self.opening.get().unwrap_or(since + config.header_timeout);
                (idle_end(since).map_or(end, |drain| drain.min(end)), Owed::Head)
            }
            None if self.is_evicted.get() => (self.idle_since.get(), Owed::Nothing),
            None => match idle_end(self.idle_since.get()) {
                Some(end) => (end, Owed::Nothing),
                None => (self.idle_since.get() + config.keepalive, Owed::Request),
            },
        }
    }

    fn silent(&self, owed: Owed) -> Due {
        if !self.is_late.replace(true) {
            match owed {
                Owed::Head | Owed::RestOfHead => metrics::TIMEOUTS.with(["header"]).inc(),
                Owed::Request => metrics::TIMEOUTS.with(["idle"]).inc(),
                Owed::Nothing => {}
            }
            if owed == Owed::RestOfHead {
                self.is_head_late.set(true);
                return Due::Again;
            }
        }
        // A refusal that cannot be written does not hold the connection up.
        if owed == Owed::RestOfHead { Due::Cut } else { Due::Idle }
    }

    /// The timer is never set further than this, so that a deadline which starts later cannot be missed:
    /// a request on a busy connection then needs no timer of its own.
    pub(super) fn shortest(&self) -> Duration {
        let config = &self.worker.config;
        let shortest = config.header_timeout.min(config.keepalive);
        let shortest = shortest.min(config.body_timeout).min(config.write_timeout);
        // Not nothing: a timer that is always due would never let the task rest.
        shortest.min(config.request_timeout.unwrap_or(Duration::MAX)).max(COARSE)
    }
}

/// What a silent client is late with.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Owed {
    Head,
    RestOfHead,
    Request,
    /// Its connection is only kept for the case that it asks once more before the drain ends.
    Nothing,
}

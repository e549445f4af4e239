//! Who of a server's workers has how many connections: one that is ahead lets the others go first.
//!
//! The kernel wakes one worker for each connection that comes, and goes round. But who is awake already takes the next one
//! too, and who is woken has to wait for a processor: of clients that connect all at once and stay, one worker can get all.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use saola_observability::Common;
use saola_observability::clock::monotonic_ns;

/// The connections of all workers of a server. Made before the fork: copies of it are of the same memory.
#[derive(Clone, Debug)]
pub struct Balance(Arc<Common>);

/// Workers in slots beyond these are as ready to accept as if they were alone.
const SLOTS: usize = 256;
/// A worker's words stand in a cache line of their own.
const WORDS: usize = 8;
const CONNECTIONS: usize = 0;
const WAITS: usize = 1;
const SEEN: usize = 2;

/// A worker that waits for a connection says so that often, or it is taken for dead.
const WAITING_NS: u64 = 250_000_000;
/// One that has just taken a connection, or lets others go first, waits for the next one within this time, or its loop hangs.
const BUSY_NS: u64 = 10_000_000;
/// So many connections more are chance; it would cost more to even them out.
const CLEARLY: u64 = 3;
/// How long a worker that is ahead leaves the queue to the others before it looks again.
pub(super) const HOLD: Duration = Duration::from_millis(1);
/// How often it does so for one connection: enough for another worker to be given a processor.
pub(super) const MOST_HOLDS: u32 = 8;

impl Balance {
    /// Makes one for a server that is about to fork its workers.
    ///
    /// # Errors
    ///
    /// What the kernel says when it gives no memory or no descriptor.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Common::new(SLOTS * WORDS)?)))
    }

    /// The part of a worker that begins in a slot; none for one beyond those that are balanced.
    pub(crate) fn part(&self, slot: u32) -> Option<Part> {
        let part = Part { balance: self.clone(), slot: usize::try_from(slot).ok()? };
        // What a dead owner of the slot has left.
        part.own()?.iter().for_each(|word| word.store(0, Relaxed));
        Some(part)
    }

    fn slots(&self) -> &[[AtomicU64; WORDS]] {
        self.0.words().as_chunks().0
    }
}

/// What one worker adds.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    balance: Balance,
    slot: usize,
}

impl Part {
    fn own(&self) -> Option<&[AtomicU64; WORDS]> {
        self.balance.slots().get(self.slot)
    }

    /// It waits for a connection, or does not; to be said again while it does.
    pub(super) fn waits(&self, waits: bool) {
        if let Some(own) = self.own() {
            own[SEEN].store(monotonic_ns(), Relaxed);
            own[WAITS].store(waits.into(), Relaxed);
        }
    }

    /// Counts a connection until it is dropped.
    pub(super) fn count(&self) -> Counted {
        if let Some(own) = self.own() {
            own[CONNECTIONS].fetch_add(1, Relaxed);
        }
        Counted(self.clone())
    }

    /// Says whether another worker, which could take the next connection, has clearly fewer.
    pub(super) fn is_ahead(&self) -> bool {
        let own = self.own().map_or(0, |own| own[CONNECTIONS].load(Relaxed));
        let now = monotonic_ns();
        self.balance.slots().iter().any(|other| {
            let [theirs, waits, seen] =
                [CONNECTIONS, WAITS, SEEN].map(|word| other[word].load(Relaxed));
            let fresh = if waits == 0 { BUSY_NS } else { WAITING_NS };
            let is_there = seen != 0 && now.saturating_sub(seen) < fresh;
            is_there && own > theirs.saturating_add(theirs / 8).saturating_add(CLEARLY)
        })
    }
}

/// One connection of a worker.
#[derive(Debug)]
pub(crate) struct Counted(Part);

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(own) = self.0.own() {
            own[CONNECTIONS].fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_ahead_of_one_that_waits_and_has_clearly_fewer() {
        let balance = Balance::new().unwrap();
        let [one, other] = [0, 7].map(|slot| balance.part(slot).unwrap());
        let mut connections = vec![one.count(), one.count(), one.count()];
        assert!(!one.is_ahead(), "nobody else is there");
        other.waits(true);
        assert!(!one.is_ahead(), "three more are none too many");
        connections.push(one.count());
        assert!(one.is_ahead() && !other.is_ahead());
        connections.pop();
        assert!(!one.is_ahead());
        connections.extend([(); 33].map(|()| one.count()));
        let theirs = [(); 30].map(|()| other.count());
        assert!(!one.is_ahead(), "36 against 30 is even enough");
        connections.push(one.count());
        assert!(one.is_ahead());
        drop(theirs);
    }

    #[test]
    fn a_worker_that_died_is_not_waited_for() {
        let balance = Balance::new().unwrap();
        let [one, dead] = [0, 1].map(|slot| balance.part(slot).unwrap());
        let _connections = [(); 9].map(|()| one.count());
        for (waits, fresh) in [(true, WAITING_NS), (false, BUSY_NS)] {
            dead.waits(waits);
            assert!(one.is_ahead(), "it was there a moment ago");
            let long_ago = monotonic_ns().saturating_sub(fresh).max(1);
            dead.own().unwrap()[SEEN].store(long_ago, Relaxed);
            assert!(!one.is_ahead());
        }
        dead.own().unwrap()[CONNECTIONS].store(3, Relaxed);
        let successor = balance.part(1).unwrap();
        assert_eq!(successor.own().unwrap()[CONNECTIONS].load(Relaxed), 0);
        assert!(balance.part(256).is_none(), "beyond those that are balanced");
    }
}

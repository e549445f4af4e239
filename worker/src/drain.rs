//! What a worker can be told, and how far it has gone towards its end. Only forward.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::accept::Listener;

/// An order to a worker.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Order {
    /// Another worker takes over: stop accepting at once and go on answering as a lame duck.
    Handover {
        /// How long requests may still run.
        deadline: Duration,
        /// Connections idle for this long in a row are closed.
        idle: Duration,
    },
    /// The server stops: empty the accept queue, answer all of it, then go.
    Stop {
        /// How long requests may still run.
        deadline: Duration,
    },
    /// Leave within a second.
    Quit,
    /// Stop accepting; open connections go on.
    Pause,
    /// Accept again.
    Resume,
}

/// Where a worker hears its orders. The other end is the [`Orders`] of [`Shutdown::channel`].
#[derive(Debug)]
pub struct Shutdown(pub(crate) mpsc::UnboundedReceiver<Told>);

/// Gives orders to a worker.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::UnboundedSender<Told>);

/// What a worker hears.
#[derive(Debug)]
pub(crate) enum Told {
    Order(Order),
    /// Nobody accepts from this socket any more: take what waits there, and close it.
    Empty(Listener),
}

impl Shutdown {
    /// Makes the two ends.
    pub fn channel() -> (Orders, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Orders(sender), Self(receiver))
    }
}

impl Orders {
    /// Gives an order. A worker that has ended does not hear it.
    pub fn give(&self, order: Order) {
        // Nobody left to obey is what every order but the first wants.
        let _ = self.0.send(Told::Order(order));
    }

    /// Has the worker serve what waits in the queue of a socket that nobody accepts from any more, and then close it.
    pub fn empty(&self, listener: Listener) {
        // One that has ended closes it, and its clients with it.
        let _ = self.0.send(Told::Empty(listener));
    }
}

/// How a worker's service ended.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Drained {
    /// Requests answered since the drain began.
    pub answered: u64,
    /// Connections cut at the deadline.
    pub forced: u64,
    /// From the order to the end.
    pub elapsed: Duration,
}

/// A drain in progress.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Draining {
    pub(crate) stage: Stage,
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    idle: Duration,
}

/// In the order in which they may follow each other.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug)]
pub(crate) enum Stage {
    Handover,
    Stop,
    Quick,
}

impl Draining {
    /// What an order makes of the drain; `None` when it changes nothing.
    pub(crate) fn next(present: Option<Self>, order: Order, now: Instant) -> Option<Self> {
        let (stage, deadline, idle) = match order {
            Order::Handover { deadline, idle } => (Stage::Handover, deadline, idle),
            // Nobody could serve the retry of a client that races the close, so there is little to wait for.
            Order::Stop { deadline } => (Stage::Stop, deadline, Duration::from_millis(250)),
            Order::Quit => (Stage::Quick, Duration::from_secs(1), Duration::ZERO),
            Order::Pause | Order::Resume => return None,
        };
        if present.is_some_and(|present| present.stage >= stage) {
            return None;
        }
        let deadline =
            present.map_or(now + deadline, |present| present.deadline.min(now + deadline));
        Some(Self { stage, since: present.map_or(now, |present| present.since), deadline, idle })
    }

    /// When a connection that has been idle since then is closed.
    pub(crate) fn idle_end(&self, idle_since: Instant) -> Instant {
        let end = idle_since.max(self.since) + self.idle;
        let last =
            self.deadline.checked_sub(Duration::from_secs(1)).unwrap_or(self.since).max(self.since);
        end.min(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_drain_only_goes_forward_and_its_deadline_only_nearer() {
        let now = Instant::now();
        let stop = Draining::next(None, Order::Stop { deadline: LONG }, now).unwrap();
        assert!(
            Draining::next(Some(stop), Order::Handover { deadline: LONG, idle: LONG }, now)
                .is_none()
        );
        assert!(Draining::next(Some(stop), Order::Stop { deadline: LONG }, now).is_none());
        let quick = Draining::next(Some(stop), Order::Quit, now + LONG / 2).unwrap();
        assert_eq!((quick.since, quick.deadline), (now, now + LONG / 2 + Duration::from_secs(1)));
        assert!(Draining::next(None, Order::Pause, now).is_none());
    }

    #[test]
    fn idle_connections_go_a_second_before_the_deadline_at_the_latest() {
        let now = Instant::now();
        let drain =
            Draining::next(None, Order::Handover { deadline: LONG, idle: LONG * 2 }, now).unwrap();
        assert_eq!(drain.idle_end(now), now + Duration::from_secs(29));
        let drain = Draining::next(None, Order::Stop { deadline: LONG }, now).unwrap();
        assert_eq!(
            drain.idle_end(now - LONG.min(Duration::from_millis(1))),
            now + Duration::from_millis(250)
        );
    }
}

//! A part of a connection's life under the timer of its deadlines.

use std::future::Future;
use std::hint::cold_path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::Connection;
use super::deadlines::Due;
use crate::clock::TICK;

/// A part of a connection's life that the clock can cut short.
pub(super) trait Stage {
    type Output;
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output>;
    /// Begins a graceful end; says whether the protocol has one, and it has not been said before.
    fn goodbye(&mut self) -> bool {
        false
    }
}

/// Runs a stage under the connection's deadlines; `None` when they cut it.
pub(super) fn drive<S: Stage>(connection: &Rc<Connection>, stage: S) -> Drive<S> {
    connection.attention.set(true);
    Drive {
        connection: Rc::clone(connection),
        stage,
        timer: tokio::time::sleep_until(Instant::now() + connection.shortest()),
        is_armed: false,
        look: None,
        has_looked: false,
        cut_at: None,
    }
}

pin_project_lite::pin_project! {
    /// The future of [`drive`]. As an `async fn` it would keep its stage twice: as it came, and as it is changed.
    pub(super) struct Drive<S> {
        connection: Rc<Connection>,
        stage: S,
        #[pin]
        timer: Sleep,
        is_armed: bool,
        // The runtime learns what has arrived when it looks. A connection whose first turn comes late, because the machine
        // is full, is idle only if it still is after that look.
        look: Option<Pin<Box<dyn Future<Output = ()>>>>,
        has_looked: bool,
        // An HTTP/2 client gets a second to answer the goodbye.
        cut_at: Option<Instant>,
    }
}

impl<S: Stage> Future for Drive<S> {
    type Output = Option<S::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (connection, stage) = (&**this.connection, this.stage);
        connection.remember(cx);
        loop {
            connection.ended_at.set(None);
            if let Poll::Ready(output) = stage.poll(cx) {
                return Poll::Ready(Some(output));
            }
            if !connection.attention.get() {
                // A request that has just ended has looked at the clock: an armed timer need not be asked.
                let is_early = |now| now + TICK < this.timer.deadline();
                if (*this.is_armed && connection.ended_at.get().is_some_and(is_early))
                    || this.timer.as_mut().poll(cx).is_pending()
                {
                    *this.is_armed = true;
                    return Poll::Pending;
                }
            }
            cold_path();
            *this.is_armed = false;
            if connection.worker.is_draining() && stage.goodbye() {
                connection.attention.set(true);
                continue;
            }
            let now = Instant::now();
            match connection.due(now) {
                Due::Cut => return Poll::Ready(None),
                Due::Idle if !*this.has_looked => {
                    // The timer may be far: this verdict came of an order.
                    connection.attention.set(true);
                    let look = this.look.get_or_insert_with(|| Box::pin(tokio::task::yield_now()));
                    ready!(look.as_mut().poll(cx));
                    *this.has_looked = true;
                    continue;
                }
                Due::Idle if this.cut_at.is_none() && stage.goodbye() => {
                    *this.cut_at = Some(now + GOODBYE);
                }
                Due::Idle if this.cut_at.is_none_or(|at| at <= now) => {
                    connection.is_orderly.set(true);
                    return Poll::Ready(None);
                }
                Due::Idle => {}
                Due::Again => continue,
                Due::At(next) => {
                    rearm(this.timer.as_mut(), next);
                    continue;
                }
            }
            rearm(this.timer.as_mut(), this.cut_at.unwrap_or(now));
        }
    }
}

const GOODBYE: Duration = Duration::from_secs(1);

fn rearm(timer: Pin<&mut Sleep>, at: Instant) {
    if timer.deadline() != at || timer.is_elapsed() {
        timer.reset(at);
    }
}

impl Connection {
    pub(super) fn remember(&self, cx: &Context<'_>) {
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(cx.waker())) {
            *kept = Some(cx.waker().clone());
        }
    }
}

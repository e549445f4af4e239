//! When a request is late, by whose fault, and what is answered then.

use std::time::Duration;

use saola_observability::closed::Outcome;
use tokio::time::Instant;

use super::answer::Refusal;
use super::scope::{Running, Waiting};
use crate::metrics;

/// Who is late.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Late {
    /// The client, with its request body.
    Body,
    /// The service, with being ready for the request.
    Service,
    /// The service, with the response head.
    Handler,
}

/// A response that was begun and cannot be finished, because its request never was.
#[derive(Debug, thiserror::Error)]
#[error("the request body did not arrive in time")]
pub(crate) struct CutShort;

/// How long a service may say that it is not ready.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

impl Running {
    /// What is due next, and who is late if it passes.
    pub(crate) fn deadline(&self, now: Instant) -> Option<(Instant, Late)> {
        if self.expired.get().is_some() {
            return None;
        }
        let reading = self.reading.as_deref();
        let config = &self.worker.config;
        let body = reading
            .and_then(|reading| reading.deadline(now, config))
            .map(|deadline| (deadline, Late::Body));
        let start = self.facts.start;
        let service = match self.waiting.get() {
            Waiting::Nothing => None,
            Waiting::Service => Some((start + READY_TIMEOUT, Late::Service)),
            // It waits for the client, so the client's deadline is the one that runs.
            Waiting::Response if reading.is_some_and(super::reading::Reading::is_waiting) => None,
            Waiting::Response => config.request_timeout.map(|timeout| {
                let last = reading.map_or(start, super::reading::Reading::last);
                (last.max(start) + timeout, Late::Handler)
            }),
        };
        body.into_iter().chain(service).min_by_key(|(deadline, _)| *deadline)
    }

    /// Has the scope, or the response body, look at its deadline.
    pub(crate) fn expire(&self, late: Late) {
        self.expired.set(Some(late));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The answer to a request that is late before it has one.
    pub(super) fn refuses_late(&self, late: Late) -> &'static Refusal {
        let refusal = match late {
            Late::Service => return Refusal::OVERLOAD,
            Late::Handler => Refusal::TIMEOUT,
            Late::Body => Refusal::BODY_TIMEOUT,
        };
        metrics::TIMEOUTS.with([if late == Late::Body { "body" } else { "handler" }]).inc();
        self.times_out();
        refusal
    }

    pub(super) fn cut_short(&self) -> CutShort {
        metrics::TIMEOUTS.with(["body"]).inc();
        self.times_out();
        CutShort
    }

    /// The record will say that a deadline ended the request.
    pub(crate) fn times_out(&self) {
        self.outcome.set(Some(Outcome::Timeout));
        self.exception.set(Some("timeout"));
    }
}

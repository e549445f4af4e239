//! The exporter: takes batches from the queue and sends them, one call at a time, and never longer than it may.

use std::cell::RefCell;
use std::future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use saola_observability::closed::Level;
use saola_observability::record::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep_until, timeout};

use super::Tally;
use super::batch::Envelope;
use super::client::{Client, Taken};
use super::queue::{Queue, Waiting};
use super::retry::{Failure, random_to};
use super::settings::OtlpSettings;
use crate::bridge;
use crate::environment::without_user;
use crate::lost::LostSpans;
use crate::voice::{Reminder, Voice};

/// Sends what is in the queue until it is told to stop.
pub(crate) struct Exporter {
    pub(super) client: Client,
    pub(super) envelope: Envelope,
    pub(crate) settings: OtlpSettings,
    pub(crate) queue: Rc<RefCell<Queue>>,
    pub(crate) arrived: Rc<Notify>,
    pub(crate) tally: Rc<Tally>,
    pub(crate) voice: Voice,
    /// Set once nothing more is produced: by when all must be sent.
    pub(crate) stop: watch::Receiver<Option<Instant>>,
    /// The first pause after a failed call; the others are in proportion. 1 s but for tests.
    pub(crate) pause: Duration,
    pub(crate) outage: Option<Outage>,
}

/// A time in which calls fail.
#[derive(Debug)]
pub(crate) struct Outage {
    failures: usize,
    not_before: Instant,
    dropped_before: u64,
    reminder: Reminder,
}

/// What became of one call.
enum Answer {
    /// The collector has it, all but `rejected` spans.
    Taken { rejected: u64 },
    /// Sending it again is of no use.
    Refused(String),
    /// Worth another try.
    Failed(String),
    /// The deadline of the stop passed.
    GivenUp,
}

impl Exporter {
    pub(crate) async fn run(mut self) {
        loop {
            let is_stopping = self.wait_for_batch().await;
            let expired = self.queue.borrow_mut().expire(Instant::now());
            self.tally.lose(LostSpans::Expired, expired);
            let batch = self.queue.borrow_mut().take(self.settings.max_export_batch_size.get());
            if batch.is_empty() && is_stopping {
                return;
            }
            if !batch.is_empty() && !self.send(batch).await && is_stopping {
                break;
            }
        }
        let left = self.queue.borrow_mut().clear();
        self.tally.lose(LostSpans::Shutdown, left);
    }

    /// Sends one batch; false if it is to be sent again.
    async fn send(&mut self, batch: Vec<Waiting>) -> bool {
        let count = batch.len();
        let dropped_before = self.tally.dropped_in_all();
        let answer = self.call(&batch).await;
        let error = match answer {
            Answer::Taken { rejected } => {
                let rejected = usize::try_from(rejected).unwrap_or(count).min(count);
                self.queue.borrow_mut().settle();
                self.tally.export(count - rejected);
                self.tally.lose(LostSpans::Rejected, rejected);
                self.recovered();
                return true;
            }
            Answer::Refused(error) => {
                self.queue.borrow_mut().settle();
                self.tally.lose(LostSpans::Rejected, count);
                self.failed(error, Duration::ZERO, dropped_before);
                return true;
            }
            Answer::Failed(error) => error,
            Answer::GivenUp => "stopped".to_owned(),
        };
        let pushed_out = self.queue.borrow_mut().put_back(batch);
        self.tally.lose(LostSpans::Queue, pushed_out);
        let failures = self.outage.as_ref().map_or(0, |outage| outage.failures);
        self.failed(
            error,
            jittered(self.pause * PAUSES[failures.min(PAUSES.len() - 1)]),
            dropped_before,
        );
        false
    }

    async fn call(&self, batch: &[Waiting]) -> Answer {
        let batch = self.envelope.close(batch.iter().map(|waiting| &*waiting.span));
        let sent = self.client.send(batch, self.settings.timeout);
        // No attempt begins after the timeout, but one may end long after it.
        let limited = timeout(self.settings.export_timeout, sent);
        let result = tokio::select! {
            result = limited => result,
            () = deadline(self.stop.clone()) => return Answer::GivenUp,
        };
        match result {
            Ok(Ok(taken)) => Answer::Taken { rejected: hear(&taken) },
            Ok(Err(Failure { is_final: true, error })) => Answer::Refused(error),
            Ok(Err(Failure { is_final: false, error })) => Answer::Failed(error),
            Err(_) => {
                Answer::Failed(format!("no answer within {:?}", self.settings.export_timeout))
            }
        }
    }

    /// Returns when a batch is full or has waited long enough, and no pause is on; true when stopping.
    async fn wait_for_batch(&mut self) -> bool {
        loop {
            if self.stop.borrow().is_some() {
                return true;
            }
            let due = self.due();
            if due.is_some_and(|due| due <= Instant::now()) {
                return false;
            }
            let timer = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                () = self.arrived.notified() => {}
                changed = self.stop.changed() => {
                    if changed.is_err() {
                        return true;
                    }
                }
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let queue = self.queue.borrow();
        let is_full = queue.len() >= self.settings.max_export_batch_size.get();
        let wait = if is_full { Duration::ZERO } else { self.settings.schedule_delay };
        let due = queue.oldest()? + wait;
        Some(self.outage.as_ref().map_or(due, |outage| due.max(outage.not_before)))
    }

    fn failed(&mut self, error: String, pause: Duration, dropped_before: u64) {
        let now = Instant::now();
        let outage = self.outage.get_or_insert_with(|| Outage {
            failures: 0,
            not_before: now,
            dropped_before,
            reminder: Reminder::default(),
        });
        outage.failures += 1;
        outage.not_before = now + pause;
        if outage.reminder.is_due(now, REMIND_EVERY) {
            let error = error.split_at(error.floor_char_boundary(ERROR_BYTES)).0;
            let queued = u64::try_from(self.queue.borrow().len()).unwrap_or(u64::MAX);
            let fields = [
                ("endpoint", Value::Str(&without_user(&self.settings.endpoint))),
                ("error", Value::Str(error)),
                ("queued", Value::U64(queued)),
            ];
            self.voice.say(Level::Warn, "trace export failed", &fields);
        }
        self.tally.remember_error(error);
    }

    fn recovered(&mut self) {
        if let Some(outage) = self.outage.take() {
            let dropped = self.tally.dropped_in_all() - outage.dropped_before;
            let fields = [
                ("endpoint", Value::Str(&without_user(&self.settings.endpoint))),
                ("dropped", Value::U64(dropped)),
            ];
            self.voice.say(Level::Info, "trace export works again", &fields);
        }
    }
}

/// How many spans a collector refused while it took the others. What it says about that stands nowhere else.
fn hear(taken: &Taken) -> u64 {
    if let Some(words) = taken.words() {
        bridge::hear(Level::Warn, "collector", words);
    }
    taken.rejected()
}

/// Pends until a stop was ordered and its deadline has passed.
async fn deadline(mut stop: watch::Receiver<Option<Instant>>) {
    let by = stop.wait_for(Option::is_some).await.ok().and_then(|by| *by);
    match by {
        Some(by) => sleep_until(by.into()).await,
        // The sender is gone without an order: nothing is left to wait for.
        None => future::pending().await,
    }
}

/// Plus or minus a fifth, so that many servers do not come back at once.
fn jittered(pause: Duration) -> Duration {
    pause * (800 + random_to(400)) / 1_000
}

const PAUSES: [u32; 5] = [1, 2, 5, 10, 30];
const REMIND_EVERY: Duration = Duration::from_mins(1);
const ERROR_BYTES: usize = 256;

#[cfg(test)]
mod tests;

//! How often the observer looks at the rings: at once while they fill, now and then while little comes, and not at all
//! while the server is idle. A thread then waits for the workers' bell, so that nobody looks twenty times a second.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use saola_observability::rings::Alarm;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::reader::Found;

/// When to look again.
pub(crate) struct Rhythm {
    pause: Duration,
    quiet_since: Instant,
    /// Without a thread the observer looks again and again.
    sleeper: Option<Sleeper>,
}

impl Rhythm {
    pub(crate) fn start() -> Self {
        let sleeper = Sleeper::start(|alarm| {
            alarm.wait(LONGEST_SLEEP);
        });
        Self { pause: SHORTEST_PAUSE, quiet_since: Instant::now(), sleeper: sleeper.ok() }
    }

    /// What the last look has found.
    pub(crate) fn note(&mut self, found: Found) {
        self.pause = match found {
            Found::Plenty => Duration::ZERO,
            // A pass costs something however little it finds, and a ring holds far more than comes in this time.
            Found::Some => (self.pause * 2).clamp(SHORTEST_PAUSE, BUSY_PAUSE),
            Found::Nothing => (self.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE),
        };
        if found != Found::Nothing {
            self.quiet_since = Instant::now();
        }
    }

    /// Something else is to be done soon.
    pub(crate) fn restart(&mut self) {
        self.pause = SHORTEST_PAUSE;
    }

    /// Until the next look. `alarm_if_idle` says whether nobody serves, once it is quiet.
    pub(crate) async fn rest(&mut self, alarm_if_idle: impl FnOnce() -> Option<Alarm>) {
        let sleeper = self.sleeper.as_ref().filter(|_| self.quiet_since.elapsed() >= QUIET);
        match sleeper.and_then(|sleeper| Some((sleeper, alarm_if_idle()?))) {
            Some((sleeper, alarm)) => {
                if !sleeper.sleep(alarm).await {
                    self.sleeper = None;
                }
            }
            None if self.pause.is_zero() => yield_now().await,
            None => tokio::time::sleep(self.pause).await,
        }
    }
}

/// The thread that waits for the bell.
struct Sleeper {
    alarms: SyncSender<Alarm>,
    woken: Arc<Notify>,
}

impl Sleeper {
    #[expect(clippy::disallowed_methods, reason = "the observer never forks")]
    fn start(wait: impl Fn(&Alarm) + Send + 'static) -> io::Result<Self> {
        let (alarms, waiting) = sync_channel::<Alarm>(1);
        let woken = Arc::new(Notify::new());
        let wake = Arc::clone(&woken);
        thread::Builder::new().name("saola-bell".to_owned()).spawn(move || {
            for alarm in waiting {
                wait(&alarm);
                drop(alarm);
                wake.notify_one();
            }
        })?;
        Ok(Self { alarms, woken })
    }

    /// Returns when a worker rings or the longest sleep is over; false if the thread has died meanwhile (O11).
    async fn sleep(&self, alarm: Alarm) -> bool {
        // Full: sleeps that were cut short still wait, for the same bell. Their end is as good.
        let sent = self.alarms.try_send(alarm);
        let is_dead = matches!(sent, Err(TrySendError::Disconnected(_)));
        !is_dead && timeout(2 * LONGEST_SLEEP, self.woken.notified()).await.is_ok()
    }
}

pub(crate) const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const BUSY_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// After so long without a record the observer sleeps.
const QUIET: Duration = Duration::from_secs(1);
/// What nobody rings for (events outside requests, the supervisor's words) waits no longer than this.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use saola_observability::rings::Rings;
    use saola_observability::{Choice, Epoch, RunDir};

    use super::*;

    #[test]
    fn without_the_thread_of_the_bell_the_observer_looks_by_itself() {
        let place = tempfile::tempdir().unwrap();
        let given = Some(place.path().join("run"));
        let mut chosen = RunDir::choose(&Choice { given, ..Choice::default() }).unwrap();
        chosen.dir.lock("test").unwrap();
        Epoch::create(&chosen.dir, chosen.shape).unwrap().publish().unwrap();
        let rings = Rings::open(chosen.dir.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        // It dies while it waits, or was dead when the observer wanted to sleep.
        for looks_first in [false, true] {
            let sleeper = Sleeper::start(|_| panic!("a panic on purpose")).unwrap();
            let mut rhythm = Rhythm { sleeper: Some(sleeper), ..Rhythm::start() };
            rhythm.quiet_since -= QUIET;
            if looks_first {
                let alarms = &rhythm.sleeper.as_ref().unwrap().alarms;
                while alarms.send(rings.alarm().unwrap()).is_ok() {}
            }
            let asked = std::cell::Cell::new(0);
            let alarm = || {
                asked.set(asked.get() + 1);
                rings.alarm()
            };
            runtime.block_on(async {
                for _ in 0..3 {
                    let rest = timeout(Duration::from_secs(10), rhythm.rest(alarm));
                    rest.await.expect("it looks again");
                }
            });
            assert_eq!(asked.get(), 1, "who cannot be woken does not go to sleep");
        }
    }
}

//! The tick of the event loop: that it turns, how late it is, and how busy.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use saola_observability::clock::monotonic_ns;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::heap::Questions;
use crate::worker::Worker;

/// What the acceptor's thread knows of the loop.
#[derive(Clone, Debug)]
pub(crate) struct Beat(Arc<Facts>);

#[derive(Debug)]
struct Facts {
    /// When it last turned.
    at_ns: AtomicU64,
    /// It has nothing to do, and sleeps.
    is_idle: AtomicBool,
}

const TICK: Duration = Duration::from_millis(100);
const STALE_NS: u64 = 250_000_000;
/// Ticks over which lag and load are judged: a second's.
const WINDOW: usize = 10;

impl Beat {
    pub(crate) fn new() -> Self {
        let at_ns = AtomicU64::new(monotonic_ns());
        Self(Arc::new(Facts { at_ns, is_idle: AtomicBool::new(false) }))
    }

    /// Says whether the loop has turned lately.
    pub(crate) fn is_live(&self) -> bool {
        monotonic_ns().saturating_sub(self.0.at_ns.load(Ordering::Relaxed)) < STALE_NS
    }

    /// Says whether the loop sleeps: then it will serve whoever speaks at once.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.is_idle.load(Ordering::Relaxed)
    }

    pub(crate) fn set_idle(&self, is_idle: bool) {
        self.0.is_idle.store(is_idle, Ordering::Relaxed);
    }

    fn beat(&self, now_ns: u64) {
        self.0.at_ns.store(now_ns, Ordering::Relaxed);
    }
}

/// Ticks until dropped.
pub(crate) async fn beat(worker: Rc<Worker>, beat: Beat) {
    let runtime = tokio::runtime::Handle::current().metrics();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lags = [0_u64; WINDOW];
    let mut at = 0;
    let mut due = Instant::now();
    let mut was_used_up = false;
    let mut questions = Questions::new(worker.slot, worker.config.heap_file.clone());
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let lag = u64::try_from(now.saturating_duration_since(due).as_nanos()).unwrap_or(u64::MAX);
        due = now + TICK;
        if let Some(place) = lags.get_mut(at) {
            *place = lag;
        }
        at = (at + 1) % WINDOW;
        let now_ns = monotonic_ns();
        beat.beat(now_ns);
        worker.clock.compare();
        let liveness = worker.slot.liveness();
        liveness.beat(now_ns);
        liveness.set_loop_lag_ns(lags.iter().copied().max().unwrap_or(0));
        let busy = runtime.worker_total_busy_duration(0);
        liveness.set_loop_busy_ns(u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX));
        let is_used_up = worker.permits.is_used_up();
        if is_used_up && was_used_up {
            worker.close_longest_idle();
        }
        was_used_up = is_used_up;
        questions.look();
        let open = u64::try_from(worker.open_connections()).unwrap_or(u64::MAX);
        liveness.set_connections(open, u64::try_from(worker.permits.limit()).unwrap_or(u64::MAX));
    }
}

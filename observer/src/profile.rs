//! Profiles: the samples of all workers, folded by stack, for a profile server and for whoever asks the admin listener.
//!
//! Folding is done where the rings are read; names are looked up elsewhere, by whoever takes a window away. Which samples
//! carry the ids of their request is known only when the request has ended (O60), so a window keeps spans apart until then.

mod flame;
mod heap;
mod poor;
mod pprof;
mod push;
mod symbols;
mod window;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use saola_observability::samples::Sample;
use saola_observability::{SpanId, clock};

pub(crate) use flame::{collapsed, svg};
pub(crate) use heap::Heap;
use poor::Depths;
pub(crate) use poor::{Poor, is_stripped};
pub(crate) use pprof::{Pprof, gzip};
pub use push::ProfileSettings;
pub(crate) use push::{Push, Witness};
pub(crate) use symbols::{Frame, Symbols};
pub(crate) use window::Window;

use crate::lost::LostSamples;
use crate::metrics;

/// A window that several threads put into and take away.
pub(crate) type SharedWindow = Arc<Mutex<Window>>;

pub(crate) fn lock(window: &SharedWindow) -> MutexGuard<'_, Window> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the samples that are read go.
#[derive(Debug)]
pub(crate) struct Profiles {
    /// The image of this process: that of the workers, unless the server was upgraded.
    image: u64,
    /// What is pushed next; `None` without a profile server.
    push: Option<SharedWindow>,
    /// What the admin listener collects at the moment.
    asked: Option<Asked>,
    looked: Instant,
    depths: Depths,
}

/// A profile that somebody waits for.
#[derive(Debug)]
struct Asked {
    window: SharedWindow,
    worker: Option<u32>,
    end: Instant,
}

impl Profiles {
    pub(crate) fn new(image: u64, push: Option<SharedWindow>) -> Self {
        let depths = Depths::default();
        Self { image, push, asked: None, looked: Instant::now(), depths }
    }

    /// The program image whose addresses mean something here.
    pub(crate) fn image(&self) -> u64 {
        self.image
    }

    /// Takes a sample of a worker; `route` is that of its request.
    pub(crate) fn sample(&mut self, worker: u32, route: &str, sample: &Sample) {
        if sample.image != self.image {
            metrics::samples_dropped(LostSamples::Image, sample.weight.into());
            return;
        }
        metrics::samples(sample.weight.into());
        self.depths.add(sample.depth);
        if let Some(push) = &self.push {
            lock(push).add(worker, route, sample);
        }
        if let Some(asked) = &self.asked
            && asked.worker.is_none_or(|wanted| wanted == worker)
        {
            lock(&asked.window).add(worker, route, sample);
        }
    }

    /// Whether stacks turn out to end at once; true once, when enough are known.
    pub(crate) fn has_found_shallow_stacks(&mut self) -> bool {
        self.depths.are_shallow()
    }

    /// Samples that were overwritten before they were read.
    pub(crate) fn overwritten(count: u64) {
        metrics::samples_dropped(LostSamples::Lag, count);
    }

    /// A request ended whose trace is kept. Says whether samples leave with its ids: only then its span is to link to them.
    pub(crate) fn keep(&mut self, span: SpanId) -> bool {
        if let Some(asked) = &self.asked {
            lock(&asked.window).keep(span);
        }
        self.push.as_ref().is_some_and(|push| lock(push).keep(span))
    }

    /// Keeps the ids of requests that are still running and will be kept whatever happens; asks which once a second.
    pub(crate) fn keep_running(&mut self, sampled: impl FnOnce() -> HashSet<SpanId>) {
        let has_any = self.push.is_some() || self.asked.is_some();
        if has_any && self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            for span in sampled() {
                self.keep(span);
            }
        }
    }

    /// Begins to collect for somebody, until `end`.
    ///
    /// # Errors
    ///
    /// Somebody else is waiting, until then.
    pub(crate) fn ask(
        &mut self,
        worker: Option<u32>,
        end: Instant,
    ) -> Result<SharedWindow, Instant> {
        if let Some(asked) = &self.asked {
            return Err(asked.end);
        }
        let window = Arc::new(Mutex::new(Window::new(clock::wall_ns())));
        self.asked = Some(Asked { window: Arc::clone(&window), worker, end });
        Ok(window)
    }

    /// Nobody waits any more.
    pub(crate) fn forget_asked(&mut self) {
        self.asked = None;
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::window::tests::sample;
    use super::*;

    #[test]
    fn samples_of_another_image_are_in_no_profile() {
        let push = Arc::new(Mutex::new(Window::new(0)));
        let mut profiles = Profiles::new(1, Some(Arc::clone(&push)));
        let asked = profiles.ask(None, Instant::now() + LOOK_EVERY).unwrap();
        profiles.sample(0, "/", &Sample { image: 2, ..sample(1, &[10, 20], 4) });
        profiles.sample(0, "/", &sample(1, &[10, 20], 3));
        assert_eq!([push, asked].map(|window| lock(&window).weight()), [3, 3]);
    }
}

//! What is to be told of records that nobody will see: a ring was full, or could not be read.

use std::time::{Duration, Instant};

use saola_observability::Kind;
use saola_observability::closed::Role;

use super::{Files, RINGS};

/// Records that were lost on their way here.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum News {
    /// A ring was full.
    Dropped {
        /// The worker's slot; absent for the supervisor and the observer.
        worker: Option<u32>,
        /// The kind of the records.
        kind: Kind,
        /// How many since the last time.
        count: u64,
    },
    /// So many times the rest of one of a slot's rings could not be read and was skipped.
    Damaged {
        /// Whose slot it is.
        role: Role,
        /// The slot of a worker.
        worker: Option<u32>,
        /// How many since the last time.
        count: u64,
    },
}

impl Files {
    /// What was lost since the last call, also of an observer before this one.
    pub(crate) fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for slot in self.rings.all() {
            let worker = (slot.role() == Role::Worker).then_some(slot.number());
            for kind in Kind::ALL {
                let (dropped, told) = (slot.dropped(kind), slot.told(kind));
                if dropped != told {
                    slot.set_told(kind, dropped);
                    // Less than was told is damage.
                    let count = dropped.saturating_sub(told);
                    news.extend((count > 0).then_some(News::Dropped { worker, kind, count }));
                }
            }
        }
        self.damage(&mut news);
        news
    }

    /// Each slot by itself and not more than once a minute: one that is damaged again and again does not hide another (O20).
    fn damage(&mut self, news: &mut Vec<News>) {
        let now = Instant::now();
        for place in (0..self.sources.len()).step_by(RINGS) {
            let rings = &mut self.sources[place..place + RINGS];
            let count = rings.iter().map(|source| source.untold).sum();
            if count == 0 || !rings[0].told.is_due(now, TELL_EVERY) {
                continue;
            }
            for source in rings {
                source.untold = 0;
            }
            if let Some((_, slot)) = self.slot(place) {
                let (role, number) = (slot.role(), slot.number());
                let worker = (role == Role::Worker).then_some(number);
                news.push(News::Damaged { role, worker, count });
            }
        }
    }
}

/// What is damaged tends to be damaged on.
const TELL_EVERY: Duration = Duration::from_mins(1);

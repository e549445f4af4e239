//! The bell: one futex word in the supervisor's slot file, by which a worker wakes a sleeping observer (F60).
//!
//! While the observer is awake a request makes no system call for it: it only looks at the word.

use std::io;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use crate::barrier::Barrier;
use crate::futex;
use crate::layout::BELL_AT;
use crate::map::Map;

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// The bell's page, mapped by the one who rings or by the one who sleeps.
pub(crate) struct Bell {
    map: Map,
    barrier: Barrier,
}

impl Bell {
    pub(crate) fn new(map: Map, barrier: Barrier) -> Self {
        Self { map, barrier }
    }

    /// Leaves its page out of children: each maps it afresh.
    pub(crate) fn keep_from_children(&self) -> io::Result<()> {
        self.map.keep_from_children()
    }

    /// A writer has published. Wakes the observer if it sleeps.
    pub(crate) fn ring(&self) {
        // Pairs with the one of `set`: either we see it asleep, or it sees our head.
        self.barrier.cross();
        let word = self.map.half(BELL_AT);
        if word.load(Relaxed) == ASLEEP && word.swap(AWAKE, SeqCst) == ASLEEP {
            futex::wake(word);
        }
    }

    /// The observer is going to sleep: whoever publishes from now on rings. It looks at all heads once more before it does,
    /// against the lost wake-up. False if it must not sleep, since nobody might ring.
    pub(crate) fn set(&self) -> bool {
        self.map.half(BELL_AT).store(ASLEEP, SeqCst);
        self.barrier.make_all_cross()
    }

    /// Returns when somebody has rung since [`Self::set`], or after `timeout`; says whether somebody has.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let word = self.map.half(BELL_AT);
        futex::wait(word, ASLEEP, timeout);
        word.load(SeqCst) == AWAKE
    }

    /// The observer is awake: nobody needs to ring.
    pub(crate) fn clear(&self) {
        self.map.half(BELL_AT).store(AWAKE, SeqCst);
    }
}

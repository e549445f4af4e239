//! What membarrier(2) does, as far as the memory model goes: a full fence on both sides.

use std::sync::atomic::Ordering::SeqCst;

use crate::sync::fence;

pub(crate) struct Barrier;

#[expect(clippy::unused_self, reason = "as with the one that it stands for")]
impl Barrier {
    pub(crate) fn cross(&self) {
        fence(SeqCst);
    }

    pub(crate) fn make_all_cross(&self) -> bool {
        fence(SeqCst);
        true
    }
}

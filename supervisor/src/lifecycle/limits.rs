//! What the machine is bound by. Zero switches most of them off.

use std::time::Duration;

/// The settings that decisions depend on.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) workers: u32,
    pub(crate) max_workers: u32,
    /// Zero switches the heartbeat ladder off.
    pub(crate) timeout: Duration,
    pub(crate) boot_timeout: Duration,
    pub(crate) graceful_timeout: Duration,
    pub(crate) abort_grace: Duration,
    pub(crate) pre_stop_delay: Duration,
    pub(crate) max_old_generations: u32,
    /// No limit when zero, as the four below it.
    pub(crate) max_lifetime: Duration,
    pub(crate) min_lifetime: Duration,
    pub(crate) max_memory: u64,
    pub(crate) max_memory_hard: u64,
    pub(crate) give_up: Duration,
    pub(crate) has_observer: bool,
    /// Each worker has an accept queue of its own.
    pub(crate) reuse_port: bool,
    /// How long the old workers of an upgrade stand by.
    pub(crate) upgrade_probation: Duration,
}

impl Limits {
    /// The most slots that may ever be in use (S25).
    pub(crate) fn slots(&self) -> u32 {
        self.max_workers.saturating_mul(self.max_old_generations.saturating_add(1))
    }
}

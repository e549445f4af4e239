//! Two processes that each store one word and then load the other's: at least one must see what the other has stored. That
//! takes a full fence on both sides, which costs some 20 ns, as it waits for all stores before it. One side crosses for every
//! request, the other before it sleeps; so the kernel makes the processors that run the first side cross when the second one
//! asks (membarrier(2), `MEMBARRIER_CMD_GLOBAL_EXPEDITED`, Linux 4.16), and the first side only keeps its compiler in order.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{compiler_fence, fence};

use rustix::thread::MembarrierCommand::{GlobalExpedited, RegisterGlobalExpedited};
use rustix::thread::{membarrier, membarrier_query};

/// One side's part in it. Where the kernel does not help, both sides cross a fence of their own.
pub(crate) struct Barrier {
    has_kernel: bool,
}

impl Barrier {
    /// The side that crosses often: registers this process.
    pub(crate) fn of_writer() -> Self {
        Self { has_kernel: membarrier(RegisterGlobalExpedited).is_ok() }
    }

    /// The side that crosses now and then. What the kernel denies it here it has denied the writers, too.
    pub(crate) fn of_reader() -> Self {
        Self { has_kernel: membarrier_query().contains_command(GlobalExpedited) }
    }

    /// Between the writer's store and its load.
    #[inline]
    pub(crate) fn cross(&self) {
        if self.has_kernel { compiler_fence(SeqCst) } else { fence(SeqCst) }
    }

    /// Between the reader's store and its load: all writers cross. False if the kernel would not make them, and nothing may
    /// be concluded from what is loaded.
    pub(crate) fn make_all_cross(&self) -> bool {
        fence(SeqCst);
        !self.has_kernel || membarrier(GlobalExpedited).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    use std::thread;

    use super::*;

    const ROUNDS: usize = 4_000;

    /// A word with a cache line of its own: of one line, its processor sees all of it or nothing.
    #[derive(Default)]
    #[repr(align(128))]
    struct Line(AtomicUsize);

    /// What a writer had stored before it missed a reader's store, this reader sees.
    fn nothing_is_missed_by_both(writer: &Barrier, reader: &Barrier) {
        let (Line(published), Line(asked)) = &(Line::default(), Line::default());
        // Lines that both write: the writer's store waits behind these, and its load does not unless something makes it.
        let contended: [Line; 8] = Default::default();
        let contend = || contended.iter().for_each(|Line(word)| word.store(1, Relaxed));
        // For each round of the reader: the first store of the writer after which it saw the reader's.
        let mut first_to_see = vec![usize::MAX; ROUNDS + 1];
        let mut seen = vec![0; ROUNDS + 1];
        // The writer must have run since the last round: two that take turns on one processor prove nothing.
        let wait_for_another_than = |seen: usize| {
            while published.load(Relaxed) == seen {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    wait_for_another_than(seen[round - 1]);
                    contend();
                    asked.store(round, Relaxed);
                    assert!(reader.make_all_cross());
                    seen[round] = published.load(Relaxed);
                }
            });
            let mut known = 0;
            for number in 1.. {
                contend();
                published.store(number, Relaxed);
                writer.cross();
                let round = asked.load(Relaxed);
                first_to_see[known + 1..=round].fill(number);
                known = round;
                if known == ROUNDS {
                    break;
                }
            }
        });
        for (seen, first_to_see) in seen.iter().zip(&first_to_see).skip(1) {
            assert!(*seen >= first_to_see - 1, "{seen} {first_to_see}");
        }
    }

    #[test]
    fn a_writer_that_misses_the_reader_is_seen_by_it() {
        nothing_is_missed_by_both(&Barrier::of_writer(), &Barrier::of_reader());
    }

    #[test]
    fn a_writer_that_misses_the_reader_is_seen_by_it_where_the_kernel_does_not_help() {
        let (writer, reader) = (Barrier { has_kernel: false }, Barrier { has_kernel: false });
        nothing_is_missed_by_both(&writer, &reader);
    }
}

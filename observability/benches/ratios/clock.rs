//! CPU time of the calling thread: what others do on the machine is not in it.

use std::hint::black_box;

use nix::time::{ClockId, clock_gettime};

/// CPU nanoseconds of one call.
pub(crate) fn once(call: impl FnOnce()) -> f64 {
    let start = thread_ns();
    call();
    thread_ns() - start
}

/// CPU nanoseconds of `turn` for each of `items`, over `rounds` passes. The items come in order, so that the loop costs next
/// to nothing; what they point at is scattered. What the compiler knows of them ends at each turn. A function of its own for each
/// `turn`: in one large one the loops would share too few registers, and be measured with their spills.
#[inline(never)]
pub(crate) fn each<T>(rounds: usize, items: &[T], mut turn: impl FnMut(&T)) -> f64 {
    let spent = once(|| {
        for _ in 0..rounds {
            for item in items {
                turn(black_box(item));
            }
        }
    });
    spent / (rounds * items.len()) as f64
}

fn thread_ns() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64
}

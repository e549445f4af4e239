//! T12: a writer that never pauses and a reader beside it. All parts of a write say its number, so a mixture of two shows.
//!
//! `SAOLA_WRITES` says how many (default 300,000; 10,000,000 before a release).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::cells::exemplar::{self, Exemplar};
use crate::cells::histogram::{BUCKET_WORDS, Histogram};
use crate::cells::{LAST_WORDS, read_last, set_last, writes_in_tests};
use crate::ids::{SpanId, TraceId};
use crate::layout::{join, size};

/// Lets one thread write numbers and another read, until the last is written. Says how often there was something to read.
fn race<const N: usize>(
    write: impl Fn(&[AtomicU64; N], u32) + Sync,
    mut read: impl FnMut(&[AtomicU64; N]) -> bool,
) -> u64 {
    let words = [const { AtomicU64::new(0) }; N];
    let writes = writes_in_tests();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| (1..=writes).for_each(|number| write(&words, number)));
        let mut found = 0;
        while !thread.is_finished() {
            found += u64::from(read(&words));
        }
        found
    })
}

#[test]
fn an_exemplar_is_of_one_write() {
    let write = |words: &exemplar::Words, number: u32| {
        let wide = u64::from(number);
        exemplar::set(
            words,
            &Exemplar {
                trace: TraceId(join(wide, wide)),
                span: SpanId(wide.to_ne_bytes()),
                value: f64::from(number),
                wall_ns: wide,
            },
        );
    };
    let found = race(write, |words| {
        exemplar::read(words).is_some_and(|found| {
            let number = found.wall_ns;
            assert_eq!(found.trace, TraceId(join(number, number)));
            assert_eq!(found.span, SpanId(number.to_ne_bytes()));
            assert_eq!(found.value.to_bits(), f64::from(u32::try_from(number).unwrap()).to_bits());
            true
        })
    });
    assert!(found > 0);
}

#[test]
fn a_last_value_is_of_its_time() {
    let write = |words: &[AtomicU64; LAST_WORDS], number: u32| {
        set_last(words, number.into(), |_| f64::from(number));
    };
    let mut latest = 0;
    let found = race(write, |words| {
        read_last(words).is_some_and(|(time, value)| {
            assert_eq!(value.to_bits(), f64::from(u32::try_from(time).unwrap()).to_bits());
            assert!(time >= latest, "{time} after {latest}");
            latest = time;
            time > 0
        })
    });
    assert!(found > 0);
}

#[test]
fn a_histogram_holds_whole_observations() {
    const WORDS: usize = 3 * BUCKET_WORDS;
    let write = |words: &[AtomicU64; WORDS], number: u32| {
        Histogram::of(words, 3)
            .unwrap()
            .observe(size(u64::from(number % 2)), f64::from(number % 2 + 1));
    };
    let mut latest = [0; 3];
    let found = race(write, |words| {
        let mut counts = [0; 3];
        let before = words[0].load(Relaxed);
        let sum = Histogram::of(words, 3).unwrap().add_to(&mut counts);
        let passed = words[0].load(Relaxed) - before;
        assert!(counts.iter().zip(latest).all(|(now, before)| *now >= before), "{counts:?}");
        latest = counts;
        // Beyond 64 changes the sum may be of another moment than the counts.
        let expected = f64::from(u32::try_from(counts[0] + 2 * counts[1]).unwrap());
        assert!(passed >= 64 || sum.to_bits() == expected.to_bits(), "{counts:?} {sum}");
        counts[0] > 0
    });
    assert!(found > 0);
}

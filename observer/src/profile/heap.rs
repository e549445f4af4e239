//! What jemalloc says of a heap, as text (jemalloc(3), `prof.dump`; format `heap_v2`).
//!
//! It remembers about one allocation in so many bytes, larger ones oftener. What the whole heap holds is worked out from
//! those, as jeprof does.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// A heap at one moment.
#[derive(PartialEq, Debug)]
pub(crate) struct Heap {
    /// Bytes between two allocations that are remembered, on average.
    pub(crate) period: u64,
    pub(crate) stacks: Vec<Stack>,
}

/// What one place of the program has asked for and not given back.
#[derive(PartialEq, Debug)]
pub(crate) struct Stack {
    /// Return addresses, the innermost first.
    pub(crate) frames: Vec<u64>,
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

impl Heap {
    /// Reads a dump; `None` if it is no such text. Threads are taken together.
    pub(crate) fn parse(dump: &str) -> Option<Self> {
        let mut lines = dump.lines();
        let period: u64 = lines.next()?.strip_prefix("heap_v2/")?.parse().ok()?;
        let mut heap = Self { period, stacks: Vec::new() };
        let mut frames: Option<Vec<u64>> = None;
        for line in lines {
            if line.starts_with("MAPPED_LIBRARIES:") {
                break;
            }
            if let Some(addresses) = line.strip_prefix("@ ") {
                let address = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
                frames = Some(addresses.split_whitespace().map(address).collect::<Option<_>>()?);
            } else if let Some(counts) = line.trim_start().strip_prefix("t*: ")
                // The first of these lines is the sum of all, and has no stack.
                && let Some(frames) = frames.take()
            {
                heap.stacks.push(Stack::scaled(frames, counts, period)?);
            }
        }
        Some(heap)
    }
}

impl Stack {
    /// `counts` is what is remembered: `2: 6688 [0: 0]`, objects and bytes in use, and behind them those ever.
    fn scaled(frames: Vec<u64>, counts: &str, period: u64) -> Option<Self> {
        let (objects, rest) = counts.split_once(": ")?;
        let (bytes, _) = rest.split_once(' ')?;
        let (objects, bytes): (u32, u64) = (objects.parse().ok()?, bytes.parse().ok()?);
        let (objects, bytes, period) = (f64::from(objects), float(bytes), float(period));
        // The chance that one of this size is remembered.
        let chance = 1.0 - (-bytes / objects.max(1.0) / period.max(1.0)).exp();
        let scale = if chance > 0.0 { 1.0 / chance } else { 1.0 };
        Some(Self { frames, objects: whole(objects * scale), bytes: whole(bytes * scale) })
    }
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "an estimate")]
fn float(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate; `as` stops at the greatest number"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "heap_v2/524288
  t*: 3: 1048640 [0: 0]
  t0: 3: 1048640 [0: 0]
@ 0x55d0 0x7f11
  t*: 1: 1048576 [0: 0]
  t0: 1: 1048576 [0: 0]
@ 0x66e1
  t*: 2: 64 [0: 0]
  t1: 2: 64 [0: 0]

MAPPED_LIBRARIES:
55d000000000-55d000001000 r--p 00000000 fe:00 1  /usr/bin/saola
";

    #[test]
    fn a_dump_is_scaled_to_what_the_heap_holds() {
        let heap = Heap::parse(DUMP).unwrap();
        assert_eq!((heap.period, heap.stacks.len()), (524_288, 2));
        // Two periods long: remembered with a chance of 1 - e^-2. 32 bytes: one in 16,384.5.
        let large = Stack { frames: vec![0x55d0, 0x7f11], objects: 1, bytes: 1_212_697 };
        let small = Stack { frames: vec![0x66e1], objects: 32_769, bytes: 1_048_608 };
        assert_eq!(heap.stacks, [large, small]);
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        for text in
            ["", "heap_v1/1\n", "heap_v2/x\n", "heap_v2/1\n@ 0xg\n", "heap_v2/1\n@ 0x1\nt*: 1\n"]
        {
            assert_eq!(Heap::parse(text), None, "{text:?}");
        }
    }
}

//! What workers are busy with, on request and when one hangs (S37).

use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Image, Supervisor};
use crate::Exit;
use crate::lifecycle::event::{Answer, SlotNumber};
use crate::process;

impl Supervisor<'_> {
    /// Writes a line for each worker, or for one, and asks it for its stack.
    pub(super) fn dump(&mut self, only: Option<SlotNumber>) -> Answer {
        let slots: Vec<SlotNumber> = self
            .workers
            .keys()
            .copied()
            .filter(|slot| only.is_none_or(|only| only == *slot))
            .collect();
        if slots.is_empty() {
            return Answer::Refused {
                exit: Exit::Usage,
                why: "no worker lives in that slot".to_owned(),
            };
        }
        for slot in slots {
            let busy = self.busy(slot);
            let age = self.slots.beat_age(slot);
            let voice = self.voice();
            let state = self.state_of(slot);
            self.events.dumped(slot, age, (state, busy.as_ref()), voice);
            self.ask_for_stack(slot);
        }
        Answer::Done
    }

    /// The answer comes over the channel when the worker's thread gets to run; no answer is an answer too.
    pub(super) fn ask_for_stack(&self, slot: SlotNumber) {
        let Some(worker) = self.workers.get(&slot) else { return };
        worker.process.signal_number(process::dump_signal());
        if let Some(line) = &worker.line {
            // ABRT may follow, and would be delivered first: the answer takes microseconds if one comes at all.
            let mut fds = [PollFd::new(line.as_fd(), PollFlags::POLLIN)];
            let _answered = poll(&mut fds, PollTimeout::from(10u8));
        }
    }

    pub(super) fn print_stack(&mut self, slot: SlotNumber, addresses: &str) {
        let voice = self.voice();
        let is_own = self.workers.get(&slot).is_some_and(|worker| worker.image == Image::Own);
        // Places in another program's file mean nothing here.
        let text = if is_own { relative(addresses) } else { addresses.to_owned() };
        self.events.worker_stack(slot, (&text, is_own), voice);
    }
}

/// Addresses as places in the program's file, which `addr2line -e PROGRAM` understands: worker and supervisor are one image.
fn relative(addresses: &str) -> String {
    let Some((start, end)) = image() else { return addresses.to_owned() };
    let places = addresses.split(' ').filter_map(|text| u64::from_str_radix(text, 16).ok());
    let places = places.map(|address| match address.checked_sub(start) {
        Some(place) if address < end => format!("0x{place:x}"),
        // In a shared library.
        _ => format!("lib:0x{address:x}"),
    });
    places.collect::<Vec<_>>().join(" ")
}

/// Where the program lies in memory.
fn image() -> Option<(u64, u64)> {
    let program = std::fs::read_link("/proc/self/exe").ok()?;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut parts = maps.lines().filter(|line| line.ends_with(&*program.to_string_lossy()));
    let bounds = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    };
    let first = bounds(parts.next()?)?;
    let last = parts.next_back().and_then(bounds).unwrap_or(first);
    Some((first.0, last.1))
}

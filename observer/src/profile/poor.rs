//! Whether profiles will say anything: a build without frame pointers has stacks of one frame, a stripped one no names.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Why profiles will be poor; the field `reason` of the line about it.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Poor {
    /// Stacks end after a frame or two.
    FramePointers,
    /// The program has no names for its addresses.
    Stripped,
}

impl Poor {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::FramePointers => "frame_pointers",
            Self::Stripped => "stripped",
        }
    }
}

/// How deep the first stacks were.
#[derive(Default, Debug)]
pub(super) struct Depths {
    seen: u32,
    shallow: u32,
    is_told: bool,
}

impl Depths {
    pub(super) fn add(&mut self, frames: u16) {
        if self.seen < ENOUGH {
            self.seen += 1;
            self.shallow += u32::from(frames < 3);
        }
    }

    /// True once, if most of the first stacks had fewer than three frames. Some always have: those taken in the C library.
    pub(super) fn are_shallow(&mut self) -> bool {
        let is_known = self.seen == ENOUGH && self.shallow * 10 >= self.seen * 9;
        is_known && !std::mem::replace(&mut self.is_told, true)
    }
}

/// Whether a program has no table of symbols. Only its section headers are read: looking a name up would load every line
/// table, some 30 MiB. One that is no ELF file of 64 bits is not judged.
pub(crate) fn is_stripped(program: &Path) -> bool {
    has_symbols(program) == Some(false)
}

fn has_symbols(program: &Path) -> Option<bool> {
    let file = File::open(program).ok()?;
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0).ok()?;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let sections_at = u64::from_le_bytes(*head.get(40..)?.first_chunk()?);
    let size = u16::from_le_bytes(*head.get(58..)?.first_chunk()?);
    let count = u16::from_le_bytes(*head.get(60..)?.first_chunk()?);
    for section in 0..u64::from(count) {
        let mut kind = [0; 4];
        let at = sections_at.checked_add(section * u64::from(size))?.checked_add(4)?;
        file.read_exact_at(&mut kind, at).ok()?;
        if u32::from_le_bytes(kind) == SYMBOLS {
            return Some(true);
        }
    }
    Some(false)
}

/// `SHT_SYMTAB` of the ELF specification.
const SYMBOLS: u32 = 2;
const ENOUGH: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_that_end_at_once_are_told_once() {
        let told = |depths: &[u16]| {
            let mut all = Depths::default();
            for depth in depths {
                all.add(*depth);
            }
            [all.are_shallow(), all.are_shallow()]
        };
        assert_eq!(told(&[1; 63]), [false, false], "too few to know");
        assert_eq!(told(&[2; 64]), [true, false]);
        assert_eq!(told(&[[1; 32], [9; 32]].concat()), [false, false]);
    }

    #[test]
    fn what_is_no_program_is_not_judged() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in [&b""[..], b"#!/bin/sh\n", &[0x7f; 80]] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(has_symbols(file.path()), None);
        }
        assert_eq!(has_symbols(Path::new("/proc/self/exe")), Some(true), "tests are not stripped");
        assert_eq!(has_symbols(Path::new("/nowhere")), None);
    }
}

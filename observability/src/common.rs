//! Words that processes of one server share without a file: what need not outlive them.

use std::io;
use std::sync::atomic::AtomicU64;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::layout::long;
use crate::map::Map;

/// Words that a process shares with those that it forks. They are zero at first, and gone with the last of these processes.
pub struct Common {
    map: Map,
    count: usize,
}

impl Common {
    /// Makes so many words.
    ///
    /// # Errors
    ///
    /// What the kernel says when it gives no memory or no descriptor.
    pub fn new(count: usize) -> io::Result<Self> {
        let bytes = count.saturating_mul(8).max(8);
        let file = std::fs::File::from(memfd_create(c"saola-common", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(long(bytes))?;
        Ok(Self { map: Map::writable(&file, bytes)?, count })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        self.map.words(0, self.count)
    }
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Common").field("words", &self.count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    #[test]
    fn what_a_child_writes_the_parent_reads() {
        let common = Common::new(3).unwrap();
        #[expect(unsafe_code, clippy::disallowed_methods, reason = "the test forks")]
        // SAFETY: the child stores a word and ends: it takes no lock that another thread of the test may hold.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                common.words()[2].store(7, Relaxed);
                // SAFETY: _exit(2) asks for nothing; what it leaves undone is the kernel's to clear.
                unsafe { nix::libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            }
        }
        let words: Vec<u64> = common.words().iter().map(|word| word.load(Relaxed)).collect();
        assert_eq!(words, [0, 0, 7]);
    }
}

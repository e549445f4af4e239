//! What a supervisor sees to in its own process before it serves, however it came to run.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use saola_observability::clock::wall_ns;

use crate::Settings;
use crate::error::Error;
use crate::process;

/// A fork would copy the locks of other threads (S2).
pub(super) fn count_threads() -> Result<(), Error> {
    let names = process::other_threads();
    if names.is_empty() { Ok(()) } else { Err(Error::Threads { names }) }
}

/// Before anything relative is opened (S64).
pub(super) fn settle_in(settings: &Settings) -> Result<(), Error> {
    if let Some(folder) = &settings.chdir {
        nix::unistd::chdir(folder)
            .map_err(|errno| Error::System { attempt: "change to the folder of chdir", errno })?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(settings.umask));
    Ok(())
}

/// Sockets need descriptors; the hard limit is what the system grants without asking (S65).
pub(super) fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Refused where a sandbox forbids it; then the limit is what it was.
        let _refused = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Of the jitter of pauses.
pub(super) fn seed() -> u64 {
    wall_ns()
}

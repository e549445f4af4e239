//! The files of an epoch directory, as readers find them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::closed::Role;
use crate::header::WhyBad;
use crate::view::{View, named};

/// The link in the run directory that names the epoch in use.
pub(crate) const CURRENT: &str = "current";
/// What the names of heap profiles begin with, whole or half written: they stand beside the slot files and go with them.
pub(crate) const HEAP: &str = "heap-";

/// A run directory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nobody serves there.
    #[error("no saola is running in {0}")]
    NoServer(PathBuf),
    /// It may not be read.
    #[error("cannot read {path}")]
    System {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A file that is not a slot file, though it has the name of one.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct BadSlot {
    /// Its path.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: WhyBad,
}

/// The directory that `current` names, and the number in that name.
pub(crate) fn current(run_dir: &Path) -> Result<(PathBuf, u64), ReadError> {
    let link = run_dir.join(CURRENT);
    let target = fs::read_link(&link).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ReadError::NoServer(run_dir.to_owned()),
        _ => ReadError::System { path: link, source: error },
    })?;
    let number =
        target.to_str().and_then(number).ok_or_else(|| ReadError::NoServer(run_dir.to_owned()))?;
    Ok((run_dir.join(target), number))
}

/// The number of an epoch directory's name; `None` for any other name, which nobody but its owner touches.
pub(crate) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("epoch-")?;
    let plain = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// The epochs of a run directory, oldest first: directories by their own names, never through a link.
pub(crate) fn epochs(run_dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(run_dir).into_iter().flatten().flatten();
    let mut epochs: Vec<_> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().to_str().and_then(number)?, entry.path())))
        .collect();
    epochs.sort();
    epochs
}

/// Opens the files of an epoch that are not open yet, in the order supervisor, observer, slots. Bad ones are told apart; one
/// that is being made is left for the next time.
pub(crate) fn open_new(
    directory: &Path,
    epoch: u64,
    writable: bool,
    is_open: impl Fn(Role, u32) -> bool,
) -> Result<(Vec<View>, Vec<BadSlot>), ReadError> {
    let failed = |source| ReadError::System { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some((role, number)) = name.to_str().and_then(named)
            && !is_open(role, number)
        {
            found.push((role, number, directory.join(&name)));
        }
    }
    found.sort();
    let (mut views, mut bad) = (Vec::new(), Vec::new());
    for (role, number, path) in found {
        match View::open(&path, epoch, role, number, writable) {
            Ok(view) => views.push(view),
            Err(WhyBad::BeingMade) => {}
            Err(why) => bad.push(BadSlot { path, why }),
        }
    }
    Ok((views, bad))
}

/// Removes the files of an epoch by their own names, links as links, and then its directory, if nothing foreign is in it.
/// What cannot be removed now is tried again at the next start.
pub(crate) fn remove_epoch(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_ours = |name: &str| named(name).is_some() || name.starts_with(HEAP);
        if entry.file_name().to_str().is_some_and(is_ours) {
            let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir(entry.path()));
        }
    }
    let _ = fs::remove_dir(directory);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_goes_with_all_that_is_ours_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let epoch = folder.path().join("epoch-000001");
        fs::create_dir(&epoch).unwrap();
        let ours = ["supervisor", "observer", "slot-0000", "heap-0000", "heap-0001.part"];
        for name in ours.into_iter().chain(["notes"]) {
            fs::write(epoch.join(name), "").unwrap();
        }
        remove_epoch(&epoch);
        let left: Vec<_> =
            fs::read_dir(&epoch).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, ["notes"]);
        fs::remove_file(epoch.join("notes")).unwrap();
        remove_epoch(&epoch);
        assert!(!epoch.exists());
    }
}

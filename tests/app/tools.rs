//! Programs that the tests use and that are not on every machine. test.sh installs them.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Finds a program in `folders` (which may hold one `*`, a version: the newest wins) or in `PATH`.
///
/// Where there is none the test is left out, loudly; in CI it fails.
pub(crate) fn find(name: &str, folders: &[&str]) -> Option<PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    let folders = folders.iter().flat_map(|folder| expanded(folder));
    let found = folders.chain(std::env::split_paths(&path)).map(|folder| folder.join(name));
    let found = found.into_iter().find(|program| program.is_file());
    if found.is_none() {
        assert!(variable("CI").is_none(), "{name} is not installed, and CI leaves nothing out");
        // Not by println: that is shown of failed tests only.
        let text =
            format!("LEFT OUT: {name} is not installed; ./test.sh installs it or says how\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
    }
    found
}

fn variable(name: &str) -> Option<OsString> {
    std::env::vars_os().find(|(known, _)| known == name).map(|(_, value)| value)
}

fn expanded(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let text = folder.to_string_lossy().into_owned();
    let Some((before, after)) = text.split_once('*') else { return vec![folder] };
    let versions = std::fs::read_dir(before).into_iter().flatten().flatten();
    let version = |name: &str| name.parse::<u32>().unwrap_or(0);
    let mut names: Vec<_> =
        versions.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_by_key(|name| std::cmp::Reverse(version(name)));
    names.iter().map(|name| PathBuf::from(format!("{before}{name}{after}"))).collect()
}

//! Whether the kernel has taken a process because memory ran out: the count of its cgroup says so (S30).

use std::fs;
use std::path::{Path, PathBuf};

use crate::lifecycle::cause::Oom;

/// The count of this server's cgroup.
#[derive(Debug)]
pub(crate) struct OomKills {
    file: Option<PathBuf>,
    last: Option<u64>,
}

impl OomKills {
    /// Finds the file, of either version of cgroups, wherever a container has put it.
    pub(crate) fn find() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut files = groups.lines().flat_map(candidates);
        let file = files.find(|file| count(file).is_some());
        let last = file.as_deref().and_then(count);
        Self { file, last }
    }

    /// Somebody was killed: whether the kernel has taken one since the last look.
    pub(crate) fn look(&mut self) -> Oom {
        let now = self.file.as_deref().and_then(count);
        match (std::mem::replace(&mut self.last, now), now) {
            (Some(before), Some(now)) if now > before => Oom::Yes,
            (Some(_), Some(_)) => Oom::No,
            (None, _) | (_, None) => Oom::Unknown,
        }
    }
}

/// Where the count of the group in a line of `/proc/self/cgroup` may be: below the mount, or at its root in a namespace.
fn candidates(line: &str) -> [PathBuf; 2] {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let (mount, name) = match controllers {
        Some("") => ("/sys/fs/cgroup", "memory.events"),
        Some(names) if names.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.oom_control")
        }
        Some(_) | None => return [PathBuf::new(), PathBuf::new()],
    };
    let mount = Path::new(mount);
    [mount.join(path.trim_start_matches('/')).join(name), mount.join(name)]
}

fn count(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_rises_is_told_once_and_one_that_cannot_be_read_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.events");
        fs::write(&file, "low 0\noom 3\noom_kill 2\n").unwrap();
        let mut kills = OomKills { last: count(&file), file: Some(file.clone()) };
        assert_eq!(kills.look(), Oom::No);
        fs::write(&file, "oom_kill 3\n").unwrap();
        assert_eq!((kills.look(), kills.look()), (Oom::Yes, Oom::No));
        fs::remove_file(&file).unwrap();
        assert_eq!(kills.look(), Oom::Unknown);
    }

    #[test]
    fn both_versions_of_cgroups_name_their_file() {
        let [below, root] = candidates("0::/system.slice/shop.service");
        assert_eq!(below, Path::new("/sys/fs/cgroup/system.slice/shop.service/memory.events"));
        assert_eq!(root, Path::new("/sys/fs/cgroup/memory.events"));
        let [below, _] = candidates("4:memory:/a:b");
        assert_eq!(below, Path::new("/sys/fs/cgroup/memory/a:b/memory.oom_control"));
        assert_eq!(candidates("9:name=systemd:/")[0], Path::new(""));
    }
}

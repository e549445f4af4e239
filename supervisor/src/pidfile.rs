//! The pidfile (S60): locked for life, so that a pid in it is true exactly while the lock is held.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, RawFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::descriptors::copy_descriptor;
use crate::upgrade::Inherited;

/// Ours, until it is removed.
#[derive(Debug)]
pub(crate) struct Pidfile {
    path: PathBuf,
    file: File,
}

/// The pidfile cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PidfileError {
    #[error("pidfile {path} is held by pid {pid}; stop it or choose another with --pidfile")]
    Held { path: PathBuf, pid: String },
    #[error("cannot write pidfile {path}")]
    System { path: PathBuf, source: std::io::Error },
}

impl Pidfile {
    /// Takes the file. A living pid in a file that nobody has locked is somebody unrelated.
    pub(crate) fn take(path: &Path) -> Result<Self, PidfileError> {
        let system = |source| PidfileError::System { path: path.to_owned(), source };
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(0o644);
            options.custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW);
            let mut file = options.open(path).map_err(system)?;
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole())) {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    let mut pid = String::new();
                    let _unreadable = file.read_to_string(&mut pid);
                    let pid = pid.trim().to_owned();
                    return Err(PidfileError::Held { path: path.to_owned(), pid });
                }
                Err(errno) => return Err(system(errno.into())),
            }
            // Its last owner may have removed it between the open and the lock.
            let inode = |file: std::io::Result<std::fs::Metadata>| file.map(|file| file.ino()).ok();
            if inode(file.metadata()) != inode(std::fs::symlink_metadata(path)) {
                continue;
            }
            let text = format!("{}\n", std::process::id());
            let length = u64::try_from(text.len()).unwrap_or_default();
            // In place, and cut afterwards: never empty, never renamed.
            file.rewind().and_then(|()| file.write_all(text.as_bytes())).map_err(system)?;
            file.set_len(length).map_err(system)?;
            return Ok(Self { path: path.to_owned(), file });
        }
    }

    /// For the next image, which has the same pid.
    pub(crate) fn hand_over<'a>(&'a self, open: &mut Inherited<'a>) -> (PathBuf, RawFd) {
        (self.path.clone(), open.keep(self.file.as_fd()))
    }

    /// One that another image has taken.
    pub(crate) fn adopt((path, fd): &(PathBuf, RawFd)) -> std::io::Result<Self> {
        Ok(Self { path: path.clone(), file: File::from(copy_descriptor(*fd)?) })
    }

    /// The end of the server.
    pub(crate) fn remove(self) {
        let ours = self.file.metadata().map(|file| file.ino()).ok();
        let named = std::fs::symlink_metadata(&self.path).map(|file| file.ino()).ok();
        if ours.is_some() && ours == named {
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

fn whole() -> libc::flock {
    libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_pid_is_replaced_and_a_held_file_is_refused_with_its_pid() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pid");
        std::fs::write(&path, "1\nsomething longer than a pid\n").expect("a stale file");
        let pidfile = Pidfile::take(&path).expect("nobody holds it");
        let own = std::process::id();
        assert_eq!(std::fs::read_to_string(&path).expect("a pid"), format!("{own}\n"));
        match Pidfile::take(&path) {
            Err(PidfileError::Held { pid, .. }) => assert_eq!(pid, own.to_string()),
            other => panic!("{other:?}"),
        }
        pidfile.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_of_somebody_else_under_the_name_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pid");
        let pidfile = Pidfile::take(&path).expect("nobody holds it");
        std::fs::rename(&path, folder.path().join("moved")).expect("moved away");
        std::fs::write(&path, "7\n").expect("another");
        pidfile.remove();
        assert!(path.exists());
    }
}

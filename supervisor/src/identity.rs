//! Who the children are (S66): another user than the supervisor, for good, and what belongs to them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown, lchown};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid};

/// The user and the groups of workers and observer.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// All groups, the one above among them.
    pub groups: Vec<u32>,
}

/// Owner and group of a file; what is none stays as it is.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct Owner {
    /// The user.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

impl Identity {
    /// Whether this process may give its children this identity: it is root, or has it already.
    pub(crate) fn is_allowed(&self) -> bool {
        Uid::effective().is_root() || self.is_own()
    }

    /// Becomes it, for good: an attempt to be root again must fail. What a change of the user clears is set again by the
    /// caller: the signal at the death of the parent.
    pub(crate) fn assume(&self) -> nix::Result<()> {
        if self.is_own() {
            return prctl::set_no_new_privs();
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        let (users, groups) = (getresuid()?, getresgid()?);
        let is_changed = [users.real, users.effective, users.saved].iter().all(|own| *own == uid)
            && [groups.real, groups.effective, groups.saved].iter().all(|own| *own == gid);
        let root = Uid::from_raw(0);
        if !is_changed || (!uid.is_root() && setresuid(root, root, root).is_ok()) {
            return Err(Errno::EPERM);
        }
        prctl::set_no_new_privs()?;
        // Else the observer could not look into `/proc` of a worker, and no core would be written.
        prctl::set_dumpable(true)
    }

    /// Gives a folder of slot files, and what is in it, to the children: they open it by its path.
    pub(crate) fn own(&self, folder: &Path) -> io::Result<()> {
        if self.is_own() {
            return Ok(());
        }
        let entries = fs::read_dir(folder)?.flatten();
        for entry in entries {
            if entry.file_type()?.is_dir() {
                self.own(&entry.path())?;
            } else if entry.file_name() != "control.sock" {
                self.give(&entry.path())?;
            }
        }
        self.give(folder)
    }

    /// Takes back a folder that a server before this one gave away and did not live to remove.
    pub(crate) fn take_back(&self, folder: &Path) {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY | libc::O_CLOEXEC);
        let folder: io::Result<File> = options.open(folder);
        if let Ok(folder) = folder
            && folder.metadata().is_ok_and(|folder| folder.uid() == self.uid)
        {
            // Refused, it is refused again with a reason when it is looked at.
            let _refused = fchown(&folder, Some(Uid::effective().as_raw()), None);
        }
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        lchown(path, Some(self.uid), Some(self.gid))
    }

    fn is_own(&self) -> bool {
        Uid::effective().as_raw() == self.uid && Gid::effective().as_raw() == self.gid
    }
}

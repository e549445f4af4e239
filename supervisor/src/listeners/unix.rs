//! Unix sockets with a path: never a moment without one, never somebody else's file (S44).

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::socket::{AddressFamily, UnixAddr, bind, connect};

use crate::descriptors::{copy_descriptor, errno_of};
use crate::identity::Owner;
use crate::upgrade::Inherited;
use crate::upgrade::state::SocketFile;

use super::{ListenError, Waiting, open, owner, start_listening};

/// The file of a listening socket; it is removed with its owner if it is still ours.
#[derive(Debug)]
pub(super) struct UnixFile {
    path: PathBuf,
    inode: u64,
    /// Held for life, so that two servers never replace each other's socket.
    lock: File,
    maker: u32,
}

impl UnixFile {
    /// For the next image, which has the same pid.
    pub(super) fn hand_over<'a>(&'a self, open: &mut Inherited<'a>) -> SocketFile {
        let lock = open.keep(self.lock.as_fd());
        SocketFile { path: self.path.clone(), inode: self.inode, lock }
    }

    pub(super) fn adopt(file: &SocketFile) -> std::io::Result<Self> {
        let lock = File::from(copy_descriptor(file.lock)?);
        Ok(Self { path: file.path.clone(), inode: file.inode, lock, maker: NOBODY })
    }

    pub(super) fn take_charge(&mut self) {
        self.maker = std::process::id();
    }
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        if is_ours && self.maker == std::process::id() {
            // Somebody who removed it first has done what we wanted.
            let _gone = fs::remove_file(&self.path);
            let _gone = fs::remove_file(beside(&self.path, ".lock"));
        }
    }
}

pub(super) fn bind_path(
    path: &Path,
    waiting: Waiting,
    address: &str,
) -> Result<(OwnedFd, UnixFile), ListenError> {
    let fail = |errno| system(address, errno);
    let lock = lock(path, address)?;
    refuse_living_or_foreign(path, address)?;
    let fresh = beside(path, ".new");
    // A leftover of a server that died between two lines of this function; the lock says that nobody else uses it.
    let _none_left = fs::remove_file(&fresh);
    let fd = open(AddressFamily::Unix).map_err(fail)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(&fresh).map_err(fail)?).map_err(fail)?;
    let publish = || {
        fs::set_permissions(&fresh, Permissions::from_mode(waiting.socket_mode))?;
        let Owner { uid, gid } = waiting.socket_owner;
        if uid.is_some() || gid.is_some() {
            std::os::unix::fs::lchown(&fresh, uid, gid)?;
        }
        let inode = fs::symlink_metadata(&fresh)?.ino();
        start_listening(fd.as_fd(), waiting.backlog)?;
        fs::rename(&fresh, path)?;
        Ok(inode)
    };
    let inode = publish().map_err(|error: std::io::Error| fail(errno_of(&error)))?;
    let file = UnixFile { path: path.to_owned(), inode, lock, maker: std::process::id() };
    Ok((fd, file))
}

pub(super) fn bind_abstract(
    name: &str,
    backlog: u32,
    address: &str,
) -> Result<OwnedFd, ListenError> {
    let fail = |errno| match errno {
        Errno::EADDRINUSE => in_use(address, &format!("@{name}")),
        errno => system(address, errno),
    };
    let fd = open(AddressFamily::Unix).map_err(fail)?;
    bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes()).map_err(fail)?).map_err(fail)?;
    start_listening(fd.as_fd(), backlog).map_err(fail)?;
    Ok(fd)
}

/// A lock of the open file description: it goes with its holder, however that ends, and no child inherits it.
fn lock(path: &Path, address: &str) -> Result<File, ListenError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    let file =
        options.open(beside(path, ".lock")).map_err(|error| system(address, errno_of(&error)))?;
    let whole = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(file),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(in_use(address, &path.to_string_lossy())),
        Err(errno) => Err(system(address, errno)),
    }
}

fn refuse_living_or_foreign(path: &Path, address: &str) -> Result<(), ListenError> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        let path = path.display().to_string();
        return Err(ListenError::NotASocket { address: address.to_owned(), path });
    }
    let fail = |errno| system(address, errno);
    let probe = open(AddressFamily::Unix).map_err(fail)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path).map_err(fail)?) {
        // EAGAIN: somebody lives there whose queue is full.
        Ok(()) | Err(Errno::EAGAIN) => Err(in_use(address, &path.to_string_lossy())),
        Err(_nobody) => Ok(()),
    }
}

fn in_use(address: &str, name: &str) -> ListenError {
    ListenError::InUse { address: address.to_owned(), owner: owner::of_unix(name) }
}

fn system(address: &str, errno: Errno) -> ListenError {
    match errno {
        Errno::EACCES | Errno::EPERM => ListenError::Permission { address: address.to_owned() },
        errno => ListenError::System { address: address.to_owned(), errno },
    }
}

const NOBODY: u32 = 0;

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

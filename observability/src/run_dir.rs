//! The run directory: where a server keeps its slot files, chosen, checked and locked before anything listens (F1-F8).

mod choose;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, openat};
use nix::sys::stat::Mode;

use crate::lock;
pub use crate::run_dir::choose::{Choice, Chosen, name};

/// The file whose lock says that a supervisor lives.
pub(crate) const LOCK: &str = "lock";
/// The control socket's name; its whole path has at most 107 bytes (`sun_path`).
pub(crate) const CONTROL_SOCKET: &str = "control.sock";

/// A run directory was refused. Nothing listens then, and the exit code is 6.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Others could change it, or it is not what it seems.
    #[error(
        "run directory {path} is not safe: {reason}; remove it or choose another with --run-dir"
    )]
    NotSafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It has too little room.
    #[error(
        "run directory {path} has {free_mib} MiB free, {needed_mib} MiB are needed for {slots} slots; \
         enlarge it (docker: --shm-size or a tmpfs mount) or lower --workers"
    )]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// MiB that are free.
        free_mib: u64,
        /// MiB that would be enough.
        needed_mib: u64,
        /// Slots at the peak of a reload.
        slots: u32,
    },
    /// Another instance serves from it.
    #[error("run directory {path} is in use by {owner}; stop it or choose another with --run-dir")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// `pid P (saola V, started T)`.
        owner: String,
    },
    /// A limit of the process is too low for slot files.
    #[error("RLIMIT_FSIZE is {limit_bytes} bytes, slot files need 64 MiB; raise it (ulimit -f)")]
    FileSizeLimit {
        /// The limit in force.
        limit_bytes: u64,
    },
    /// The path is too long for the control socket.
    #[error(
        "run directory {path} is too long for a socket inside it; choose a shorter one with --run-dir"
    )]
    PathTooLong {
        /// The directory.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {attempt} run directory {path}; check it or choose another with --run-dir")]
    System {
        /// What was attempted.
        attempt: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A checked directory. Everything in it is opened relative to its descriptor. [`Epoch`](crate::Epoch) shows it at work.
///
/// Its lock belongs to the open file, not to a process: the kernel drops it at a `kill -9`, and it survives an exec.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    descriptor: OwnedFd,
    lock: Option<File>,
}

impl RunDir {
    pub(crate) fn new(path: PathBuf, descriptor: OwnedFd) -> Self {
        Self { path, descriptor, lock: None }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the control socket belongs.
    pub fn control_socket(&self) -> PathBuf {
        self.path.join(CONTROL_SOCKET)
    }

    /// Takes the directory for this process, for as long as it lives. Never waits and never takes over.
    ///
    /// # Errors
    ///
    /// [`RunDirError::InUse`] names the owner; [`RunDirError::System`] if the lock file cannot be made.
    pub fn lock(&mut self, version: &str) -> Result<(), RunDirError> {
        loop {
            let mut file = self.open_lock()?;
            if !lock::take(&file).map_err(|errno| self.failed("lock", errno))? {
                return Err(self.in_use(&mut file));
            }
            // The last owner removes the file at its end: a lock on a removed file locks nothing.
            if self.is_lock(&file) {
                return self.hold(file, version);
            }
        }
    }

    /// The lock that is held, for the image that follows this one by exec: cleared of close-on-exec it keeps the directory
    /// taken without a gap, and [`RunDir::adopt`] goes on with it there.
    pub fn lock_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.lock.as_ref().map(AsFd::as_fd)
    }

    /// Goes on with a directory whose lock was inherited over an exec. The descriptor is close-on-exec again, and the lock
    /// says this process and `version`.
    ///
    /// # Errors
    ///
    /// [`RunDirError::NotSafe`] if the directory is not safe or the descriptor is not its lock, [`RunDirError::InUse`] if
    /// another process holds it, [`RunDirError::System`] if the system refuses.
    pub fn adopt(path: &Path, held: OwnedFd, version: &str) -> Result<Self, RunDirError> {
        let mut run_dir = Self::new(path.to_owned(), choose::open_checked(path)?);
        let mut file = File::from(held);
        if !run_dir.is_lock(&file) {
            let reason = "its lock is another file than the one that was inherited".to_owned();
            return Err(RunDirError::NotSafe { path: path.to_owned(), reason });
        }
        // The lock belongs to the description that was inherited: to take it once more changes nothing.
        if !lock::take(&file).map_err(|errno| run_dir.failed("lock", errno))? {
            return Err(run_dir.in_use(&mut file));
        }
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
            .map_err(|errno| run_dir.failed("keep from children the lock of", errno))?;
        run_dir.hold(file, version)?;
        Ok(run_dir)
    }

    /// Says whether an open file is the one that has the lock's name.
    fn is_lock(&self, file: &File) -> bool {
        std::fs::symlink_metadata(self.path.join(LOCK)).is_ok_and(|named| {
            file.metadata().is_ok_and(|held| (held.dev(), held.ino()) == (named.dev(), named.ino()))
        })
    }

    /// Writes into the lock who holds it, and keeps it.
    fn hold(&mut self, file: File, version: &str) -> Result<(), RunDirError> {
        let started = crate::clock::wall_ns() / 1_000_000_000;
        let text = format!("{}\n{started}\n{version}\n", std::process::id());
        let written = file.set_len(0).and_then(|()| file.write_all_at(text.as_bytes(), 0));
        written.map_err(|error| self.failed("write the lock of", error))?;
        self.lock = Some(file);
        Ok(())
    }

    /// Removes the lock file, last of all at an orderly end, and the directory if nothing else is in it.
    pub fn release(mut self) {
        if let Some(lock) = self.lock.take() {
            // Nothing is left to be saved: a file that stays is taken over by the next start.
            let _ = std::fs::remove_file(self.path.join(LOCK));
            let _ = std::fs::remove_dir(&self.path);
            // Only now: a newcomer that gets the lock of a removed file sees that, and makes its own.
            drop(lock);
        }
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    fn open_lock(&self) -> Result<File, RunDirError> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = openat(&self.descriptor, LOCK, flags, mode).map(File::from);
        let file = file.map_err(|errno| self.failed("lock", errno))?;
        // The umask may have taken more bits than it should.
        nix::sys::stat::fchmod(&file, mode).map_err(|errno| self.failed("lock", errno))?;
        Ok(file)
    }

    fn in_use(&self, file: &mut File) -> RunDirError {
        let mut text = String::new();
        let _ = file.read_to_string(&mut text); // an owner that cannot be named is still an owner
        let mut lines = text.lines();
        let mut next = || lines.next().unwrap_or("?").to_owned();
        let (pid, started, version) = (next(), next(), next());
        let owner = format!("pid {pid} (saola {version}, started {started})");
        RunDirError::InUse { path: self.path.clone(), owner }
    }

    fn failed(&self, attempt: &'static str, source: impl Into<std::io::Error>) -> RunDirError {
        RunDirError::System { attempt, path: self.path.clone(), source: source.into() }
    }
}

/// Finds the run directory of a server that runs with the same settings: the first candidate whose lock is held.
pub fn find(choice: &Choice) -> Option<PathBuf> {
    choice.candidates().into_iter().find(|candidate| is_locked(candidate))
}

/// The version of the server that holds a directory, as it said when it took the lock.
pub(crate) fn version(run_dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(run_dir.join(LOCK)).ok()?;
    // The lines are written at once, but not in one moment: the last one ends with a newline when it is whole.
    text.ends_with('\n').then(|| text.lines().nth(2).map(str::to_owned)).flatten()
}

/// Says whether a supervisor lives in a directory.
pub fn is_locked(run_dir: &Path) -> bool {
    File::options().read(true).open(run_dir.join(LOCK)).is_ok_and(|file| {
        let mut first = [0];
        file.read_exact_at(&mut first, 0).is_ok() && lock::is_held(&file)
    })
}

//! Which directory, and whether it is fit: the first candidate that is safe and has the room (F1-F5).

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::geteuid;

use crate::layout::Shape;
use crate::run_dir::{CONTROL_SOCKET, RunDir, RunDirError};

/// `RAMFS_MAGIC` of statfs(2), which nix does not name.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
/// The smallest ring that a small directory is offered.
const SMALLEST_RING: u32 = 128 << 10;
/// The longest path of a unix socket (`sun_path`, without its end).
const LONGEST_SOCKET_PATH: usize = 107;

/// What the choice depends on: the settings and the environment, both as they were read at the start.
///
/// ```
/// use saola_observability::Choice;
///
/// let given = Choice { given: Some("/run/shop".into()), ..Choice::default() };
/// assert_eq!(given.candidates(), ["/run/shop"].map(std::path::PathBuf::from));
///
/// let name = saola_observability::run_dir::name("/usr/bin/shop".as_ref(), "127.0.0.1:8000");
/// let session = Choice { xdg_runtime_dir: Some("/run/user/7".into()), name, ..Choice::default() };
/// assert_eq!(session.candidates()[0].to_str(), Some("/run/user/7/saola/shop-127.0.0.1_8000"));
/// ```
#[derive(Clone, Default, Debug)]
pub struct Choice {
    /// `--run-dir`, if it was given: then no other is tried.
    pub given: Option<PathBuf>,
    /// `$RUNTIME_DIRECTORY`, as systemd sets it.
    pub runtime_directory: Option<OsString>,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<OsString>,
    /// The name of this server, by [`name`].
    pub name: String,
    /// Slots that exist at the peak of a reload.
    pub slots_at_peak: u32,
    /// How large slot files are to be.
    pub shape: Shape,
}

/// A directory that was chosen.
#[derive(Debug)]
pub struct Chosen {
    /// The directory.
    pub dir: RunDir,
    /// The shape that fits it: rings may be smaller than asked for.
    pub shape: Shape,
    /// What an operator should know about it, a sentence each.
    pub warnings: Vec<String>,
}

/// The name of a server: executable, `-`, first bind; each byte outside `[A-Za-z0-9._-]` as `_`, at most 64 bytes.
pub fn name(executable: &Path, first_bind: &str) -> String {
    let stem = executable.file_stem().map(OsStrExt::as_bytes).unwrap_or_default();
    let bytes = stem.iter().copied().chain([b'-']).chain(first_bind.bytes());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    bytes.map(|byte| if plain(byte) { char::from(byte) } else { '_' }).take(64).collect()
}

impl Choice {
    /// The directories that are tried, in order.
    pub fn candidates(&self) -> Vec<PathBuf> {
        if let Some(given) = &self.given {
            return vec![std::path::absolute(given).unwrap_or_else(|_| given.clone())];
        }
        let uid = geteuid();
        let systemd = self.runtime_directory.as_ref().and_then(|list| {
            let first = list.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
            (!first.is_empty())
                .then(|| PathBuf::from(std::ffi::OsStr::from_bytes(first)).join(&self.name))
        });
        let session = self.xdg_runtime_dir.as_ref().filter(|path| !path.is_empty());
        let session = session.map(|path| Path::new(path).join("saola").join(&self.name));
        let shared = ["/dev/shm", "/tmp"]
            .map(|base| Path::new(base).join(format!("saola-{uid}")).join(&self.name));
        systemd.into_iter().chain(session).chain(shared).collect()
    }
}

impl RunDir {
    /// Chooses the first fit directory and makes it if it is missing.
    ///
    /// # Errors
    ///
    /// The refusal of the last candidate, or of the one that was given.
    pub fn choose(choice: &Choice) -> Result<Chosen, RunDirError> {
        check_file_size_limit()?;
        let mut refusal = None;
        for path in choice.candidates() {
            match fit(&path, choice) {
                Ok(chosen) => return Ok(chosen),
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| RunDirError::NotSafe {
            path: PathBuf::new(),
            reason: "there is no candidate".to_owned(),
        }))
    }
}

fn check_file_size_limit() -> Result<(), RunDirError> {
    // Beyond the limit fallocate raises SIGXFSZ, which kills.
    match getrlimit(Resource::RLIMIT_FSIZE) {
        Ok((limit_bytes, _)) if limit_bytes < 64 << 20 => {
            Err(RunDirError::FileSizeLimit { limit_bytes })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn fit(path: &Path, choice: &Choice) -> Result<Chosen, RunDirError> {
    if path.join(CONTROL_SOCKET).as_os_str().len() > LONGEST_SOCKET_PATH {
        return Err(RunDirError::PathTooLong { path: path.to_owned() });
    }
    let descriptor = open_safe(path)?;
    let (shape, mut warnings) = fit_shape(path, &descriptor, choice)?;
    let kind = fstatfs(&descriptor).map(|stat| stat.filesystem_type());
    if let Ok(kind) = kind
        && kind != TMPFS_MAGIC
        && kind != RAMFS_MAGIC
    {
        warnings.push(format!(
            "run directory {} is on a file system of type {:#x}; page write-back can stall workers; put it on a tmpfs",
            path.display(),
            kind.0
        ));
    }
    Ok(Chosen { dir: RunDir::new(path.to_owned(), descriptor), shape, warnings })
}

fn open_safe(path: &Path) -> Result<OwnedFd, RunDirError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let ours = parent.file_name().is_some_and(|name| name == &*format!("saola-{}", geteuid()));
    if ours {
        make(parent)?;
        open_checked(parent)?;
    }
    make(path)?;
    open_checked(path)
}

fn make(path: &Path) -> Result<(), RunDirError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |source| RunDirError::System { attempt: "make", path: path.to_owned(), source };
    if std::fs::symlink_metadata(path).is_ok() {
        return Ok(()); // what it is, is looked at when it is open
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    // The umask may have taken more bits than it should.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)
}

pub(super) fn open_checked(path: &Path) -> Result<OwnedFd, RunDirError> {
    let not_safe =
        |reason: &str| RunDirError::NotSafe { path: path.to_owned(), reason: reason.to_owned() };
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    let descriptor = open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::ELOOP => not_safe("it is a symbolic link"),
        Errno::ENOTDIR => not_safe("it is a symbolic link or no directory"),
        other => {
            RunDirError::System { attempt: "open", path: path.to_owned(), source: other.into() }
        }
    })?;
    let stat = fstat(&descriptor).map_err(|errno| RunDirError::System {
        attempt: "look at",
        path: path.to_owned(),
        source: errno.into(),
    })?;
    if stat.st_uid != geteuid().as_raw() {
        return Err(not_safe("it belongs to another user"));
    }
    let open_to_others = Mode::S_IRWXG | Mode::S_IRWXO;
    if Mode::from_bits_truncate(stat.st_mode & !SFlag::S_IFMT.bits()).intersects(open_to_others) {
        return Err(not_safe("its mode lets other users in"));
    }
    Ok(descriptor)
}

/// Halves the rings until the slots fit twice over, because a reload doubles them.
fn fit_shape(
    path: &Path,
    descriptor: &OwnedFd,
    choice: &Choice,
) -> Result<(Shape, Vec<String>), RunDirError> {
    let stat = fstatvfs(descriptor).map_err(|errno| RunDirError::System {
        attempt: "look at",
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let mut shape = choice.shape;
    loop {
        let needed = 2 * u64::from(choice.slots_at_peak) * shape.slot_bytes();
        if free >= needed {
            let smaller = shape.ring_bytes < choice.shape.ring_bytes;
            let warning = format!(
                "run directory {} is small: rings have {} KiB instead of {} KiB",
                path.display(),
                shape.ring_bytes >> 10,
                choice.shape.ring_bytes >> 10
            );
            return Ok((shape, smaller.then_some(warning).into_iter().collect()));
        }
        if shape.ring_bytes / 2 < SMALLEST_RING {
            return Err(RunDirError::NoSpace {
                path: path.to_owned(),
                free_mib: free >> 20,
                needed_mib: needed.div_ceil(1 << 20),
                slots: choice.slots_at_peak,
            });
        }
        shape.ring_bytes /= 2;
    }
}

//! Running another program in the place of this one: what it inherits, and the way back (S50-S54).
//!
//! A state in sealed memory and the descriptors that it names go over `execve`; variables of the environment say where the
//! state is. The image before stays open until the new one has proved itself.

pub(crate) mod rehearsal;
pub(crate) mod state;

use std::ffi::{CString, OsString};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::descriptors::copy_descriptor;

/// The program that runs, and how it came to run.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Image {
    /// The program as it was started, absolute, links kept: what stands there later is what an upgrade runs.
    pub path: PathBuf,
    /// Its arguments, with its name. Copied before the supervisor's title is written over them.
    pub arguments: Vec<OsString>,
    /// How it came to run.
    pub start: Start,
}

/// How a program came to run.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Start {
    /// By itself.
    First,
    /// To show a running server that it could take over.
    Rehearsal {
        /// The state that it would take over.
        state: RawFd,
    },
    /// In the place of another, whose workers live.
    Takeover {
        /// The state that it takes over.
        state: RawFd,
        /// The program to go back to; none if this is the one that was gone back to.
        back: Option<RawFd>,
        /// Why the one before had to go back, if it could not write that into the state.
        failure: Option<String>,
    },
}

impl Start {
    /// Understands the variables by which one image tells the next what it is for.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let number = |text: &str| text.parse::<RawFd>().ok().filter(|number| *number > 2);
        if let Some(state) = variable(REHEARSAL).as_deref().and_then(number) {
            return Self::Rehearsal { state };
        }
        let Some(text) = variable(STATE) else { return Self::First };
        let (state, back) = text.split_once(',').unwrap_or((&text, ""));
        let failure = variable(FAILURE);
        number(state).map_or(Self::First, |state| Self::Takeover {
            state,
            back: number(back),
            failure,
        })
    }
}

/// The names of the variables; no child is to inherit one.
pub(crate) const VARIABLES: [&str; 3] = [STATE, REHEARSAL, FAILURE];
const STATE: &str = "SAOLA_STATE_FD";
const REHEARSAL: &str = "SAOLA_REHEARSAL_FD";
const FAILURE: &str = "SAOLA_ROLLBACK";

/// Brings the program before this one back, because this one cannot take over. Returns only if there is none, or if it
/// cannot be run.
///
/// For a caller that finds, before it runs the supervisor, that it cannot: its settings are wrong.
pub fn retreat(image: &Image, stage: &str, why: &str) {
    let Start::Takeover { state, back: Some(back), failure: None } = &image.start else { return };
    // Neither was touched: a takeover makes copies, and closes what it was given only when nothing can fail any more.
    let Ok(program) = copy_descriptor(*back) else { return };
    let variables = [(STATE, state.to_string()), (FAILURE, format!("{stage}: {why}"))];
    let _not_replaced = replace(&Program::Open(program.as_fd()), &image.arguments, &variables);
}

/// What a program that comes back after a failed upgrade was served with ([`crate::Settings::memento`]); none for any other.
pub fn recall(image: &Image) -> Option<String> {
    let Start::Takeover { state, back: None, .. } = image.start else { return None };
    state::State::parse(&unseal(state).ok()?).ok()?.memento
}

/// What `execve` is to run.
pub(crate) enum Program<'a> {
    Path(&'a Path),
    /// Also when its file has been deleted since.
    Open(BorrowedFd<'a>),
}

/// The variables of an image that takes over.
pub(crate) fn takeover_variables(
    state: BorrowedFd<'_>,
    back: Option<BorrowedFd<'_>>,
) -> Vec<(&'static str, String)> {
    let state = state.as_raw_fd();
    let text =
        back.map_or_else(|| state.to_string(), |back| format!("{state},{}", back.as_raw_fd()));
    vec![(STATE, text)]
}

/// Runs the program in the place of this one. Returns why not.
pub(crate) fn replace(
    program: &Program<'_>,
    arguments: &[OsString],
    variables: &[(&str, String)],
) -> Errno {
    let c_string = |bytes: Vec<u8>| CString::new(bytes).map_err(|_| Errno::EINVAL);
    let arguments = arguments.iter().map(|text| c_string(text.clone().into_vec()));
    let inherited = std::env::vars_os()
        .filter(|(name, _)| !VARIABLES.iter().any(|own| name.as_bytes() == own.as_bytes()));
    let added = variables.iter().map(|(name, value)| ((*name).into(), value.into()));
    let environment = inherited.chain(added).map(|(name, value): (OsString, OsString)| {
        c_string([name.as_bytes(), b"=", value.as_bytes()].concat())
    });
    let (Ok(arguments), Ok(environment)) =
        (arguments.collect::<Result<Vec<_>, _>>(), environment.collect::<Result<Vec<_>, _>>())
    else {
        return Errno::EINVAL;
    };
    let result = match program {
        Program::Path(path) => match c_string(path.as_os_str().as_bytes().to_vec()) {
            Ok(path) => nix::unistd::execve(&path, &arguments, &environment),
            Err(errno) => Err(errno),
        },
        Program::Open(fd) => nix::unistd::fexecve(fd, &arguments, &environment),
    };
    match result {
        Err(errno) => errno,
    }
}

/// Descriptors that stay open over an exec, as long as this lives.
pub(crate) struct Inherited<'a>(Vec<BorrowedFd<'a>>);

impl<'a> Inherited<'a> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Keeps it open, and says its number.
    pub(crate) fn keep(&mut self, fd: BorrowedFd<'a>) -> RawFd {
        self.0.push(fd);
        fd.as_raw_fd()
    }

    /// From here on an exec leaves them open.
    pub(crate) fn open(&self) -> nix::Result<()> {
        self.set(FdFlag::empty())
    }

    /// Without which each child that somebody else forks would hold them.
    pub(crate) fn close_on_exec(&self) {
        // It can only fail for a descriptor that is not open.
        let _closed = self.set(FdFlag::FD_CLOEXEC);
    }

    fn set(&self, flag: FdFlag) -> nix::Result<()> {
        self.0.iter().try_for_each(|fd| fcntl(fd, FcntlArg::F_SETFD(flag)).map(drop))
    }
}

/// Puts a text where the next image finds it, and nobody can change it.
pub(crate) fn seal(text: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = std::fs::File::from(memfd_create(c"saola-state", flags)?);
    file.write_all(text)?;
    let seals = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// Reads such a text.
pub(crate) fn unseal(number: RawFd) -> io::Result<Vec<u8>> {
    let file = std::fs::File::from(copy_descriptor(number)?);
    let length = usize::try_from(file.metadata()?.len()).unwrap_or_default().min(LARGEST_STATE);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// A thousand workers and their clients are a tenth of it.
const LARGEST_STATE: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_say_what_a_program_is_for() {
        let of = |variables: &[(&str, &str)]| {
            Start::of(|name| {
                let found = variables.iter().find(|(own, _)| *own == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[]), Start::First);
        assert_eq!(of(&[(STATE, "nonsense")]), Start::First);
        assert_eq!(of(&[(REHEARSAL, "7")]), Start::Rehearsal { state: 7 });
        let forward = Start::Takeover { state: 7, back: Some(8), failure: None };
        assert_eq!(of(&[(STATE, "7,8")]), forward);
        let failure = Some("settings: no".to_owned());
        let back = Start::Takeover { state: 7, back: None, failure };
        assert_eq!(of(&[(STATE, "7"), (FAILURE, "settings: no")]), back);
    }

    #[test]
    fn a_sealed_text_is_read_as_often_as_wanted_and_changed_by_nobody() {
        let sealed = seal(b"state").unwrap();
        for _ in 0..2 {
            assert_eq!(unseal(sealed.as_raw_fd()).unwrap(), b"state");
        }
        assert!(std::fs::File::from(sealed).write_all(b"x").is_err());
        assert!(unseal(9_999).is_err());
    }
}

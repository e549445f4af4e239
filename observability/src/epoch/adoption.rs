//! A supervisor that was replaced by another image of itself goes on with the epoch it had (S53, F58).

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::clock::monotonic_ns;
use crate::closed::{Role, SlotState};
use crate::epoch::{Epoch, keep_from_children, keep_slot_from_children, random};
use crate::epoch_files::{BadSlot, ReadError, current, open_new};
use crate::header::WhyBad;
use crate::layout::{SLOTS_AT, Shape, size, wide};
use crate::run_dir::RunDir;
use crate::slot::{Slot, SlotError, SlotFiles, reopen};
use crate::view::{View, named};

impl Epoch {
    /// Goes on with the epoch in use of an adopted run directory, after an exec in place: its workers live, its slots keep
    /// their numbers and count on. New slots get `shape`. A worker that has died meanwhile is buried as ever.
    ///
    /// # Errors
    ///
    /// [`SlotError::Bad`] if a file is damaged, missing or of another format: then the way on is [`Epoch::create`].
    /// [`SlotError::Locked`] if a process other than the old image holds the supervisor's file. [`SlotError::System`] if a
    /// file cannot be opened.
    pub fn adopt(run_dir: &RunDir, shape: Shape) -> Result<Self, SlotError> {
        let (path, number) = current(run_dir.path()).map_err(not_found)?;
        let name = format!("epoch-{number:06}");
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = openat(run_dir.descriptor(), name.as_str(), flags, Mode::empty())
            .map_err(|errno| SlotError::system(format!("open {}", path.display()), errno))?;

        // All are looked at before one is taken over: of a damaged epoch this process becomes the owner of nothing.
        let (views, bad) = open_new(&path, number, true, |_, _| false).map_err(not_found)?;
        if let Some(bad) = bad.into_iter().next() {
            return Err(SlotError::Bad { number: number_of(&bad), why: bad.why });
        }
        let (mut supervisor_file, mut observer, mut workers) = (None, None, Vec::new());
        for view in views {
            keep_from_children(&view.map)?;
            match view.role {
                Role::Supervisor => supervisor_file = Some(view),
                Role::Observer => observer = Some(view),
                Role::Worker => {
                    let at = wide(view.number);
                    workers.resize_with(workers.len().max(at + 1), || None);
                    workers[at] = Some(view);
                }
            }
        }
        let gone = SlotError::Bad { number: 0, why: WhyBad::Gone };
        let (Some(supervisor_file), Some(observer)) = (supervisor_file, observer) else {
            return Err(gone);
        };
        check_number(&workers, size(supervisor_file.map.load(SLOTS_AT)))?;

        let files = SlotFiles {
            file: reopen(&directory, "supervisor")?,
            bell: reopen(&directory, "supervisor")?,
        };
        let supervisor = Slot::attach(files)?;
        keep_slot_from_children(supervisor)?;
        supervisor.set_state(SlotState::Ready);
        Ok(Self {
            path,
            directory,
            run_dir: run_dir.path().to_owned(),
            number,
            created_ns: observer.created_ns(),
            begun_ns: monotonic_ns(),
            image: random(),
            shape,
            supervisor,
            supervisor_file,
            observer,
            workers,
        })
    }
}

/// A slot whose file was deleted would be made anew, and all that it counted would be missing from every sum.
fn check_number(workers: &[Option<View>], made: usize) -> Result<(), SlotError> {
    if workers.iter().flatten().count() >= made {
        return Ok(());
    }
    let missing = workers.iter().position(Option::is_none).unwrap_or(workers.len());
    Err(SlotError::Bad { number: u32::try_from(missing).unwrap_or(u32::MAX), why: WhyBad::Gone })
}

fn number_of(bad: &BadSlot) -> u32 {
    let name = bad.path.file_name().and_then(|name| name.to_str());
    name.and_then(named).map_or(0, |(_, number)| number)
}

fn not_found(error: ReadError) -> SlotError {
    let source = match error {
        ReadError::NoServer(_) => Errno::ENOENT.into(),
        ReadError::System { source, .. } => source,
    };
    SlotError::system("find the epoch in use", source)
}

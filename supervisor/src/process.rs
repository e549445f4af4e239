//! The only fork of Saola, what a child does before its own code, and the reaping of the dead.
//! Processes are signalled through their pidfd, so that a pid that was given out anew is never hit.

mod reap;
mod title;

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{ForkResult, Pid, getpid, getppid};

use crate::identity::Identity;
use crate::lifecycle::cause::PANICKED;
use crate::lifecycle::event::ForkFailure;

use crate::upgrade::state::Child;

pub(crate) use reap::{Reaped, reap};
pub(crate) use title::Title;
pub use title::WorkerTitle;

/// A child that was forked and not yet reaped.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// A child that another image has forked and that is still ours: dead or alive, its pid is its own until it is reaped.
    pub(crate) fn adopt(child: Child) -> nix::Result<Self> {
        let pid = i32::try_from(child.pid).map_err(|_| Errno::ESRCH)?;
        if start_time(child.pid) != Some(child.start_time) {
            return Err(Errno::ESRCH);
        }
        let pid = Pid::from_raw(pid);
        Ok(Self { pid, pidfd: open_pidfd(pid)? })
    }

    /// For the next image.
    pub(crate) fn hand_over(&self) -> Child {
        let pid = self.pid();
        Child { pid, start_time: start_time(pid).unwrap_or_default() }
    }

    /// Sends `signal`; a child that has died meanwhile is about to be reaped and needs none.
    pub(crate) fn signal(&self, signal: Signal) {
        send(&self.pidfd, signal);
    }

    /// Sends a real-time signal, which has no name of its own.
    pub(crate) fn signal_number(&self, number: i32) {
        send_number(&self.pidfd, number);
    }

    /// What it does, as the kernel writes it: `R` runs, `S` sleeps, `D` waits for a disk, `T` is stopped, `Z` is dead.
    pub(crate) fn state(&self) -> Option<char> {
        stat(self.pid(), 3)?.chars().next()
    }

    /// Memory of its own: what was shared at the fork does not count (S33).
    pub(crate) fn private_bytes(&self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).ok()?;
        let names = ["Private_Clean:", "Private_Dirty:", "Swap:"];
        let kib = text.lines().filter_map(|line| {
            let (name, rest) = line.split_once(char::is_whitespace)?;
            let number = rest.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
            names.contains(&name).then_some(number)
        });
        Some(kib.sum::<u64>() * 1024)
    }

    /// It has died, though nobody reaped it yet.
    pub(crate) fn is_dead(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

/// When a process was born, in clock ticks since the machine was.
fn start_time(pid: u32) -> Option<u64> {
    stat(pid, 22)?.parse().ok()
}

/// A field of `/proc/PID/stat`, numbered as in proc(5), from 3 on.
fn stat(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(field.checked_sub(3)?).map(str::to_owned)
}

/// What a child is to be.
pub(crate) struct Plan<'a> {
    pub(crate) role: Role,
    /// Who it is, if somebody else than the supervisor.
    pub(crate) identity: Option<&'a Identity>,
    pub(crate) title: Title,
    /// `saola: worker 3`.
    pub(crate) name: &'a str,
}

/// What a child is born with.
pub(crate) trait Inheritance {
    /// All that it keeps open besides standard input, output and error.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Role {
    Worker,
    Observer,
}

/// Forks a child that runs `body` and ends with its code; `body` never returns into the supervisor, whose copies of what
/// the child inherits are closed at once (F13).
pub(crate) fn fork<I: Inheritance>(
    plan: &Plan<'_>,
    inheritance: I,
    body: impl FnOnce(I) -> u8,
) -> Result<Process, ForkFailure> {
    if !other_threads().is_empty() {
        return Err(ForkFailure::Threads);
    }
    let parent = getpid();
    match fork_alone().map_err(|errno| ForkFailure::System(errno.desc().to_owned()))? {
        ForkResult::Child => {
            let code = live(plan, parent, inheritance, body);
            end(code)
        }
        ForkResult::Parent { child } => match open_pidfd(child) {
            Ok(pidfd) => Ok(Process { pid: child, pidfd }),
            Err(errno) => {
                // No descriptor is left: a child that cannot be signalled safely must not live. It was not reaped,
                // so its pid is still its own; the reap loop meets it as an unknown child.
                let _already_dead = nix::sys::signal::kill(child, Signal::SIGKILL);
                Err(ForkFailure::System(errno.desc().to_owned()))
            }
        },
    }
}

/// The names of all threads of this process but the calling one (S2).
pub(crate) fn other_threads() -> Vec<String> {
    let own = nix::unistd::gettid().to_string();
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    tasks
        .flatten()
        .filter(|task| task.file_name().to_string_lossy() != own)
        .map(|task| {
            let name = fs::read_to_string(task.path().join("comm"));
            name.map_or_else(|_| "?".to_owned(), |name| name.trim_end().to_owned())
        })
        .collect()
}

#[expect(unsafe_code, clippy::disallowed_methods, reason = "the one fork")]
fn fork_alone() -> nix::Result<ForkResult> {
    // SAFETY: fork(2) copies only the calling thread, so a lock that another thread holds stays locked for ever in the
    // child. The caller has counted the threads: there is no other, and only this thread could have started one since.
    unsafe { nix::unistd::fork() }
}

/// The child's way to its own code (S21). Any refusal of the system ends it as a failed boot.
fn live<I: Inheritance>(
    plan: &Plan<'_>,
    parent: Pid,
    inheritance: I,
    body: impl FnOnce(I) -> u8,
) -> u8 {
    if let Err(code) = prepare(plan, parent, &inheritance.descriptors()) {
        return code;
    }
    let code = catch_unwind(AssertUnwindSafe(|| body(inheritance)))
        .unwrap_or(u8::try_from(PANICKED).unwrap_or(u8::MAX));
    // Whoever printed without a newline would lose it: `_exit` flushes nothing. A closed stdout is nobody's fault.
    let _closed = std::io::stdout().flush();
    code
}

fn prepare(plan: &Plan<'_>, parent: Pid, keep: &[BorrowedFd<'_>]) -> Result<(), u8> {
    const FAILED_BOOT: u8 = 3;
    let death_signal = match plan.role {
        Role::Worker => Some(Signal::SIGTERM),
        // It reads to the end what the workers leave; its lifeline tells it (O3).
        Role::Observer => None,
    };
    let follow_parent = || {
        prctl::set_pdeathsig(death_signal).map_err(|_| FAILED_BOOT)?;
        let is_orphan = plan.role == Role::Worker && getppid() != parent;
        if is_orphan { Err(0) } else { Ok(()) }
    };
    follow_parent()?;
    // Before anything else touches a descriptor: an epoll set or signalfd of the parent's is the parent's.
    close_all_but(keep).map_err(|_| FAILED_BOOT)?;
    set_dispositions(plan.role).map_err(|_| FAILED_BOOT)?;
    if plan.role == Role::Worker {
        be_taken_first();
    }
    if let Some(identity) = plan.identity {
        identity.assume().map_err(|_| FAILED_BOOT)?;
        // A change of the user has cleared it.
        follow_parent()?;
    }
    plan.title.set(plan.name);
    forget_what_names_the_supervisor();
    SigSet::all().thread_unblock().map_err(|_| FAILED_BOOT)
}

fn close_all_but(keep: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let mut kept: Vec<RawFd> =
        keep.iter().map(std::os::fd::AsRawFd::as_raw_fd).filter(|&fd| fd > 2).collect();
    kept.sort_unstable();
    kept.dedup();
    let mut first = 3;
    for fd in &kept {
        close_range(first, fd - 1)?;
        first = fd + 1;
    }
    close_range(first, RawFd::MAX)?;
    for fd in keep {
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "nix has no close_range")]
fn close_range(first: RawFd, last: RawFd) -> nix::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: close_range(2) takes three integers. It closes descriptors whose owners live in this child's copy of the
    // supervisor's memory; none of them is used or dropped here, for the child ends in `_exit`.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(result).map(drop)
}

fn set_dispositions(role: Role) -> nix::Result<()> {
    use Signal as S;

    let always = [
        S::SIGINT,
        S::SIGHUP,
        S::SIGUSR1,
        S::SIGUSR2,
        S::SIGTTIN,
        S::SIGTTOU,
        S::SIGWINCH,
        S::SIGPIPE,
    ];
    let ignored = match role {
        Role::Worker => &[][..],
        Role::Observer => &[S::SIGTERM, S::SIGQUIT][..],
    };
    for signal in Signal::iterator() {
        // These two cannot be set. SEGV and BUS lose the runtime's handler: it would swallow one that somebody sends.
        if matches!(signal, S::SIGKILL | S::SIGSTOP) {
            continue;
        }
        let is_ignored = always.contains(&signal) || ignored.contains(&signal);
        dispose(signal, if is_ignored { SigHandler::SigIgn } else { SigHandler::SigDfl })?;
    }
    ignore_dumps();
    Ok(())
}

/// Until the child handles it, a request for its stack is nothing: the default action would end it.
#[expect(unsafe_code, reason = "nix has no real-time signals")]
fn ignore_dumps() {
    // SAFETY: signal(2) is dangerous for what a handler may do; SIG_IGN runs no code.
    unsafe { libc::signal(dump_signal(), libc::SIG_IGN) };
}

/// Sets a signal to be ignored or to act as the system has it.
#[expect(unsafe_code, reason = "sigaction is unsafe because of handlers")]
pub(crate) fn dispose(signal: Signal, what: SigHandler) -> nix::Result<SigHandler> {
    let action = SigAction::new(what, SaFlags::empty(), SigSet::empty());
    // SAFETY: sigaction(2) is dangerous for what a handler may do; callers hand in SigIgn or SigDfl only, which run no code.
    let old = unsafe { sigaction(signal, &action) }?;
    Ok(old.handler())
}

/// When memory runs out the kernel is to take a worker, not the supervisor. Raising needs no privilege; where `/proc` is
/// read-only it stays as it is.
fn be_taken_first() {
    const PATH: &str = "/proc/self/oom_score_adj";
    let own = fs::read_to_string(PATH)
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok())
        .unwrap_or_default();
    let _read_only = fs::write(PATH, (own + 100).min(1000).to_string());
}

#[expect(
    unsafe_code,
    clippy::disallowed_methods,
    reason = "the variables speak of the supervisor's pid"
)]
fn forget_what_names_the_supervisor() {
    let names = [
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    ];
    for name in names.into_iter().chain(crate::upgrade::VARIABLES) {
        // SAFETY: remove_var must not race with another thread's look at the environment; a child has one thread until
        // its own code runs.
        unsafe { std::env::remove_var(name) };
    }
}

#[expect(
    unsafe_code,
    reason = "no destructor and no exit handler of the supervisor may run in a child"
)]
fn end(code: u8) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code.into()) }
}

#[expect(unsafe_code, clippy::disallowed_methods, reason = "nix has no pidfd_open")]
fn open_pidfd(child: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes two integers. The child was not reaped, so its pid is its own.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: from_raw_fd wants an open descriptor that nobody else owns: the call above has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send(pidfd: &OwnedFd, signal: Signal) {
    send_number(pidfd, signal_number(signal));
}

/// Asks a worker for its stack. A value of run time: the C library keeps the first real-time signals.
pub(crate) fn dump_signal() -> i32 {
    libc::SIGRTMIN() + 1
}

/// Adds the signal for dumps, which nix cannot name, to a set.
#[expect(unsafe_code, reason = "nix has no real-time signals")]
pub(crate) fn with_dump_signal(set: SigSet) -> SigSet {
    let mut raw = *set.as_ref();
    // SAFETY: sigaddset(3) changes the set, which is initialised and ours; the signal's number is valid.
    unsafe { libc::sigaddset(&raw mut raw, dump_signal()) };
    // SAFETY: what is in the set are signals; one that nix has no name for is never asked for by name.
    unsafe { SigSet::from_sigset_t_unchecked(raw) }
}

#[expect(unsafe_code, reason = "nix has no pidfd_send_signal")]
fn send_number(pidfd: &OwnedFd, number: i32) {
    let number = libc::c_long::from(number);
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: pidfd_send_signal(2) reads nothing of ours when its info is null; the descriptor is open by its type.
    // ESRCH, the one refusal that can come, says that the child is dead already.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, no_info, 0) };
}

#[expect(clippy::as_conversions, reason = "a fieldless enum whose values are the numbers")]
pub(crate) fn signal_number(signal: Signal) -> i32 {
    signal as i32
}

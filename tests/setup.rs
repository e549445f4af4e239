//! How a server is to be started: arguments, environment, program, and what becomes of its output.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::output::Output;
use crate::server::Server;
use crate::wait;

/// A program in a group of its own that is to end by itself; a test that fails over it leaves none of it behind.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let group = Pid::from_raw(self.0.id().cast_signed());
            let _gone = killpg(group, Signal::SIGKILL);
            let _reaped = self.0.wait();
        }
    }
}

/// A server before its start.
pub(crate) struct Setup {
    program: PathBuf,
    /// What stands before the arguments when the program is started by another.
    wrapper: Vec<OsString>,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdout: Stdout,
    has_defaults: bool,
    folder: Arc<TempDir>,
    /// A cgroup to run in.
    group: Option<PathBuf>,
}

/// Where the lines go.
pub(crate) enum Stdout {
    /// Into memory, for the test to read.
    Kept,
    /// Into a pipe that nobody reads until the test does.
    Unread,
    /// Nowhere: the descriptor is not open.
    Closed,
    /// Into this descriptor.
    Given(OwnedFd),
}

/// A program that ended by itself.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Setup {
    pub(crate) fn new() -> Self {
        // On a tmpfs where there is one: page write-back of a disk would stall the workers of every test.
        let shared_memory = Path::new("/dev/shm");
        let folder = tempfile::Builder::new().prefix("saola-test-").tempdir_in(shared_memory);
        Self {
            program: PathBuf::from(env!("CARGO_BIN_EXE_saola")),
            wrapper: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            stdout: Stdout::Kept,
            has_defaults: true,
            folder: Arc::new(folder.or_else(|_| TempDir::new()).unwrap()),
            group: None,
        }
    }

    /// An example of this package, which cargo builds beside the binary.
    pub(crate) fn of_example(name: &str) -> Self {
        Self::new().program(&Self::example(name))
    }

    /// Where cargo puts an example.
    pub(crate) fn example(name: &str) -> PathBuf {
        Path::new(env!("CARGO_BIN_EXE_saola")).parent().unwrap().join("examples").join(name)
    }

    /// In this cgroup.
    pub(crate) fn within(mut self, group: &Path) -> Self {
        self.group = Some(group.to_owned());
        self
    }

    /// Another program than the reference application.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    pub(crate) fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(args.into_iter().map(OsString::from));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn stdout(mut self, stdout: Stdout) -> Self {
        self.stdout = stdout;
        self
    }

    /// Lets each of its processes open so many files.
    pub(crate) fn descriptors(self, limit: u32) -> Self {
        self.started_by(&["sh", "-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")])
    }

    /// Another program starts it, which gets its path and arguments behind its own.
    pub(crate) fn started_by(mut self, command: &[&str]) -> Self {
        let (first, rest) = command.split_first().expect("a program");
        let program = std::mem::replace(&mut self.program, PathBuf::from(first));
        self.wrapper = rest.iter().map(OsString::from).chain([program.into()]).collect();
        self
    }

    /// Adds no argument of its own: what is not said has Saola's default.
    pub(crate) fn bare(mut self) -> Self {
        self.has_defaults = false;
        self
    }

    /// Shares the folder, and so the run directory, of another server.
    pub(crate) fn in_folder_of(mut self, other: &Server) -> Self {
        self.folder = other.folder();
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it and waits until it has said `started`.
    pub(crate) fn start(self) -> Server {
        let server = self.start_without_waiting();
        server.until_line("the server has started", |line| line.is("started"));
        server
    }

    pub(crate) fn start_without_waiting(mut self) -> Server {
        let is_read = !matches!(self.stdout, Stdout::Unread);
        let child = self.spawn();
        Server::of(child, self.folder, is_read)
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Ended {
        self.run_within(wait::DEADLINE)
    }

    /// As [`Self::run`], for what takes its time by design.
    pub(crate) fn run_within(mut self, limit: Duration) -> Ended {
        let mut running = Running(self.spawn());
        let child = &mut running.0;
        let (stdout, stderr) = (Output::of(child.stdout.take()), Output::of(child.stderr.take()));
        let mut status = None;
        wait::until_or_within(
            limit,
            "the program has ended",
            || {
                status = child.try_wait().unwrap();
                status.is_some()
            },
            || format!("{}\n{}", stdout.tail(), stderr.tail()),
        );
        let code = status.and_then(|status| status.code()).unwrap_or(-1);
        Ended { code, stdout: stdout.to_end().join("\n"), stderr: stderr.to_end().join("\n") }
    }

    fn spawn(&mut self) -> Child {
        // Whoever loses its parent becomes ours, so that it can be reaped and counted.
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let mut command = Command::new(&self.program);
        // A database of its own, unless the test names another.
        let database = format!("sqlite:{}", self.folder().join("saola.db").display());
        command.args(&self.wrapper).env_clear().env("DATABASE_URL", database);
        command.envs(self.env.clone());
        if let Some(path) = std::env::vars_os().find(|(name, _)| name == "PATH") {
            command.env("PATH", path.1);
        }
        if !self.env.iter().any(|(name, _)| name == "DATABASE_URL") {
            command
                .env("DATABASE_URL", format!("sqlite:{}", self.folder().join("app.db").display()));
        }
        if self.has_defaults {
            let has =
                |name: &str| self.args.iter().any(|arg| arg.to_string_lossy().starts_with(name));
            let run_dir = self.folder().join("run").to_string_lossy().into_owned();
            for (name, value) in [
                ("--bind", "127.0.0.1:0"),
                ("--admin-bind", "127.0.0.1:0"),
                ("--workers", "2"),
                ("--run-dir", &run_dir),
            ] {
                if !has(name) {
                    command.args([name, value]);
                }
            }
        }
        command.args(&self.args).process_group(0).stdin(Stdio::null()).stderr(Stdio::piped());
        match std::mem::replace(&mut self.stdout, Stdout::Kept) {
            Stdout::Kept | Stdout::Unread => command.stdout(Stdio::piped()),
            Stdout::Given(descriptor) => command.stdout(descriptor),
            Stdout::Closed => {
                command = through_shell(&command, "exec \"$0\" \"$@\" >&-");
                command.stdout(Stdio::null())
            }
        };
        if let Some(group) = &self.group {
            let script = format!("echo $$ > {}/cgroup.procs; exec \"$0\" \"$@\"", group.display());
            command = through_shell(&command, &script);
            command.stdout(Stdio::piped());
        }
        command.spawn().unwrap_or_else(|error| {
            panic!(
                "cannot start {}: {error}; examples are built by `cargo test` without --test",
                self.program.display()
            )
        })
    }
}

/// The same, begun by a script of the shell that ends in the program.
fn through_shell(command: &Command, script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(command.get_program()).args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.process_group(0).stdin(Stdio::null()).stderr(Stdio::piped());
    shell
}

/// The process as nix names it.
pub(crate) fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

//! The servers that are measured: processes of their own, whose time and memory `/proc` tells.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A running server; it ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    _folder: TempDir,
}

impl Server {
    /// This program again, as hyper alone.
    pub(crate) fn bare(kind: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(kind);
        Self::start(command, tempfile::tempdir().unwrap())
    }

    /// An example with two workers.
    pub(crate) fn example(name: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::example_of(2, name, args, env)
    }

    pub(crate) fn example_of(
        workers: u32,
        name: &str,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        // target/release/deps/serving-… and target/release/examples/…
        let deps = std::env::current_exe().unwrap();
        let examples = deps.ancestors().nth(2).unwrap().join("examples");
        Self::program(examples.join(name), workers, args, env)
    }

    /// A program that the library serves.
    pub(crate) fn program(
        path: impl AsRef<OsStr>,
        workers: u32,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut command = Command::new(path);
        command.env_clear().envs(env.iter().copied());
        let workers = workers.to_string();
        command.args(["--bind", "127.0.0.1:0", "--admin-bind", "off", "--workers", &workers]);
        command.args(["--log-format", "logfmt", "--keepalive-requests", "1000000"]);
        command.arg("--run-dir").arg(folder.path().join("run")).args(args);
        Self::start(command, folder)
    }

    fn start(mut command: Command, folder: TempDir) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts; the examples are built by cargo build --release --examples");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_bare = |line: &str| line.starts_with("address=");
        let mut address = String::new();
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, rest)) = line.split_once("address=") {
                rest.split(' ').next().unwrap().clone_into(&mut address);
            }
            if is_bare(&line) || line.contains("msg=started") {
                break;
            }
        }
        // Its lines are read, as in earnest, and thrown away.
        drain(lines);
        Self { child, address, _folder: folder }
    }

    /// The process and its children; only the workers if so wished.
    pub(crate) fn pids(&self, only_workers: bool) -> Vec<u32> {
        let own = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        let all = std::iter::once(own).chain(children);
        all.filter(|pid| {
            let title = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let title = String::from_utf8_lossy(&title);
            !only_workers || title.starts_with("saola: worker") || !title.starts_with("saola:")
        })
        .collect()
    }

    /// Time on a CPU, of all threads.
    pub(crate) fn cpu_ns(&self, only_workers: bool) -> u64 {
        let threads = self.pids(only_workers).into_iter().flat_map(threads);
        let ran = threads.map(|task| {
            let stat = std::fs::read_to_string(format!("{task}/schedstat")).unwrap_or_default();
            stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
        });
        ran.sum()
    }

    /// Waits until nothing of it has run for a while.
    pub(crate) fn settle(&self) {
        let mut before = 0;
        loop {
            let now = self.cpu_ns(false);
            if now - before < 2_000_000 {
                return;
            }
            before = now;
            pause(Duration::from_millis(60));
        }
    }
}

/// The folders of a process's threads.
pub(crate) fn threads(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    tasks.filter_map(|task| Some(task.ok()?.path().to_str()?.to_owned())).collect()
}

#[expect(clippy::disallowed_methods, reason = "this program does not fork")]
fn drain(lines: impl Iterator + Send + 'static) {
    std::thread::spawn(move || lines.for_each(drop));
}

#[expect(clippy::disallowed_methods, reason = "between two looks")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

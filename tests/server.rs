//! A server of the test's own: on free ports, in a folder of its own, killed and reaped when it is dropped.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, ChildStdout};
use std::sync::Arc;

use hyper::Request;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client::{self, Answer};
use crate::lines::Line;
use crate::metrics::Metrics;
use crate::output::Output;
use crate::setup::{Setup, pid_of};
use crate::wait;

pub(crate) struct Server {
    child: RefCell<Child>,
    group: Pid,
    stdout: Output,
    stderr: Output,
    /// Whether `stdout` is read from the start.
    is_read: bool,
    unread: RefCell<Option<ChildStdout>>,
    listening: RefCell<Listening>,
    folder: Arc<TempDir>,
}

/// The lines about its listeners, as far as its output was looked through.
#[derive(Default)]
struct Listening {
    read: usize,
    lines: Vec<Line>,
}

/// A place of a worker.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug)]
pub(crate) struct Slot(pub(crate) u32);

/// The living processes of a server, by their titles.
#[derive(Clone, Default, Debug)]
pub(crate) struct Pids {
    pub(crate) observer: Option<Pid>,
    pub(crate) workers: BTreeMap<Slot, Pid>,
}

impl Server {
    /// Starts the reference application with these arguments.
    pub(crate) fn start<'a>(args: impl IntoIterator<Item = &'a str>) -> Self {
        Setup::new().args(args).start()
    }

    /// The same, in a cgroup.
    pub(crate) fn start_within<'a>(
        group: &std::path::Path,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Setup::new().within(group).args(args).start()
    }

    pub(crate) fn of(mut child: Child, folder: Arc<TempDir>, is_read: bool) -> Self {
        let group = pid_of(&child);
        let stderr = Output::of(child.stderr.take());
        let pipe = child.stdout.take();
        let (stdout, unread) =
            if is_read { (Output::of(pipe), None) } else { (Output::default(), pipe) };
        Self {
            child: RefCell::new(child),
            group,
            stdout,
            stderr,
            is_read,
            unread: RefCell::new(unread),
            listening: RefCell::default(),
            folder,
        }
    }

    // ---- addresses and folders

    /// The addresses of the service, in the order of their binds.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.addresses_of("service")
    }

    pub(crate) fn address(&self) -> String {
        self.addresses().into_iter().next().expect("the server has said where it listens")
    }

    pub(crate) fn admin(&self) -> String {
        self.addresses_of("admin").into_iter().next().expect("the server has an admin listener")
    }

    /// Looks at each line once: a test asks for an address with every request, and its server may have said a lot.
    fn addresses_of(&self, role: &str) -> Vec<String> {
        let Listening { read, lines } = &mut *self.listening.borrow_mut();
        let new = self.stdout.since(*read);
        *read += new.len();
        lines.extend(new.iter().map(|text| Line::parse(text)).filter(|line| line.is("listening")));
        let of_role = lines.iter().filter(|line| line.get("role") == role);
        of_role.map(|line| line.get("address").to_owned()).collect()
    }

    pub(crate) fn folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// The files of the run directory now.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        files_below(self.run_dir())
    }

    // ---- requests

    pub(crate) fn get(&self, path: &str) -> Answer {
        client::get(&self.address(), path)
    }

    pub(crate) fn send(&self, request: Request<&'static str>) -> Answer {
        client::send(&self.address(), request).unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    pub(crate) fn admin_get(&self, path: &str) -> Answer {
        client::get(&self.admin(), path)
    }

    /// A scrape of the admin listener.
    pub(crate) fn metrics(&self) -> Metrics {
        let answer = self.admin_get("/metrics");
        Metrics::parse(answer.expect_status(200).text())
    }

    // ---- lines

    /// Every line so far; one that breaks the contract fails the test.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.stdout.lines().iter().map(|text| Line::parse(text)).collect()
    }

    pub(crate) fn lines_of(&self, msg: &str) -> Vec<Line> {
        self.lines().into_iter().filter(|line| line.is(msg)).collect()
    }

    /// The access line of a request, when it has come.
    pub(crate) fn access_line(&self, request_id: &str) -> Line {
        self.until_line(&format!("the line of request {request_id}"), |line| {
            line.is("request") && line.get("request_id") == request_id
        })
    }

    pub(crate) fn stdout(&self) -> Output {
        self.stdout.clone()
    }

    pub(crate) fn stderr(&self) -> Output {
        self.stderr.clone()
    }

    /// The pipe that nobody reads.
    pub(crate) fn take_unread(&self) -> ChildStdout {
        self.unread.borrow_mut().take().expect("it was started with an unread stdout")
    }

    // ---- waiting

    /// Waits until the metrics say so.
    pub(crate) fn until(&self, what: &str, mut condition: impl FnMut(&Metrics) -> bool) {
        // The observer may be the one that was killed: no answer is no news.
        let scrape = || {
            client::try_get(&self.admin(), "/metrics").ok().filter(|answer| answer.status == 200)
        };
        self.until_true(what, || {
            scrape().is_some_and(|answer| condition(&Metrics::parse(answer.text())))
        });
    }

    pub(crate) fn until_true(&self, what: &str, condition: impl FnMut() -> bool) {
        wait::until_or(what, condition, || self.tail());
    }

    /// Waits for a line and gives it.
    pub(crate) fn until_line(&self, what: &str, is_wanted: impl Fn(&Line) -> bool) -> Line {
        let (mut found, mut read) = (None, 0);
        self.until_true(what, || {
            let lines = self.stdout.since(read);
            read += lines.len();
            found = lines.iter().map(|text| Line::parse(text)).find(&is_wanted);
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits until the observer has seen all workers, which may take it a second.
    pub(crate) fn until_observed(&self, workers: usize) {
        self.until_true("the observer sees every worker", || {
            let status = self.admin_get("/status").json();
            let rings = status["observer"]["rings"].as_array().cloned().unwrap_or_default();
            // A worker has two.
            rings.iter().filter(|ring| ring["of"] == "worker").count() == 2 * workers
        });
    }

    /// Waits until an observer and `workers` workers are there.
    pub(crate) fn until_whole(&self, workers: usize) -> Pids {
        wait::until_or("every process is there", || self.is_whole(workers), || self.tail());
        self.pids()
    }

    fn is_whole(&self, workers: usize) -> bool {
        let pids = self.pids();
        pids.workers.len() == workers && pids.observer.is_some()
    }

    fn tail(&self) -> String {
        format!(
            "stdout:\n{}\nstderr:\n{}\n{:?}",
            self.stdout.tail(),
            self.stderr.tail(),
            self.pids()
        )
    }

    // ---- processes

    pub(crate) fn supervisor(&self) -> Pid {
        self.group
    }

    pub(crate) fn pids(&self) -> Pids {
        let mut pids = Pids::default();
        for (pid, title) in titles(self.group) {
            if let Some(rest) = title.strip_prefix("saola: worker ") {
                let number = rest.split(' ').next().and_then(|number| number.parse().ok());
                pids.workers.insert(Slot(number.expect("a worker's title has its slot")), pid);
            } else if title.starts_with("saola: observer") {
                pids.observer = Some(pid);
            }
        }
        pids
    }

    pub(crate) fn worker(&self, slot: Slot) -> Pid {
        *self
            .pids()
            .workers
            .get(&slot)
            .unwrap_or_else(|| panic!("no worker in {slot:?}\n{}", self.tail()))
    }

    /// Kills the worker of a slot, and returns who it was.
    pub(crate) fn kill(&self, slot: Slot) -> Pid {
        let pid = self.worker(slot);
        kill(pid, Signal::SIGKILL).unwrap();
        pid
    }

    /// Stops the worker of a slot where it stands, and returns who it is once none of its threads can do anything more.
    pub(crate) fn freeze(&self, slot: Slot) -> Pid {
        let pid = self.worker(slot);
        kill(pid, Signal::SIGSTOP).unwrap();
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        let tasks = || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        self.until_true("it stands still", || tasks().all(is_stopped));
        pid
    }

    /// Signals the supervisor.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.group, signal).unwrap();
    }

    /// Stops it by SIGTERM and gives the exit code.
    pub(crate) fn stop(&self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.wait_for_end()
    }

    /// Stops it without grace, whatever is in flight.
    pub(crate) fn stop_at_once(&self) -> i32 {
        self.signal(Signal::SIGQUIT);
        self.wait_for_end()
    }

    /// Waits for its end, checks that it left neither process nor file, and gives the exit code.
    pub(crate) fn wait_for_end(&self) -> i32 {
        let code = self.wait_for_exit();
        self.until_true("no process of the server is left", || is_empty(self.group));
        if self.is_read {
            self.stdout.to_end();
        }
        let left = files_below(self.run_dir());
        assert!(left.is_empty(), "left in the run directory: {left:?}");
        code
    }

    /// Waits for the end of the supervisor and gives its exit code, −1 for a signal.
    pub(crate) fn wait_for_exit(&self) -> i32 {
        let status = wait::until_some("the supervisor has ended", || {
            self.child.borrow_mut().try_wait().unwrap()
        });
        status.code().unwrap_or(-1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it was stopped already.
        let _gone = killpg(self.group, Signal::SIGKILL);
        let _reaped = self.child.borrow_mut().wait();
        wait::until("every process of the server is reaped", || is_empty(self.group));
    }
}

/// Reaps the orphans of a process group; says whether none is left.
pub(crate) fn is_empty(group: Pid) -> bool {
    while let Ok(status) = waitpid(Pid::from_raw(-group.as_raw()), Some(WaitPidFlag::WNOHANG)) {
        if status.pid().is_none() {
            return false;
        }
    }
    killpg(group, None) == Err(Errno::ESRCH)
}

/// Pid and title of the living children of a supervisor; without one, of all that is left of its group.
fn titles(group: Pid) -> Vec<(Pid, String)> {
    let mut found = Vec::new();
    let children = std::fs::read_to_string(format!("/proc/{group}/task/{group}/children"));
    let numbers: Vec<i32> = match children.as_deref() {
        Ok(children) if !children.is_empty() => numbers(children.split(' ')),
        _ => {
            let names =
                std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
            numbers(names.filter_map(|name| name.into_string().ok()))
        }
    };
    for pid in numbers.into_iter().map(Pid::from_raw) {
        if nix::unistd::getpgid(Some(pid)) != Ok(group) {
            continue;
        }
        // It may have ended meanwhile; a dead one that nobody has reaped yet has no title.
        let title = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if !title.is_empty() {
            let text = String::from_utf8_lossy(&title);
            found.push((pid, text.split('\0').next().unwrap_or_default().to_owned()));
        }
    }
    found
}

fn numbers(texts: impl Iterator<Item = impl AsRef<str>>) -> Vec<i32> {
    texts.filter_map(|text| text.as_ref().parse().ok()).collect()
}

fn files_below(folder: PathBuf) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => files.push(entry.path()),
            }
        }
    }
    files
}

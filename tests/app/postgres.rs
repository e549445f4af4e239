//! PostgreSQL clusters of the tests' own: in a folder of their own, on a free port of the loopback.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

use nix::sys::signal::Signal;
use nix::unistd::{Pid, User};
use tempfile::TempDir;

use crate::app::kept::Kept;
use crate::app::tools;
use crate::wait;

/// A running cluster.
pub(crate) struct Cluster {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    settings: Vec<String>,
    kept: Mutex<Kept>,
}

/// The cluster that all tests of the process share; those that harm one start their own.
pub(crate) fn shared() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(["max_connections=400"])).as_ref()
}

impl Cluster {
    /// Starts one with these settings (`name=value`); none where PostgreSQL is not installed.
    pub(crate) fn start<'a>(settings: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let server = tools::find("postgres", &["/usr/lib/postgresql/*/bin"])?;
        let programs = server.parent().unwrap().to_owned();
        let folder = TempDir::with_prefix("saola-postgres-").unwrap().keep();
        give_to_servant(&folder);
        let data = folder.join("data");
        let mut init = as_servant(&programs.join("initdb"));
        init.extend(
            [
                "--no-sync",
                "--auth=trust",
                "--username=saola",
                "--encoding=UTF8",
                "--no-locale",
                "-D",
            ]
            .map(Into::into),
        );
        init.push(data.to_string_lossy().into_owned());
        let output = Command::new(&init[0]).args(&init[1..]).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let port = free_port();
        let settings = settings.into_iter().map(ToOwned::to_owned).collect::<Vec<_>>();
        let kept = Mutex::new(run(&programs, &folder, port, &settings));
        let cluster = Self { programs, folder, port, settings, kept };
        cluster.until_ready();
        Some(cluster)
    }

    /// A new, empty database; its URL.
    pub(crate) fn database(&self) -> (String, String) {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let name = format!("test{}", NUMBER.fetch_add(1, Relaxed));
        self.query("postgres", &format!("CREATE DATABASE {name} STRATEGY FILE_COPY"));
        let url = self.url(&name);
        (name, url)
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://saola@127.0.0.1:{}/{database}", self.port)
    }

    /// The answer of a statement: a line for each row, `|` between columns.
    pub(crate) fn query(&self, database: &str, sql: &str) -> String {
        self.try_query(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(crate) fn try_query(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args([
            "-X",
            "-q",
            "-t",
            "-A",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            &self.url(database),
            "-c",
            sql,
        ]);
        let output = psql.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Ends it at once, as a crash would, and leaves its files.
    pub(crate) fn stop(&self) {
        self.kept.lock().unwrap().stop();
    }

    /// Starts it again on the same port with the same files.
    pub(crate) fn start_again(&self) {
        *self.kept.lock().unwrap() = run(&self.programs, &self.folder, self.port, &self.settings);
        self.until_ready();
    }

    /// Freezes every process of it.
    pub(crate) fn freeze(&self) {
        self.kept.lock().unwrap().freeze();
    }

    pub(crate) fn thaw(&self) {
        self.kept.lock().unwrap().thaw();
    }

    /// Breaks every connection to a database but its own; says how many.
    pub(crate) fn break_connections(&self, database: &str) -> u64 {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        );
        self.query("postgres", &sql).parse().unwrap()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn pid(&self) -> Pid {
        self.kept.lock().unwrap().pid
    }

    fn until_ready(&self) {
        wait::until_or(
            "PostgreSQL answers",
            || self.try_query("postgres", "SELECT 1").is_ok(),
            || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default(),
        );
    }
}

fn run(programs: &Path, folder: &Path, port: u16, settings: &[String]) -> Kept {
    let mut command = as_servant(&programs.join("postgres"));
    command.extend(["-D".to_owned(), folder.join("data").to_string_lossy().into_owned()]);
    let port = format!("port={port}");
    let own = [
        port.as_str(),
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "fsync=off", // what a power failure would lose is not under test
        "full_page_writes=off",
        "shared_buffers=32MB",
    ];
    for setting in own.into_iter().chain(settings.iter().map(String::as_str)) {
        command.extend(["-c".to_owned(), setting.to_owned()]);
    }
    // QUIT ends it without a checkpoint.
    Kept::start(command, folder, Signal::SIGQUIT)
}

/// Whom PostgreSQL runs as when the tests run as root, whom it refuses.
fn servant() -> Option<User> {
    let find = |name| User::from_name(name).ok().flatten();
    nix::unistd::Uid::effective()
        .is_root()
        .then(|| find("postgres").or_else(|| find("nobody")).unwrap())
}

/// Makes a file one that PostgreSQL may own.
pub(crate) fn give_to_servant(path: &Path) {
    if let Some(user) = servant() {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

fn as_servant(program: &Path) -> Vec<String> {
    let program = program.to_string_lossy().into_owned();
    match servant() {
        Some(user) => vec![
            "setpriv".to_owned(),
            format!("--reuid={}", user.uid),
            format!("--regid={}", user.gid),
            "--clear-groups".to_owned(),
            program,
        ],
        None => vec![program],
    }
}

/// A port that is free, and none of those that the kernel gives to whoever asks for any: a service that is started again
/// finds it as it was.
pub(crate) fn free_port() -> u16 {
    let mut random = fastrand::Rng::new();
    std::iter::repeat_with(|| random.u16(10_000..32_000))
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .unwrap()
}

//! What is measured, and how each target is started.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Set;
use crate::sink::Sink;

/// One server with its settings.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Target {
    /// Bare hyper: the base of the first set.
    Hyper,
    /// The same again: what it differs by is noise.
    HyperAgain,
    Nginx,
    NginxLog,
    Saola(Variant),
}

/// Saola's settings.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Variant {
    Off,
    OffAgain,
    Metrics,
    Log,
    Full5,
    Full5Unprofiled,
    Full100,
    /// As the one before, with a collector that takes connections and never answers.
    Full100Hanging,
    /// With an axum `Router`, as most applications are.
    AxumOff,
    AxumOffAgain,
    AxumFull5,
}

pub(crate) fn all() -> Vec<Target> {
    let mut all = of(Set::Peers);
    for target in of(Set::Telemetry).into_iter().chain(of(Set::Axum)) {
        if !all.contains(&target) {
            all.push(target);
        }
    }
    all
}

/// The targets of a set: its base, the same again, and the others.
pub(crate) fn of(set: Set) -> Vec<Target> {
    use Variant::{AxumFull5, AxumOff, AxumOffAgain, Full5, Full5Unprofiled, Full100};
    use Variant::{Full100Hanging, Log, Metrics, Off, OffAgain};
    match set {
        Set::Peers => vec![
            Target::Hyper,
            Target::HyperAgain,
            Target::Nginx,
            Target::NginxLog,
            Target::Saola(Off),
            Target::Saola(Full5),
            Target::Saola(Full100),
        ],
        Set::Telemetry => {
            [Off, OffAgain, Metrics, Log, Full5Unprofiled, Full5, Full100, Full100Hanging]
                .map(Target::Saola)
                .into()
        }
        Set::Axum => [AxumOff, AxumOffAgain, AxumFull5].map(Target::Saola).into(),
        // Counted one by one: instructions.rs.
        Set::Instructions => Vec::new(),
    }
}

impl Target {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hyper => "hyper",
            Self::HyperAgain => "hyper-again",
            Self::Nginx => "nginx",
            Self::NginxLog => "nginx-log",
            Self::Saola(Variant::Off) => "saola-off",
            Self::Saola(Variant::OffAgain) => "saola-off-again",
            Self::Saola(Variant::Metrics) => "saola-metrics",
            Self::Saola(Variant::Log) => "saola-log",
            Self::Saola(Variant::Full5) => "saola-full5",
            Self::Saola(Variant::Full5Unprofiled) => "saola-full5-unprofiled",
            Self::Saola(Variant::Full100) => "saola-full100",
            Self::Saola(Variant::Full100Hanging) => "saola-full100-hanging",
            Self::Saola(Variant::AxumOff) => "axum-off",
            Self::Saola(Variant::AxumOffAgain) => "axum-off-again",
            Self::Saola(Variant::AxumFull5) => "axum-full5",
        }
    }

    pub(crate) const fn is_saola(self) -> bool {
        matches!(self, Self::Saola(_))
    }
}

/// Why a target cannot be measured here, and what would help.
pub(crate) fn missing(target: Target) -> Option<String> {
    let is_nginx = matches!(target, Target::Nginx | Target::NginxLog);
    (is_nginx && nginx().is_none())
        .then(|| "skipped, program not found (apt-get install nginx-light)".to_owned())
}

fn nginx() -> Option<PathBuf> {
    find("nginx")
}

/// A program on the path, or where Debian keeps those of administrators.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// A running target.
pub(crate) struct Running {
    pub(crate) target: Target,
    pub(crate) address: SocketAddr,
    pub(crate) command: String,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Running {
    /// Starts it and waits until it answers as all of them must.
    pub(crate) fn start(target: Target, workers: u32, sink: &Sink) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("saola-peers-").tempdir_in(memory_folder())?;
        let (mut command, address) = command(target, workers, folder.path(), sink)?;
        let shown = shown(&command, folder.path());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {shown}"))?;
        drain(child.stdout.take());
        drain(child.stderr.take());
        let running = Self { target, address, command: shown, child, _folder: folder };
        running.wait_until_right()?;
        Ok(running)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_right(&self) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match ask(self.address) {
                Ok(answer) => return check(self.target, &answer),
                Err(error) if Instant::now() >= end => {
                    return Err(error)
                        .with_context(|| format!("{} does not answer", self.target.name()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(0));
        // Gone already is as good; what does not end is killed with its group.
        let _ = kill(pid, Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = nix::sys::signal::killpg(pid, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// The command that starts a target, and where it will listen.
pub(crate) fn command(
    target: Target,
    workers: u32,
    folder: &Path,
    sink: &Sink,
) -> anyhow::Result<(Command, SocketAddr)> {
    let address = free_address()?;
    let command = match target {
        Target::Hyper | Target::HyperAgain => {
            let mut command = own("bare_hyper")?;
            command.args([address.to_string(), workers.to_string()]);
            command
        }
        Target::Nginx | Target::NginxLog => nginx_command(target, address, workers, folder)?,
        Target::Saola(variant) => saola_command(variant, address, workers, folder, sink)?,
    };
    Ok((command, address))
}

fn saola_command(
    variant: Variant,
    address: SocketAddr,
    workers: u32,
    folder: &Path,
    sink: &Sink,
) -> anyhow::Result<Command> {
    let program = match variant {
        Variant::AxumOff | Variant::AxumOffAgain | Variant::AxumFull5 => "hello_axum",
        _ => "hello_saola",
    };
    let mut command = own(program)?;
    command.args(["--bind", &address.to_string(), "--admin-bind", "off"]);
    command.args(["--workers", &workers.to_string(), "--backlog", "2048"]);
    command.args(["--trace-rate-limit", "0", "--keepalive-requests", "4294967295"]);
    command.arg("--run-dir").arg(folder.join("run"));
    let telemetry = match variant {
        Variant::Off | Variant::OffAgain | Variant::AxumOff | Variant::AxumOffAgain => "off",
        Variant::Metrics => "metrics",
        Variant::Log
        | Variant::Full5
        | Variant::Full5Unprofiled
        | Variant::Full100
        | Variant::Full100Hanging
        | Variant::AxumFull5 => "full",
    };
    command.args(["--telemetry", telemetry]);
    let ratio = match variant {
        Variant::Full5 | Variant::Full5Unprofiled | Variant::AxumFull5 => Some("0.05"),
        Variant::Full100 | Variant::Full100Hanging => Some("1"),
        Variant::Off
        | Variant::OffAgain
        | Variant::Metrics
        | Variant::Log
        | Variant::AxumOff
        | Variant::AxumOffAgain => None,
    };
    let collector = if variant == Variant::Full100Hanging { sink.hanging()? } else { sink.address };
    if let Some(ratio) = ratio {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"));
        command.env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        command.env("OTEL_TRACES_SAMPLER_ARG", ratio);
    } else {
        command.env("OTEL_TRACES_EXPORTER", "none");
    }
    if matches!(variant, Variant::Log | Variant::Full5Unprofiled) {
        command.args(["--profile-hz", "0"]);
    }
    Ok(command)
}

fn nginx_command(
    target: Target,
    address: SocketAddr,
    workers: u32,
    folder: &Path,
) -> anyhow::Result<Command> {
    let other = free_address()?;
    let (plain, log) = if target == Target::Nginx { (address, other) } else { (other, address) };
    // Started by root it would give its workers to a user who may not write here.
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let text = include_str!("../nginx.conf.in")
        .replace("WORKERS", &workers.to_string())
        .replace("FOLDER", &folder.display().to_string())
        .replace("USER", user)
        .replace("PLAIN_PORT", &plain.port().to_string())
        .replace("LOG_PORT", &log.port().to_string());
    let file = folder.join("nginx.conf");
    std::fs::write(&file, text)?;
    let mut command = Command::new(nginx().context("nginx is not there")?);
    command.arg("-c").arg(file);
    Ok(command)
}

/// A command as a report shows it: without the places of this machine.
fn shown(command: &Command, folder: &Path) -> String {
    let here = std::env::current_exe().unwrap_or_default();
    let here = format!("{}/", here.parent().unwrap_or(Path::new("")).display());
    let text = format!("{command:?}").replace(&folder.display().to_string(), "FOLDER");
    text.replace(&here, "").replace('"', "")
}

/// A program that was built beside this one.
fn own(name: &str) -> anyhow::Result<Command> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.is_file() {
        bail!("{} is missing: start by benches/peers/run, which builds it", path.display());
    }
    Ok(Command::new(path))
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Slot files and logs go to memory: a disk's write-back would be measured with them.
fn memory_folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Reads a pipe to its end, so that the server never waits for it.
fn drain(pipe: Option<impl Read + Send + 'static>) {
    std::thread::spawn(move || {
        if let Some(mut pipe) = pipe {
            // Its end is the end of the server.
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
    });
}

fn ask(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What all must answer, so that all do the same work.
fn check(target: Target, answer: &str) -> anyhow::Result<()> {
    let lower = answer.to_ascii_lowercase();
    let wanted = ["http/1.1 200 ok\r\n", "content-type: text/plain\r\n", "content-length: 13\r\n"];
    for part in wanted {
        if !lower.contains(part) {
            bail!("{} is broken: no {part:?} in {answer:?}", target.name());
        }
    }
    if !answer.ends_with("\r\n\r\nHello, world!") {
        bail!("{} is broken: another body in {answer:?}", target.name());
    }
    Ok(())
}

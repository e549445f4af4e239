//! The supervisor's part of the settings: where to listen, how many workers, how long to wait.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use saola_observability::{Choice, Shape, run_dir};
use saola_supervisor::{AdminBind, Bind, Image, Manager, Start};

use crate::settings::Program;
use crate::settings::identity;
use crate::settings::mistake::Mistake;
use crate::settings::source::{Environment, Source};
use crate::settings::value::Values;

pub(crate) fn supervisor(
    values: &mut Values<'_>,
    env: &Environment,
    program: Program<'_>,
) -> saola_supervisor::Settings {
    let day = Duration::from_hours(24);
    let bind = binds(values);
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let cores = u32::try_from(cores).unwrap_or(u32::MAX).clamp(1, 1_024);
    let workers_text = values.text("workers").unwrap_or_default();
    let workers_from = workers_from(values, &workers_text);
    let workers = if workers_text == "auto" { cores } else { values.number("workers", 1, 1_024) };
    let max_workers = match values.text("max_workers") {
        Some(_) => values.number("max_workers", 1, 1_024),
        None => (4 * cores).max(workers),
    };
    if max_workers < workers {
        values.refuse("max_workers", &format!("is less than workers, {workers}"));
    }
    let first = bind.first().map(|(text, _)| text.as_str()).unwrap_or_default();
    let name = values.text("name").unwrap_or_else(|| stem(program.executable));
    let run_dir = choice(values, env, run_dir::name(program.executable, first));
    let mut settings = saola_supervisor::Settings {
        name,
        version: program.version,
        reuse_port: reuse_port(values, &bind),
        bind: expand(bind, &manager(env)),
        admin_bind: admin_bind(values),
        workers: NonZeroU32::new(workers).unwrap_or(NonZeroU32::MIN),
        workers_from,
        max_workers: NonZeroU32::new(max_workers).unwrap_or(NonZeroU32::MIN),
        backlog: values.number("backlog", 1, 1 << 20),
        timeout: timeout(values, day),
        boot_timeout: values.time("boot_timeout", day),
        graceful_timeout: values.positive("graceful_timeout", day),
        abort_grace: values.time("abort_grace", Duration::from_hours(1)),
        pre_stop_delay: values.time("pre_stop_delay", Duration::from_mins(5)),
        max_old_generations: NonZeroU32::new(values.number("max_old_generations", 1, 16))
            .unwrap_or(NonZeroU32::MIN),
        max_lifetime: max_lifetime(values),
        min_lifetime: values.time("min_lifetime", day),
        max_memory: values.limit("max_memory", 8 << 20),
        max_memory_hard: values.limit("max_memory_hard", 8 << 20),
        give_up: values.time("give_up", day),
        has_observer: true, // unless the telemetry is off
        upgrade_probation: values.time("upgrade_probation", Duration::from_mins(10)),
        image: image(env, program),
        memento: None, // of the whole of the settings, once they are read
        pidfile: values.text("pidfile").map(PathBuf::from),
        umask: mode(values, "umask"),
        chdir: folder(values),
        socket_mode: mode(values, "socket_mode"),
        socket_owner: identity::socket_owner(values),
        identity: identity::identity(values, &run_dir),
        hook: hook(values),
        manager: manager(env),
        run_dir,
        encode: Rc::new(|_| Vec::new()), // the observer's encoder, once its settings are read
    };
    let (soft, hard) = (settings.max_memory, settings.max_memory_hard);
    if soft > 0 && hard > 0 && hard <= soft {
        values.refuse("max_memory_hard", &format!("is not more than max_memory, {soft} bytes"));
    }
    settings.run_dir.slots_at_peak = settings.slots_at_peak();
    settings
}

/// The program as it was started, absolute and with its links, so that what they lead to later is what an upgrade runs.
pub(crate) fn image(env: &Environment, program: Program<'_>) -> Image {
    let executable = program.executable;
    let found = if executable.components().count() > 1 {
        std::path::absolute(executable).ok()
    } else {
        let folders = env.os("PATH").unwrap_or_default();
        let mut found = std::env::split_paths(&folders).map(|folder| folder.join(executable));
        found.find(|path| path.is_file())
    };
    // Started under a name that leads nowhere.
    let path = found.filter(|path| path.exists()).or_else(|| std::env::current_exe().ok());
    Image {
        path: path.unwrap_or_default(),
        arguments: program.arguments.to_vec(),
        start: Start::of(|name| env.text(name)),
    }
}

/// Where the run directory may be, and how big the files in it are.
fn choice(values: &mut Values<'_>, env: &Environment, name: String) -> Choice {
    let ring_bytes = values.size("ring_bytes", 128 << 10, 4 << 20);
    if !ring_bytes.is_power_of_two() {
        values.refuse("ring_bytes", "is not a power of two");
    }
    let shape =
        Shape { ring_bytes: u32::try_from(ring_bytes).unwrap_or(1 << 20), ..Shape::default() };
    Choice {
        given: values.text("run_dir").map(PathBuf::from),
        runtime_directory: env.os("RUNTIME_DIRECTORY"),
        xdg_runtime_dir: env.os("XDG_RUNTIME_DIR"),
        name,
        slots_at_peak: 0,
        shape,
    }
}

fn binds(values: &mut Values<'_>) -> Vec<(String, Bind)> {
    let found = values.sources.of("bind");
    let mut binds: Vec<(String, Bind)> = Vec::new();
    for text in &found.texts {
        match text.parse() {
            Ok(bind) if binds.iter().any(|(_, other)| *other == bind) => {
                values.mistakes.push(Mistake::new("bind", text, &found.source, "is given twice"));
            }
            Ok(bind) => binds.push((text.clone(), bind)),
            Err(error) => {
                values.mistakes.push(Mistake::new(
                    "bind",
                    text,
                    &found.source,
                    &wrong_address(&error),
                ));
            }
        }
    }
    if found.texts.is_empty() {
        values.refuse("bind", "names no address");
    }
    binds
}

/// Only TCP addresses that are bound here can have several sockets.
fn reuse_port(values: &mut Values<'_>, binds: &[(String, Bind)]) -> bool {
    let reuse_port = values.switch("reuse_port");
    let alone = binds.iter().find(|(_, bind)| !matches!(bind, Bind::Tcp { .. }));
    if let (true, Some((text, _))) = (reuse_port, alone) {
        values.refuse("reuse_port", &format!("means TCP addresses only, and bind has {text}"));
    }
    reuse_port
}

fn wrong_address(error: &saola_supervisor::BindError) -> String {
    let text = error.to_string();
    format!("is no address: {}", text.rsplit_once(": ").map_or(text.as_str(), |(_, why)| why))
}

fn admin_bind(values: &mut Values<'_>) -> AdminBind {
    let found = values.sources.of("admin_bind");
    match (found.texts.first().map(String::as_str), &found.source) {
        (None, _) | (Some(_), Source::Default) => AdminBind::Default,
        (Some("off"), _) => AdminBind::Off,
        (Some(text), source) => match text.parse() {
            Ok(bind) => AdminBind::Given(bind),
            Err(error) => {
                values.mistakes.push(Mistake::new(
                    "admin_bind",
                    text,
                    source,
                    &wrong_address(&error),
                ));
                AdminBind::Off
            }
        },
    }
}

fn workers_from(values: &Values<'_>, text: &str) -> &'static str {
    match values.sources.of("workers").source {
        _ if text == "auto" => "cores",
        Source::Flag => "command line",
        Source::Variable(_) => "environment",
        Source::File(_) => "file",
        Source::Default => "WEB_CONCURRENCY",
    }
}

fn timeout(values: &mut Values<'_>, most: Duration) -> Duration {
    let timeout = values.time("timeout", most);
    if !timeout.is_zero() && timeout < Duration::from_secs(1) {
        values.refuse("timeout", "is shorter than 1s; 0 switches it off");
    }
    timeout
}

fn max_lifetime(values: &mut Values<'_>) -> Duration {
    let max_lifetime = values.time("max_lifetime", Duration::from_hours(24 * 365));
    if !max_lifetime.is_zero() && max_lifetime < Duration::from_mins(1) {
        values.refuse("max_lifetime", "is shorter than 1m; 0 switches it off");
    }
    max_lifetime
}

/// Permissions, in octal.
fn mode(values: &mut Values<'_>, name: &str) -> u32 {
    values.parsed(name, "permissions in octal like 0660", 0o077, |text| {
        u32::from_str_radix(text.trim_start_matches("0o"), 8).ok().filter(|mode| *mode <= 0o777)
    })
}

fn folder(values: &mut Values<'_>) -> Option<PathBuf> {
    let folder = values.text("chdir").map(PathBuf::from)?;
    if !folder.is_dir() {
        values.refuse("chdir", "is not a folder");
    }
    Some(folder)
}

fn hook(values: &mut Values<'_>) -> Option<PathBuf> {
    let program = values.text("hook").map(PathBuf::from)?;
    if nix::unistd::access(&program, nix::unistd::AccessFlags::X_OK).is_err() || program.is_dir() {
        values.refuse("hook", "is no program that can be run");
    }
    Some(program)
}

/// What the service manager says in the environment, as far as it means this process.
fn manager(env: &Environment) -> Manager {
    let is_ours =
        |name: &str| env.text(name).is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    let number = |name: &str| env.text(name).and_then(|text| text.parse::<u64>().ok());
    let watchdog = number("WATCHDOG_USEC").filter(|_| is_ours("WATCHDOG_PID"));
    let has_pid = env.text("LISTEN_PID").is_some();
    let listen_fds = number("LISTEN_FDS").filter(|_| has_pid && is_ours("LISTEN_PID"));
    Manager {
        notify_socket: env.os("NOTIFY_SOCKET").filter(|name| !name.is_empty()),
        watchdog: watchdog.filter(|usec| *usec > 0).map(Duration::from_micros),
        listen_names: env
            .text("LISTEN_FDNAMES")
            .map(|names| names.split(':').map(str::to_owned).collect())
            .unwrap_or_default(),
        listen_fds: listen_fds.and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
    }
}

/// Descriptors in the place of the word `systemd`, or of a name.
fn expand(binds: Vec<(String, Bind)>, manager: &Manager) -> Vec<Bind> {
    let inherited = || {
        let numbers = (3..).take(usize::try_from(manager.listen_fds).unwrap_or_default());
        let names = manager.listen_names.iter().map(String::as_str).chain(std::iter::repeat(""));
        numbers.zip(names)
    };
    let mut expanded = Vec::new();
    for (_, bind) in binds {
        let found: Vec<_> = match &bind {
            Bind::Systemd => inherited().map(|(number, _)| Bind::Inherited(number)).collect(),
            Bind::SystemdNamed(wanted) => inherited()
                .filter(|(_, name)| name == wanted)
                .map(|(number, _)| Bind::Inherited(number))
                .collect(),
            _ => Vec::new(),
        };
        // One for which nothing is there is refused when it is bound.
        expanded.extend(if found.is_empty() { vec![bind] } else { found });
    }
    expanded
}

fn stem(executable: &Path) -> String {
    executable
        .file_stem()
        .map_or_else(|| "saola".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

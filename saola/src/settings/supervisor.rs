//! The supervisor's part of the settings: where to listen, how many workers, how long to wait.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use saola_observability::{Choice, Shape, run_dir};
use saola_supervisor::{AdminBind, Bind};

use crate::settings::Program;
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
    let ring_bytes = values.size("ring_bytes", 128 << 10, 4 << 20);
    if !ring_bytes.is_power_of_two() {
        values.refuse("ring_bytes", "is not a power of two");
    }
    let shape =
        Shape { ring_bytes: u32::try_from(ring_bytes).unwrap_or(1 << 20), ..Shape::default() };
    let run_dir = Choice {
        given: values.text("run_dir").map(PathBuf::from),
        runtime_directory: env.os("RUNTIME_DIRECTORY"),
        xdg_runtime_dir: env.os("XDG_RUNTIME_DIR"),
        name: run_dir::name(program.executable, first),
        slots_at_peak: 0,
        shape,
    };
    let mut settings = saola_supervisor::Settings {
        name,
        version: program.version,
        bind: bind.into_iter().map(|(_, bind)| bind).collect(),
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
        max_old_generations: NonZeroU32::MIN.saturating_add(1),
        run_dir,
        encode: Rc::new(|_| Vec::new()), // the observer's encoder, once its settings are read
    };
    settings.run_dir.slots_at_peak = settings.slots_at_peak();
    settings
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

fn stem(executable: &Path) -> String {
    executable
        .file_stem()
        .map_or_else(|| "saola".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

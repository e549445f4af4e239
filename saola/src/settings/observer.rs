//! The observer's part of the settings: how lines look, who the telemetry is from, where spans go.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use saola_observer::logfmt::{ColourFacts, Encoder, FormatChoice, Origin};
use saola_observer::{
    AccessLog, LevelFilter, LineFilter, OtlpSettings, ProfileSettings, Resource, SettingError,
};
use saola_supervisor::{AdminBind, Bind};

use crate::settings::Program;
use crate::settings::mistake::Mistake;
use crate::settings::source::Environment;
use crate::settings::value::Values;

pub(crate) fn observer(
    values: &mut Values<'_>,
    env: &Environment,
    program: Program<'_>,
    supervisor: &saola_supervisor::Settings,
    levels: LevelFilter,
    profile_hz: u32,
) -> saola_observer::Settings {
    let lookup = |name: &str| env.text(name);
    let service = kept(values, Resource::from_env(&lookup, resource(program, supervisor)));
    let otlp = kept(values, OtlpSettings::from_env(&lookup)).flatten();
    let profiles = kept(values, ProfileSettings::from_env(&lookup)).flatten();
    let access_log = values.parsed(
        "access_log",
        "one of on, errors, off",
        AccessLog::default(),
        AccessLog::parse,
    );
    let format = values.parsed(
        "log_format",
        "one of auto, logfmt, json, pretty",
        FormatChoice::Auto,
        FormatChoice::parse,
    );
    let is_terminal = std::io::stdout().is_terminal();
    let (no_color, term, clicolor_force) =
        (env.text("NO_COLOR"), env.text("TERM"), env.text("CLICOLOR_FORCE"));
    let colours = ColourFacts {
        is_terminal,
        no_color: no_color.as_deref(),
        term: term.as_deref(),
        clicolor_force: clicolor_force.as_deref(),
    };
    let admin_name = match &supervisor.admin_bind {
        AdminBind::Given(Bind::Tcp { host, .. }) => Some(host.clone()),
        AdminBind::Given(
            Bind::UnixPath(_)
            | Bind::UnixAbstract(_)
            | Bind::Inherited(_)
            | Bind::Systemd
            | Bind::SystemdNamed(_),
        )
        | AdminBind::Default
        | AdminBind::Off => None,
    };
    saola_observer::Settings {
        run_dir: PathBuf::new(), // known when the supervisor has chosen it
        service: service.unwrap_or_else(|| resource(program, supervisor)),
        format: format.resolve(is_terminal),
        has_colour: colours.wants_colour(),
        lines: LineFilter {
            levels,
            access_log,
            access_log_exclude: values.sources.of("access_log_exclude").texts,
        },
        slow_request: values.time("slow_request", Duration::from_hours(1)),
        otlp,
        profiles,
        profile_hz,
        admin_name,
        // What the program can is known where it runs.
        no_heap_profiles: None,
        warnings: OtlpSettings::warnings(&lookup),
    }
}

/// What the telemetry is from when nothing else is said.
fn resource(program: Program<'_>, supervisor: &saola_supervisor::Settings) -> Resource {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default();
    let port = supervisor.bind.iter().find_map(|bind| match bind {
        Bind::Tcp { port, .. } => Some(*port),
        Bind::UnixPath(_)
        | Bind::UnixAbstract(_)
        | Bind::Inherited(_)
        | Bind::Systemd
        | Bind::SystemdNamed(_) => None,
    });
    Resource {
        name: supervisor.name.clone(),
        version: program.version.to_owned(),
        instance: format!("{host}:{}", port.unwrap_or(0)),
        host,
        attributes: Vec::new(),
    }
}

/// A value of the standard variables; what is wrong with them joins the other mistakes.
fn kept<T>(values: &mut Values<'_>, read: Result<T, Vec<SettingError>>) -> Option<T> {
    let mistake =
        |error: &SettingError| Mistake::of_variable(&error.variable, &error.value, &error.allowed);
    read.map_err(|errors| values.mistakes.extend(errors.iter().map(mistake))).ok()
}

/// Writes the supervisor's lines while no observer runs, with the observer's encoder.
pub(crate) fn line_encoder(observer: &saola_observer::Settings) -> saola_supervisor::Encode {
    let mut encoder = Encoder::new(observer.format, &observer.service.name);
    encoder.has_colour = observer.has_colour;
    let pid = Some(std::process::id());
    Rc::new(move |event| {
        let mut line = Vec::new();
        encoder.event(&mut line, Origin { worker: None, pid }, event);
        line
    })
}

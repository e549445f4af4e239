//! The settings as types: read once, checked in full, and handed to the three parts. All mistakes are told together.

mod identity;
pub(crate) mod listening;
pub(crate) mod mistake;
mod observer;
pub(crate) mod source;
mod supervisor;
pub(crate) mod table;
pub(crate) mod value;
mod worker;

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use clap::ArgMatches;
use saola_observability::{Detail, Level};
use saola_observer::LevelFilter;
use saola_supervisor::AdminBind;
use saola_worker::Config;

use crate::settings::listening::Listening;
use crate::settings::mistake::Mistake;
use crate::settings::source::{Environment, Sources};
use crate::settings::value::Values;

/// Everything that one server runs with.
pub(crate) struct Settings {
    pub(crate) supervisor: saola_supervisor::Settings,
    pub(crate) worker: Config,
    pub(crate) observer: saola_observer::Settings,
    /// Whether `/metrics` is answered on the main listener.
    pub(crate) metrics: bool,
    pub(crate) telemetry: Telemetry,
    pub(crate) levels: LevelFilter,
    /// Which spans of `tracing` become child spans.
    pub(crate) spans: LevelFilter,
    pub(crate) listening: Listening,
}

/// Who runs: from the program, not from its settings.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Program<'a> {
    pub(crate) executable: &'a Path,
    /// With the name.
    pub(crate) arguments: &'a [OsString],
    pub(crate) version: &'static str,
}

impl Settings {
    /// The program that runs; known also when the settings are wrong.
    pub(crate) fn image(env: &Environment, program: Program<'_>) -> saola_supervisor::Image {
        supervisor::image(env, program)
    }

    /// As [`Settings::read`], and the files of certificates that they name can be used.
    ///
    /// # Errors
    ///
    /// Every mistake in the settings, or else one in those files.
    pub(crate) fn read_to_serve(
        flags: Option<&ArgMatches>,
        env: &Environment,
        program: Program<'_>,
    ) -> Result<Self, Vec<Mistake>> {
        let settings = Self::read(flags, env, program)?;
        listening::check(settings.worker.tls.as_ref()).map_err(|mistake| vec![mistake])?;
        Ok(settings)
    }

    /// Reads flags, environment and file.
    ///
    /// # Errors
    ///
    /// Every mistake in them.
    pub(crate) fn read(
        flags: Option<&ArgMatches>,
        env: &Environment,
        program: Program<'_>,
    ) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let sources = Sources::gather(flags, env, &mut mistakes);
        let mut values = Values { sources: &sources, mistakes };
        let mut filter = |name| {
            let allowed = "a list of levels like info,sqlx=warn";
            let parse = |text: &str| LevelFilter::parse(text).ok();
            values.parsed(name, allowed, LevelFilter::default(), parse)
        };
        let (levels, spans) = (filter("log_level"), filter("trace_level"));
        let mut supervisor = supervisor::supervisor(&mut values, env, program);
        let mut worker = worker::worker(&mut values, env, supervisor.graceful_timeout);
        worker.abort_grace = supervisor.abort_grace;
        worker.debug = levels.allows("saola_worker", Level::Debug);
        let mut observer = observer::observer(
            &mut values,
            env,
            program,
            &supervisor,
            levels.clone(),
            worker.profile_hz,
        );
        let telemetry = values.parsed(
            "telemetry",
            "one of off, metrics, full",
            Telemetry::Full,
            Telemetry::parse,
        );
        if telemetry != Telemetry::Full {
            worker.profile_hz = 0;
        }
        if telemetry == Telemetry::Off {
            supervisor.has_observer = false;
            // Nobody would answer there.
            supervisor.admin_bind = AdminBind::Off;
            observer
                .warnings
                .push("telemetry=off: nothing is counted, logged or traced".to_owned());
        }
        worker.detail = telemetry.detail();
        supervisor.memento.clone_from(&sources.file);
        supervisor.encode = observer::line_encoder(&observer);
        let metrics = values.switch("metrics");
        let listening = Listening::read(&mut values);
        if worker.keepalive < Duration::from_mins(1) {
            observer.warnings.push(format!(
                "keepalive of {:?} is shorter than the 60 s of common load balancers, whose reused connections will see resets",
                worker.keepalive
            ));
        }
        if values.mistakes.is_empty() {
            Ok(Self { supervisor, worker, observer, metrics, telemetry, levels, spans, listening })
        } else {
            Err(values.mistakes)
        }
    }
}

/// How much telemetry there is.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Telemetry {
    /// None, for measuring what it costs.
    Off,
    /// Counters and histograms.
    Metrics,
    /// All of it.
    Full,
}

impl Telemetry {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            "metrics" => Some(Self::Metrics),
            "full" => Some(Self::Full),
            _ => None,
        }
    }

    fn detail(self) -> Detail {
        match self {
            Self::Off => Detail::Nothing,
            Self::Metrics => Detail::Counts,
            Self::Full => Detail::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        let executable = Path::new("/usr/bin/shop");
        let program = Program { executable, arguments: &[], version: "1.2.3" };
        let settings = Settings::read(None, &Environment::of(variables), program);
        settings.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_a_word_the_defaults_hold() {
        let settings = read(&[]).map_err(|mistakes| panic!("{mistakes:?}")).unwrap();
        assert_eq!(settings.supervisor.name, "shop");
        assert_eq!(settings.supervisor.graceful_timeout, Duration::from_secs(30));
        assert_eq!(settings.worker.limit_request_line, 8_192);
        assert_eq!(settings.observer.service.version, "1.2.3");
        assert!(settings.observer.otlp.is_none() && settings.metrics);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let Err(mistakes) = read(&[
            ("SAOLA_WORKERS", "many"),
            ("SAOLA_BIND", "127.0.0.1:1,nowhere"),
            ("SAOLA_TIMEOUT", "200ms"),
            ("SAOLA_RING_BYTES", "300KiB"),
            ("SAOLA_LOG_LEVEL", "info,x=loud"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ]) else {
            panic!("these are mistakes")
        };
        let of = |name: &str| mistakes.iter().filter(|mistake| mistake.starts_with(name)).count();
        for name in [
            "workers:",
            "bind:",
            "timeout:",
            "ring_bytes:",
            "log_level:",
            "OTEL_TRACES_SAMPLER_ARG:",
            "OTEL_BSP_MAX_QUEUE_SIZE:",
        ] {
            assert_eq!(of(name), 1, "{name} {mistakes:#?}");
        }
        assert_eq!(mistakes.len(), 7, "{mistakes:#?}");
    }

    #[test]
    fn platform_variables_are_defaults_only() {
        let settings = read(&[("PORT", "7000"), ("WEB_CONCURRENCY", "5")]).map_err(|_| ()).unwrap();
        assert_eq!(settings.supervisor.workers, NonZeroU32::new(5).unwrap());
        assert_eq!(settings.supervisor.bind, ["0.0.0.0:7000".parse().unwrap()]);
        let settings =
            read(&[("WEB_CONCURRENCY", "5"), ("SAOLA_WORKERS", "2")]).map_err(|_| ()).unwrap();
        assert_eq!(settings.supervisor.workers, NonZeroU32::new(2).unwrap());
    }
}

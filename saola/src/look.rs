//! Commands that read the slot files of a running server, which does not notice.
#![expect(clippy::print_stderr, reason = "they talk to whoever typed them")]

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use saola_observability::reader::ReadError;
use saola_observability::run_dir;
use saola_observer::follow::{Filter, Follow, follow};
use saola_observer::logfmt::{Encoder, Format};
use saola_observer::top::{Shows, Top, TopError, top};
use saola_supervisor::Exit;
use saola_worker::chain;

use crate::settings::Settings;

/// The commands, for the parser and the help.
pub(crate) fn commands() -> [Command; 2] {
    [log_command(), top_command()]
}

fn log_command() -> Command {
    Command::new("log")
        .about("Shows what the server logs, from its memory: requests, events, and traces as trees")
        .arg(
            Arg::new("filter")
                .value_name("FILTER")
                .num_args(0..)
                .help("Which lines: status>=500, duration>250ms, route=/items/{id}, path~\"^/shop\", level>=warn, trace=4bf92f35, worker=1; joined by and (or a space) and or"),
        )
        .arg(
            Arg::new("lines")
                .short('n')
                .long("lines")
                .value_name("N")
                .value_parser(clap::value_parser!(usize))
                .help("Begins with the last N of what is still in memory; default all"),
        )
        .arg(
            Arg::new("since")
                .long("since")
                .value_name("TIME")
                .value_parser(time)
                .help("Begins with what is no older than that, like 5m"),
        )
        .arg(
            Arg::new("no_follow")
                .long("no-follow")
                .action(ArgAction::SetTrue)
                .help("Ends when all that is there is shown"),
        )
        .arg(
            Arg::new("group")
                .long("group")
                .value_name("trace")
                .value_parser(["trace"])
                .help("Shows each request as a tree with its spans and events, when it has ended"),
        )
}

fn top_command() -> Command {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("top")
        .about("Shows workers, rates, latencies and running requests, live")
        .arg(
            Arg::new("interval")
                .long("interval")
                .value_name("SECONDS")
                .value_parser(interval)
                .help("How long rates are taken over, 0.2 to 60; default 1"),
        )
        .arg(switch("once", "Prints one plain table; so it is too when stdout is no terminal"))
        .arg(switch("json", "Prints the document of /status on the admin listener"))
}

/// Does the command of that name.
pub(crate) fn run(name: &str, flags: &ArgMatches, settings: &Settings) -> ExitCode {
    let choice = &settings.supervisor.run_dir;
    let Some(run_dir) = run_dir::find(choice) else {
        let path = choice.given.clone().unwrap_or_else(|| choice.name.clone().into());
        eprintln!("error: no saola running in {}", path.display());
        return ExitCode::from(Exit::Unavailable.code());
    };
    if name == "top" {
        show_top(flags, settings, run_dir)
    } else {
        show_log(flags, settings, &run_dir)
    }
}

fn show_top(flags: &ArgMatches, settings: &Settings, run_dir: PathBuf) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let shows = if flags.get_flag("json") {
        Shows::Json
    } else if flags.get_flag("once") || !stdout.is_terminal() {
        Shows::Table
    } else {
        Shows::Screen
    };
    let asked = Top {
        run_dir,
        service: settings.observer.service.name.clone(),
        interval: flags.get_one("interval").copied().unwrap_or(Duration::from_secs(1)),
        shows,
    };
    match top(&asked, &mut stdout) {
        Ok(()) => ExitCode::SUCCESS,
        Err(TopError::Read(error)) => unreadable(&asked.run_dir, &error),
        Err(error @ TopError::Terminal(_)) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::from(Exit::System.code())
        }
    }
}

fn show_log(flags: &ArgMatches, settings: &Settings, run_dir: &Path) -> ExitCode {
    let words: Vec<_> = flags.get_many::<String>("filter").into_iter().flatten().cloned().collect();
    let filter = match Filter::parse(&words.join(" ")) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(Exit::Usage.code());
        }
    };
    let groups = flags.get_one::<String>("group").is_some();
    let mut encoder = Encoder::new(settings.observer.format, &settings.observer.service.name);
    encoder.has_colour = settings.observer.has_colour;
    encoder.slow_request = settings.observer.slow_request;
    if groups || encoder.format == Format::Pretty {
        encoder.format = Format::Pretty;
        encoder.zone = saola_observer::logfmt::local_zone();
    }
    let asked = Follow {
        run_dir: run_dir.to_owned(),
        encoder,
        filter,
        last: flags.get_one("lines").copied(),
        since: flags.get_one("since").copied(),
        follows: !flags.get_flag("no_follow"),
        groups,
    };
    match follow(&asked, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => unreadable(run_dir, &error),
    }
}

fn unreadable(run_dir: &Path, error: &ReadError) -> ExitCode {
    use std::os::unix::fs::MetadataExt as _;
    let owner = std::fs::metadata(run_dir).map(|metadata| metadata.uid()).ok();
    let own = nix::unistd::geteuid();
    let dir = run_dir.display();
    match owner {
        Some(owner) if owner != own.as_raw() && !own.is_root() => {
            let user = nix::unistd::User::from_uid(owner.into()).ok().flatten();
            let user = user.map_or_else(|| owner.to_string(), |user| user.name);
            eprintln!("error: cannot read {dir}: permission denied (run as {user})");
            ExitCode::from(Exit::Permission.code())
        }
        _ => {
            eprintln!("error: cannot read {dir}: {}", chain(error));
            ExitCode::from(Exit::Unavailable.code())
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.2..=60.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "is no number from 0.2 to 60".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    crate::settings::value::duration(text).ok_or_else(|| "is no time like 5m".to_owned())
}

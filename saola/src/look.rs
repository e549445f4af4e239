//! Commands that read the slot files of a running server, which does not notice.
#![expect(clippy::print_stderr, reason = "they talk to whoever typed them")]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use saola_observability::reader::ReadError;
use saola_observability::run_dir;
use saola_observer::follow::{Filter, Follow, follow};
use saola_observer::logfmt::{Encoder, Format};
use saola_supervisor::Exit;

use crate::settings::Settings;

/// The commands, for the parser and the help.
pub(crate) fn commands() -> [Command; 1] {
    [Command::new("log")
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
        )]
}

/// Does the command of that name.
pub(crate) fn run(flags: &ArgMatches, settings: &Settings) -> ExitCode {
    let choice = &settings.supervisor.run_dir;
    let Some(run_dir) = run_dir::find(choice) else {
        let path = choice.given.clone().unwrap_or_else(|| choice.name.clone().into());
        eprintln!("error: no saola running in {}", path.display());
        return ExitCode::from(Exit::Unavailable.code());
    };
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
        run_dir: run_dir.clone(),
        encoder,
        filter,
        last: flags.get_one("lines").copied(),
        since: flags.get_one("since").copied(),
        follows: !flags.get_flag("no_follow"),
        groups,
    };
    match follow(&asked, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => unreadable(&run_dir, &error),
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
            eprintln!("error: cannot read {dir}: {}", crate::join::chain(error));
            ExitCode::from(Exit::Unavailable.code())
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    crate::settings::value::duration(text).ok_or_else(|| "is no time like 5m".to_owned())
}

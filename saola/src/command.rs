//! The command line: made of the table of settings, so that help, parser and README cannot disagree.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the one file that talks to whoever typed the command"
)]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use saola_supervisor::{Exit, Hooks};
use saola_worker::{BoxError, WorkerInfo};

use crate::application::Application;
use crate::join::Joined;
use crate::look;
use crate::operate;
use crate::settings::mistake::Mistake;
use crate::settings::source::{Environment, Sources};
use crate::settings::table::{SETTINGS, Setting};
use crate::settings::{Program, Settings};

/// What a program says of itself, and its own commands.
pub(crate) struct Cli {
    pub(crate) version: &'static str,
    pub(crate) about: &'static str,
    pub(crate) commands: Vec<Own>,
    pub(crate) hooks: Option<Box<dyn Hooks>>,
    /// Finds what is wrong with the application's own settings.
    pub(crate) check: Option<Check>,
}

type Check = Box<dyn Fn() -> Vec<String>>;

/// A command of the application.
pub(crate) struct Own {
    pub(crate) command: Command,
    pub(crate) run: Box<dyn Fn(&ArgMatches) -> ExitCode>,
}

/// Does what the command line of this process says.
pub(crate) fn run<F, Fut, A>(cli: Cli, make: &F) -> ExitCode
where
    F: Fn(WorkerInfo) -> Fut,
    Fut: Future<Output = Result<A, BoxError>>,
    A: Application,
{
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let executable = arguments.first().map(PathBuf::from).unwrap_or_default();
    let matches = match command(&cli, &executable).try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let env = Environment::of_process();
    let program = Program { executable: &executable, arguments: &arguments, version: cli.version };
    match matches.subcommand() {
        Some(("check", flags)) => check(flags, (&env, program), cli.check.as_ref(), make),
        Some(("serve", flags)) => serve(flags, (&env, program), make, (cli.hooks, cli.check)),
        Some((name @ ("status" | "reload" | "upgrade" | "stop" | "workers"), flags)) => {
            match Settings::read(Some(flags), &env, program) {
                Ok(settings) => {
                    operate::run(name, flags, &settings).unwrap_or_else(|| exit(Exit::Usage))
                }
                Err(mistakes) => refuse(&mistakes),
            }
        }
        Some((name @ ("log" | "top"), flags)) => match Settings::read(Some(flags), &env, program) {
            Ok(settings) => look::run(name, flags, &settings),
            Err(mistakes) => refuse(&mistakes),
        },
        Some((name, flags)) => {
            let own = cli.commands.iter().find(|own| own.command.get_name() == name);
            own.map_or_else(|| exit(Exit::Usage), |own| (own.run)(flags))
        }
        None => serve(&matches, (&env, program), make, (cli.hooks, cli.check)),
    }
}

fn serve<F, Fut, A>(
    flags: &ArgMatches,
    (env, program): (&Environment, Program<'_>),
    make: &F,
    (hooks, own): (Option<Box<dyn Hooks>>, Option<Check>),
) -> ExitCode
where
    F: Fn(WorkerInfo) -> Fut,
    Fut: Future<Output = Result<A, BoxError>>,
    A: Application,
{
    // A program that comes back serves with what it served with: the file may be meant for the one that failed.
    let memento = saola_supervisor::recall(&Settings::image(env, program));
    match read(flags, (&env.with_file(memento), program), own.as_ref()) {
        Ok(settings) => {
            let supervisor = settings.supervisor.clone();
            let again = || read(flags, (env, program), own.as_ref());
            let mut children = Joined::new(settings, &again, make).with_hooks(hooks);
            exit(saola_supervisor::run(&supervisor, &mut children))
        }
        Err(mistakes) => {
            // Read when it was about to take over, and wrong: the program before it goes on.
            let why: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
            saola_supervisor::retreat(&Settings::image(env, program), "settings", &why.join("; "));
            refuse(&mistakes)
        }
    }
}

/// The settings of Saola and of the application; or every mistake in both.
fn read(
    flags: &ArgMatches,
    (env, program): (&Environment, Program<'_>),
    own: Option<&Check>,
) -> Result<Settings, Vec<Mistake>> {
    let found = own.map(|check| check()).unwrap_or_default();
    let found: Vec<_> = found.into_iter().map(Mistake::of_application).collect();
    match Settings::read_to_serve(Some(flags), env, program) {
        Ok(settings) if found.is_empty() => Ok(settings),
        Ok(_) => Err(found),
        Err(mistakes) => Err(mistakes.into_iter().chain(found).collect()),
    }
}

fn check<F, Fut, A>(
    flags: &ArgMatches,
    (env, program): (&Environment, Program<'_>),
    own: Option<&Check>,
    make: &F,
) -> ExitCode
where
    F: Fn(WorkerInfo) -> Fut,
    Fut: Future<Output = Result<A, BoxError>>,
    A: Application,
{
    match read(flags, (env, program), own) {
        Ok(settings) => {
            if flags.get_flag("print") {
                print_settings(flags, env);
            }
            for warning in &settings.observer.warnings {
                eprintln!("warning: {warning}");
            }
            println!("the settings are valid");
            if flags.get_flag("boot") { boot(settings, make) } else { ExitCode::SUCCESS }
        }
        Err(mistakes) => refuse(&mistakes),
    }
}

/// One worker, up to the moment when it could serve.
fn boot<F, Fut, A>(settings: Settings, make: &F) -> ExitCode
where
    F: Fn(WorkerInfo) -> Fut,
    Fut: Future<Output = Result<A, BoxError>>,
    A: Application,
{
    let supervisor = settings.supervisor.clone();
    let never = || Err(Vec::new());
    match saola_supervisor::boot_once(&supervisor, &mut Joined::new(settings, &never, make)) {
        Ok(()) => {
            println!("a worker boots");
            ExitCode::SUCCESS
        }
        Err((code, why)) => {
            eprintln!("error: a worker cannot boot: {why}");
            exit(code)
        }
    }
}

fn print_settings(flags: &ArgMatches, env: &Environment) {
    for (setting, found) in Sources::gather(Some(flags), env, &mut Vec::new()).all() {
        println!("{} = {:?}  # {}", setting.name, found.texts.join(","), found.source);
    }
}

fn refuse(mistakes: &[Mistake]) -> ExitCode {
    for mistake in mistakes {
        eprintln!("error: {mistake}");
    }
    exit(Exit::Usage)
}

/// Help and version are no errors; everything else is one of usage.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed stdout or stderr leaves nobody to tell.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => exit(Exit::Usage),
    }
}

fn exit(exit: Exit) -> ExitCode {
    ExitCode::from(exit.code())
}

fn command(cli: &Cli, executable: &std::path::Path) -> Command {
    let name =
        executable.file_stem().map_or("saola".into(), |stem| stem.to_string_lossy().into_owned());
    let print = Arg::new("print").long("print").action(ArgAction::SetTrue);
    let mut command =
        Command::new(name)
            .version(cli.version)
            .about(cli.about)
            .after_help(AFTER_HELP)
            .args(SETTINGS.iter().map(argument))
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .global(true)
                    .help("A TOML file with settings [env: SAOLA_CONFIG]"),
            )
            .subcommand(Command::new("serve").about("Serves until told to stop (the default)"))
            .subcommand(
                Command::new("check")
                    .about("Checks the settings without listening; exit 64 lists every mistake")
                    .arg(print.help("Shows every value and where it came from"))
                    .arg(Arg::new("boot").long("boot").action(ArgAction::SetTrue).help(
                        "Also boots one worker, which serves nobody; exit 3 or 4 if it cannot",
                    )),
            );
    for operation in operate::commands().into_iter().chain(look::commands()) {
        command = command.subcommand(operation);
    }
    for own in &cli.commands {
        command = command.subcommand(own.command.clone());
    }
    command
}

fn argument(setting: &'static Setting) -> Arg {
    let mut help = setting.help.to_owned();
    if !setting.default.is_empty() {
        let _ = write!(help, " [default: {}]", setting.default); // writing to a String cannot fail
    }
    let _ = write!(help, " [env: {}]", setting.variable());
    let action = if setting.repeats { ArgAction::Append } else { ArgAction::Set };
    Arg::new(setting.name)
        .long(setting.flag())
        .value_name(setting.value)
        .action(action)
        .global(true)
        .allow_hyphen_values(true)
        .help(help)
}

const AFTER_HELP: &str = "\
Signals: TERM and INT stop gracefully, a second one or QUIT at once; HUP reloads; USR2 upgrades; TTIN and TTOU add and remove a worker; \
WINCH pauses.
Exit codes: 0 stopped as asked, 3 a worker could not boot, 4 the application could not load, 5 address in use, \
6 run directory refused, 64 wrong settings, 69 no server is reachable, 71 system call failed, 75 busy with something else, \
77 permission denied, 124 waited too long.
Telemetry: OTEL_EXPORTER_OTLP_ENDPOINT and the other OTEL_* variables of the standard.";

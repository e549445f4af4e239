//! `saola migrate`: brings the schema up to date, or says what is missing.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command that reports to whoever typed it"
)]

use std::process::ExitCode;

use saola::clap::{Arg, ArgAction, ArgMatches, Command};

use crate::db::{Db, Unfit};
use crate::settings::{self, Settings};

/// The command line of `saola migrate`.
pub(crate) fn command() -> Command {
    Command::new("migrate").about("Brings the schema of the database up to date").arg(
        Arg::new("check")
            .long("check")
            .action(ArgAction::SetTrue)
            .help("Changes nothing and lists what is pending; exit 1 if anything is"),
    )
}

/// Runs the command. Exit 0; 1 when it failed, or `--check` found something; 64 for wrong settings.
pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let settings = match Settings::of_process() {
        Ok(settings) => settings,
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("error: {mistake}");
            }
            return ExitCode::from(settings::EXIT_CODE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(migrate(&settings, matches.get_flag("check"))) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn migrate(settings: &Settings, only_checks: bool) -> Result<ExitCode, Unfit> {
    let opening = |error| Unfit::Database { doing: "open the database".into(), error };
    let db = Db::new(&settings.database, Some(1)).map_err(opening)?;
    if only_checks {
        let pending = db.pending().await?;
        for migration in &pending {
            println!("pending {}", migration.name);
        }
        if !pending.is_empty() {
            return Ok(ExitCode::FAILURE);
        }
    } else {
        let done = db.migrate().await?;
        for migrated in &done {
            println!("applied {} ({} ms)", migrated.name, migrated.took.as_millis());
        }
        if !done.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
    }
    println!("schema is current (version {})", Db::newest());
    Ok(ExitCode::SUCCESS)
}

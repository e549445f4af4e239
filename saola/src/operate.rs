//! Commands that talk to a running server over its control socket.
#![expect(clippy::print_stderr, reason = "they talk to whoever typed them")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use saola_observability::run_dir;
use saola_supervisor::client::{Client, ClientError};
use serde_json::{Value, json};

use crate::settings::Settings;

/// The commands, for the parser and the help.
pub(crate) fn commands() -> [Command; 5] {
    let wait = || switch("wait", "Waits for the end and tells it by the exit code");
    let timeout = || {
        Arg::new("wait_timeout")
            .long("wait-timeout")
            .value_name("TIME")
            .value_parser(parse_time)
            .help("Longest wait; then exit 124, and it goes on")
    };
    let slot = |required: bool| {
        let slot = Arg::new("slot").value_name("SLOT").value_parser(clap::value_parser!(u32));
        slot.required(required)
    };
    [
        Command::new("status")
            .about("Shows the state of the running server")
            .arg(switch("json", "Shows all of it, as JSON")),
        Command::new("reload")
            .about("Reads the settings anew and replaces all workers without losing a request")
            .arg(wait())
            .arg(timeout()),
        Command::new("upgrade")
            .about("Replaces the running program in place without losing a request")
            .arg(
                Arg::new("path")
                    .value_name("PATH")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help("The new program; default what stands now where the running one was started from"),
            )
            .arg(wait())
            .arg(timeout()),
        Command::new("stop")
            .about("Stops the running server when its requests have ended")
            .arg(switch("quick", "At once; open requests are reported lost"))
            .arg(wait())
            .arg(timeout()),
        Command::new("workers")
            .about("Changes the number of workers, or asks for one of them")
            .arg(
                Arg::new("number")
                    .value_name("+N|-N|N")
                    .allow_hyphen_values(true)
                    .help("How many more, fewer, or in all"),
            )
            .arg_required_else_help(true)
            .subcommand_negates_reqs(true)
            .subcommand(
                Command::new("retire")
                    .about("Replaces the worker of a slot, its successor first")
                    .arg(slot(true)),
            )
            .subcommand(
                Command::new("dump")
                    .about("Has what the workers are busy with written to the log")
                    .arg(slot(false)),
            )
            .subcommand(Command::new("pause").about("Stops accepting; connections wait"))
            .subcommand(Command::new("resume").about("Accepts again")),
    ]
}

/// Does the command of that name; none if it is not one of these.
pub(crate) fn run(name: &str, flags: &ArgMatches, settings: &Settings) -> Option<ExitCode> {
    let result = match name {
        "status" => status(flags, settings),
        "reload" => reload(flags, settings),
        "upgrade" => upgrade(flags, settings),
        "stop" => stop(flags, settings),
        "workers" => workers(flags, settings),
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.code())
        }
    })
}

fn status(flags: &ArgMatches, settings: &Settings) -> Result<(), ClientError> {
    let facts =
        connect(settings)?.ask(&json!({"id": 1, "cmd": "status"}), PATIENCE, &mut |_| ())?;
    if flags.get_flag("json") {
        say(&format!("{facts:#}"));
    } else {
        say(picture(&facts).trim_end());
    }
    Ok(())
}

fn reload(flags: &ArgMatches, settings: &Settings) -> Result<(), ClientError> {
    let waits = flags.get_flag("wait");
    let timeout = if waits { wait_timeout(flags) } else { PATIENCE };
    let request = json!({"id": 1, "cmd": "reload", "wait": waits});
    let answer = connect(settings)?.ask(&request, timeout, &mut |event| {
        say(&format!("worker {} is ready", event["worker"]));
    })?;
    match answer.get("generation") {
        Some(generation) => say(&format!("reloaded: generation {generation} serves")),
        None => say("reloading"),
    }
    Ok(())
}

fn upgrade(flags: &ArgMatches, settings: &Settings) -> Result<(), ClientError> {
    let waits = flags.get_flag("wait");
    let timeout = if waits { wait_timeout(flags) } else { PATIENCE };
    let path = flags.get_one::<PathBuf>("path").and_then(|path| std::path::absolute(path).ok());
    let request = json!({"id": 1, "cmd": "upgrade", "path": path, "wait": waits});
    let answer = connect(settings)?.ask(&request, timeout, &mut |event| {
        say(&format!("worker {} is ready", event["worker"]));
    })?;
    match answer.get("generation") {
        Some(generation) => say(&format!("upgraded: generation {generation} serves")),
        None => say("upgrading"),
    }
    Ok(())
}

fn stop(flags: &ArgMatches, settings: &Settings) -> Result<(), ClientError> {
    let mut client = connect(settings)?;
    let request = json!({"id": 1, "cmd": "stop", "quick": flags.get_flag("quick")});
    client.ask(&request, PATIENCE, &mut |_| ())?;
    if flags.get_flag("wait") {
        client.wait_for_end(wait_timeout(flags))?;
        say("stopped");
    } else {
        say("stopping");
    }
    Ok(())
}

fn workers(flags: &ArgMatches, settings: &Settings) -> Result<(), ClientError> {
    let request = match flags.subcommand() {
        Some((name, flags)) => {
            let slot = flags.try_get_one::<u32>("slot").ok().flatten();
            json!({"id": 1, "cmd": name, "slot": slot})
        }
        None => json!({"id": 1, "cmd": "workers", "number": flags.get_one::<String>("number")}),
    };
    let answer = connect(settings)?.ask(&request, PATIENCE, &mut |_| ())?;
    match (answer.get("old"), answer.get("new")) {
        (Some(old), Some(new)) => say(&format!("workers: {old} -> {new}")),
        _ => say("done"),
    }
    Ok(())
}

fn connect(settings: &Settings) -> Result<Client, ClientError> {
    let choice = &settings.supervisor.run_dir;
    if let Some(path) = run_dir::find(choice) {
        return Client::connect(&path);
    }
    let path = choice.given.clone().unwrap_or_else(|| choice.name.clone().into());
    let why = "no server runs with these settings".to_owned();
    Err(ClientError::Unreachable { path, why })
}

/// A few lines for a person.
fn picture(facts: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut lines = vec![format!(
        "{} {} (pid {}) {}, generation {}, {}/{} workers{}{}",
        text(&facts["name"]),
        text(&facts["version"]),
        facts["pid"],
        text(&facts["phase"]),
        facts["generation"],
        facts["workers"]["ready"],
        facts["workers"]["configured"],
        if facts["paused"] == true { ", paused" } else { "" },
        if facts["degraded"] == true { ", degraded" } else { "" },
    )];
    for listener in facts["listeners"].as_array().into_iter().flatten() {
        let (queue, limit) = (text(&listener["queue"]), text(&listener["limit"]));
        lines.push(format!("listens on {}, queue {queue} of {limit}", text(&listener["address"])));
    }
    for slot in facts["slots"].as_array().into_iter().flatten() {
        lines.push(format!(
            "worker {} pid {} generation {} {} for {} ms, {} connections, {} requests running",
            slot["slot"],
            text(&slot["pid"]),
            slot["generation"],
            text(&slot["state"]),
            slot["age_ms"],
            text(&slot["connections"]),
            slot["in_flight"],
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A reader who has left, as `head` does, has seen enough.
fn say(text: &str) {
    let _closed = writeln!(std::io::stdout(), "{text}");
}

fn wait_timeout(flags: &ArgMatches) -> Option<Duration> {
    flags.get_one::<Duration>("wait_timeout").copied()
}

fn parse_time(text: &str) -> Result<Duration, String> {
    crate::settings::value::duration(text).ok_or_else(|| "is no time like 30s".to_owned())
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// The loop of a living supervisor answers in milliseconds.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

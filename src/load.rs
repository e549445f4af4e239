//! `saola load`: drives the endpoints at a steady rate and says what came back.
//!
//! An open model: request k starts at its own instant, whatever earlier ones do, and its latency counts from there. So a
//! server that stalls cannot hide it by slowing the load down.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command that reports to whoever typed it"
)]

mod drive;
mod http;
mod mix;
mod report;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use hyper::Uri;
use saola::clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::load::mix::Mix;

/// What to drive, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Requests a second, 0.1 to 5,000.
    rate: f64,
    url: Uri,
    seconds: Option<Duration>,
    count: Option<u64>,
    mix: Mix,
    seed: u64,
    json: bool,
}

impl Plan {
    /// Whether request `number`, due at `offset`, is behind the end.
    fn is_over(&self, number: u32, offset: Duration) -> bool {
        self.count.is_some_and(|count| u64::from(number) >= count)
            || self.seconds.is_some_and(|seconds| offset >= seconds)
    }
}

/// The command line of `saola load`.
pub(crate) fn command() -> Command {
    Command::new("load")
        .about("Drives the endpoints at a steady rate: load [RATE] [URL]")
        .arg(Arg::new("rate").value_name("RATE").default_value("20").value_parser(rate).help("Requests a second, 0.1 to 5000"))
        .arg(Arg::new("url").value_name("URL").default_value("http://localhost:8000").value_parser(url).help("The server"))
        .arg(Arg::new("seconds").long("seconds").value_name("S").value_parser(seconds).help("Stops after so many seconds"))
        .arg(Arg::new("count").long("count").value_name("N").value_parser(value_parser!(u64)).help("Stops after so many requests"))
        .arg(
            Arg::new("mix")
                .long("mix")
                .value_name("MIX")
                .default_value("default")
                .value_parser(["default", "incident", "healthy"])
                .help("default: as a live server, alerts stay quiet; incident: errors and slow answers; healthy: neither"),
        )
        .arg(Arg::new("seed").long("seed").value_name("N").value_parser(value_parser!(u64)).help("Repeats the same requests"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Prints the summary as JSON"))
}

/// Runs the command. Exit 0; 1 when a connection failed or a status was not among the expected.
pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let (Some(rate), Some(url)) = (matches.get_one::<f64>("rate"), matches.get_one::<Uri>("url"))
    else {
        return ExitCode::from(64);
    };
    let name = matches.get_one::<String>("mix").map_or("default", String::as_str);
    let plan = Plan {
        rate: *rate,
        url: url.clone(),
        seconds: matches.get_one::<Duration>("seconds").copied(),
        count: matches.get_one::<u64>("count").copied(),
        mix: Mix::named(name),
        seed: matches.get_one::<u64>("seed").copied().unwrap_or_else(|| fastrand::u64(..)),
        json: matches.get_flag("json"),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("saola load: cannot start: {error}");
            return ExitCode::from(71);
        }
    };
    match runtime.block_on(drive::drive(&plan)) {
        Ok(report) => {
            print!("{}", if plan.json { report.json() } else { report.table() });
            ExitCode::from(u8::from(!report.is_as_expected()))
        }
        Err(error) => {
            eprintln!("saola load: {error}; start the server with: cargo run --release");
            ExitCode::FAILURE
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.1..=5_000.0).contains(rate));
    rate.ok_or_else(|| "a number from 0.1 to 5000".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "a number above 0".to_owned())
}

fn url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("no URL: {error}"))?;
    if uri.scheme_str() != Some("http") || uri.authority().is_none() {
        return Err("an address like http://localhost:8000".to_owned());
    }
    Ok(uri)
}

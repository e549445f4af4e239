//! An application whose releases are copies of one program: for the tests of upgrades only.
//!
//! The file `PROGRAM.version` beside it says which release it is, and `PROGRAM.fault` what is wrong with it.

use std::process::ExitCode;
use std::time::Duration;

use axum::{Router, routing::get};

fn main() -> ExitCode {
    let beside = |suffix: &str| {
        let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
        let path = format!("{}.{suffix}", program.display());
        std::fs::read_to_string(path).ok().map(|text| &*text.trim().to_owned().leak())
    };
    let version = beside("version").unwrap_or("0.0.0");
    let is_set = |name: &str| std::env::vars().find(|(found, _)| found == name);
    let is_rehearsal = is_set("SAOLA_REHEARSAL_FD").is_some();
    let fault = beside("fault").unwrap_or("none");
    match fault {
        "exits" => return ExitCode::from(9),
        "hangs" => hang(),
        // Good when it is tried, and bad when it counts.
        "unsettled" if !is_rehearsal => spoil(is_set("SAOLA_CONFIG").map(|(_, path)| path)),
        _ => {}
    }
    saola::Server::new().version(version).serve(move |_worker| async move {
        match fault {
            "load" => return Err("this release cannot load".into()),
            "late" if !is_rehearsal => return Err("this release cannot load any more".into()),
            "slow" => tokio::time::sleep(Duration::from_secs(2)).await,
            "dies" if !is_rehearsal => drop(tokio::spawn(die())),
            _ => {}
        }
        Ok(Router::new().route("/", get(move || async move { version })).route("/slow", get(slow)))
    })
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(20)).await;
    "slow"
}

#[expect(clippy::disallowed_methods, reason = "the fault that the test wants")]
fn hang() {
    std::thread::sleep(Duration::from_mins(5));
}

fn spoil(config: Option<String>) {
    let _none = config.map(|path| std::fs::write(path, "no settings"));
}

/// A second after it serves.
#[expect(clippy::disallowed_methods, reason = "the fault that the test wants")]
async fn die() {
    tokio::time::sleep(Duration::from_secs(1)).await;
    std::process::exit(1);
}

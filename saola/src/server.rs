//! The front door: from `main` to a running server.

use std::future::Future;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use saola_supervisor::Hooks;
use saola_worker::{BoxError, WorkerInfo};

use crate::application::Application;
use crate::command::{self, Cli, Own};

/// Runs a server with the command line of Saola; `make` builds the application in each worker.
///
/// Call it first in `main`: the process must not have started a thread or a runtime. It returns when the server has
/// stopped, with the exit code for the operating system.
///
/// ```no_run
/// # use axum::{Router, routing::get};
/// fn main() -> std::process::ExitCode {
///     saola::serve(|worker| async move {
///         let greeting = format!("hello from worker {}", worker.slot);
///         Ok(Router::new().route("/", get(|| async { greeting })))
///     })
/// }
/// ```
pub fn serve<F, Fut, A>(make: F) -> ExitCode
where
    F: Fn(WorkerInfo) -> Fut,
    Fut: Future<Output = Result<A, BoxError>>,
    A: Application,
{
    Server::new().serve(make)
}

/// A server with a version, a description and commands of its own.
///
/// ```no_run
/// # use axum::Router;
/// use saola::clap::Command;
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     saola::Server::new()
///         .version(env!("CARGO_PKG_VERSION"))
///         .about("Takes orders.")
///         .command(Command::new("migrate").about("Brings the database up to date"), |_| ExitCode::SUCCESS)
///         .serve(|_worker| async { Ok(Router::new()) })
/// }
/// ```
pub struct Server {
    cli: Cli,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// A server that calls itself by Saola's version.
    pub fn new() -> Self {
        Self {
            cli: Cli {
                version: env!("CARGO_PKG_VERSION"),
                about: "An HTTP service on Saola, the preforking server.",
                commands: Vec::new(),
                hooks: None,
                check: None,
            },
        }
    }

    /// Sets what `--version`, the log and the traces say. Default: the version of Saola.
    #[must_use]
    pub fn version(mut self, version: &'static str) -> Self {
        self.cli.version = version;
        self
    }

    /// Sets the first line of the help.
    #[must_use]
    pub fn about(mut self, about: &'static str) -> Self {
        self.cli.about = about;
        self
    }

    /// Adds a command of the application beside `serve` and `check`.
    #[must_use]
    pub fn command(
        mut self,
        command: Command,
        run: impl Fn(&ArgMatches) -> ExitCode + 'static,
    ) -> Self {
        self.cli.commands.push(Own { command, run: Box::new(run) });
        self
    }

    /// Has these hear of what happens to the server: workers that come and go, reloads, the end.
    ///
    /// ```no_run
    /// struct Journal;
    ///
    /// impl saola::Hooks for Journal {
    ///     fn child_exit(&mut self, exit: &saola::WorkerExit) {
    ///         // Quick, and without a thread: this runs in the supervisor.
    ///         let _ = std::fs::write("/run/shop/last-exit", format!("{} {}", exit.slot, exit.cause));
    ///     }
    /// }
    ///
    /// fn main() -> std::process::ExitCode {
    ///     saola::Server::new().hooks(Journal).serve(|_worker| async { Ok(axum::Router::new()) })
    /// }
    /// ```
    #[must_use]
    pub fn hooks(mut self, hooks: impl Hooks + 'static) -> Self {
        self.cli.hooks = Some(Box::new(hooks));
        self
    }

    /// Has the application's own settings checked with Saola's: before anything is forked, by `check`, and at each reload.
    ///
    /// `mistakes` gives a text for each, which is told with the others; the exit code is 64. It runs in the supervisor: quick,
    /// and without a thread.
    ///
    /// ```no_run
    /// fn mistakes() -> Vec<String> {
    ///     let is_set = std::env::var_os("SHOP_CURRENCY").is_some();
    ///     if is_set { Vec::new() } else { vec!["SHOP_CURRENCY: must be set".to_owned()] }
    /// }
    ///
    /// fn main() -> std::process::ExitCode {
    ///     saola::Server::new().check(mistakes).serve(|_worker| async { Ok(axum::Router::new()) })
    /// }
    /// ```
    #[must_use]
    pub fn check(mut self, mistakes: impl Fn() -> Vec<String> + 'static) -> Self {
        self.cli.check = Some(Box::new(mistakes));
        self
    }

    /// Does what the command line says; without a command it serves.
    pub fn serve<F, Fut, A>(self, make: F) -> ExitCode
    where
        F: Fn(WorkerInfo) -> Fut,
        Fut: Future<Output = Result<A, BoxError>>,
        A: Application,
    {
        command::run(self.cli, &make)
    }
}

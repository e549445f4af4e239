//! Sends the requests when they are due, and collects what comes back.

use std::io::IsTerminal;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use hyper::Uri;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, Interval, interval, sleep_until};

use crate::load::Plan;
use crate::load::http::{Call, Http};
use crate::load::mix::KINDS;
use crate::load::report::{Ended, Report};
use crate::load::world::World;

/// Requests under way at once; one more is skipped, and counted.
const MOST_IN_FLIGHT: u64 = 4_096;
/// How long the last answers are waited for: what a server gives a request, if nobody has set it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the users log in again: tokens live for an hour.
const RENEWAL: Duration = Duration::from_mins(20);

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot connect to {url} ({why})")]
    Connect { url: Uri, why: String },
    #[error("cannot watch for signals")]
    Signals(#[from] std::io::Error),
    #[error("cannot keep latencies")]
    Latencies,
}

/// Runs a plan to its end.
pub(crate) async fn drive(plan: &Plan) -> Result<Report, Error> {
    let http = Rc::new(Http::new(plan.url.clone()));
    http.greet().await.map_err(|why| Error::Connect { url: plan.url.clone(), why })?;
    let (world, refusals) = World::prepare(&http).await;
    for refusal in refusals {
        eprintln!("saola load: {refusal}; requests about it are left out");
    }
    let world = Rc::new(world);
    let sending = send(plan, Rc::clone(&http), Rc::clone(&world));
    let mut report = LocalSet::new().run_until(sending).await?;
    world.clean(&http).await;
    report.set_requests(http.count_sent());
    Ok(report)
}

async fn send(plan: &Plan, http: Rc<Http>, world: Rc<World>) -> Result<Report, Error> {
    let mut report = Report::new().ok_or(Error::Latencies)?;
    let (ended_in, mut ended_out) = mpsc::unbounded_channel();
    let mut rng = Rng::with_seed(plan.seed);
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut progress = Progress::new();
    let mut renewal = interval(RENEWAL);
    renewal.reset();
    let start = Instant::now();
    let mut number = 0_u32;
    loop {
        let offset = Duration::from_secs_f64(f64::from(number) / plan.rate);
        if plan.is_over(number, offset) {
            break;
        }
        tokio::select! {
            _ = int.recv() => break,
            _ = term.recv() => break,
            Some(ended) = ended_out.recv() => report.add(&ended),
            _ = progress.tick.tick() => progress.show(&report, start.elapsed()),
            _ = renewal.tick() => drop(spawn_local(Rc::clone(&world).renew(Rc::clone(&http)))),
            () = sleep_until(start + offset) => {
                number += 1;
                if report.in_flight() >= MOST_IN_FLIGHT {
                    report.skipped();
                    continue;
                }
                report.sent();
                let request = Due::draw(plan, (&http, &world), &mut rng, start + offset);
                spawn_local(request.run(ended_in.clone()));
            }
        }
    }
    report.set_elapsed(start.elapsed());
    let deadline = Instant::now() + PATIENCE;
    while report.in_flight() > 0 {
        tokio::select! {
            Some(ended) = ended_out.recv() => report.add(&ended),
            _ = int.recv() => break,
            _ = term.recv() => break,
            () = sleep_until(deadline) => break,
        }
    }
    report.give_up();
    progress.end(&report, start.elapsed());
    Ok(report)
}

/// A request whose time has come.
struct Due {
    kind: usize,
    call: Call,
    at: Instant,
    http: Rc<Http>,
    world: Rc<World>,
}

impl Due {
    /// Drawn when it is due, in the order of the numbers, so that a seed repeats the run.
    fn draw(
        plan: &Plan,
        (http, world): (&Rc<Http>, &Rc<World>),
        rng: &mut Rng,
        at: Instant,
    ) -> Self {
        let (kind, call) = plan.mix.draw(world, rng);
        Self { kind, call, at, http: Rc::clone(http), world: Rc::clone(world) }
    }

    async fn run(self, ended: mpsc::UnboundedSender<Ended>) {
        let answer = self.http.send(self.call).await;
        let latency = self.at.elapsed();
        let Some(kind) = KINDS.get(self.kind) else { return };
        self.world.learn(kind.then, answer.as_ref().ok());
        let status = answer.map(|(status, _)| status);
        let is_expected = status.as_ref().is_ok_and(|status| kind.expected.contains(status));
        // The receiver is gone when the last answers are no longer waited for.
        let _ = ended.send(Ended { kind: self.kind, status, latency, is_expected });
    }
}

/// A line rewritten each second on a terminal, else one each ten seconds.
struct Progress {
    tick: Interval,
    is_terminal: bool,
}

impl Progress {
    fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let mut tick = interval(Duration::from_secs(if is_terminal { 1 } else { 10 }));
        tick.reset();
        Self { tick, is_terminal }
    }

    fn show(&self, report: &Report, elapsed: Duration) {
        let line = report.progress(elapsed);
        if self.is_terminal { eprint!("\r\x1b[2K{line}") } else { eprintln!("{line}") }
    }

    fn end(&self, report: &Report, elapsed: Duration) {
        self.show(report, elapsed);
        if self.is_terminal {
            eprintln!();
        }
    }
}

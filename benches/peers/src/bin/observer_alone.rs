//! An observer over records that stand in a ring before it starts, in one process: for counting its instructions.
//!
//! `observer_alone write|lines|spans NUMBER [COLLECTOR]`: writes the records of so many requests, and with `lines` and
//! `spans` runs an observer until all have left it. What `lines` takes more than `write` is the price of lines, and what
//! `spans` takes more than `lines` is the price of spans.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::unistd::pipe;
use saola_observability::closed::{Method, Outcome, Protocol, Sampling, SlotState};
use saola_observability::rings::Rings;
use saola_observability::{
    Begin, Choice, End, Epoch, RingName, RunDir, Slot, SlotFiles, SpanId, Stage, TraceId, clock,
};
use saola_observer::logfmt::Format;
use saola_observer::{ExitReason, LineFilter, OtlpSettings, Resource, Settings};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mode, number, collector) = match arguments.as_slice() {
        [mode, number] if mode != "spans" => (mode, number, None),
        [mode, number, collector] if mode == "spans" => (mode, number, Some(collector.clone())),
        _ => bail!("usage: observer_alone write|lines|spans NUMBER [COLLECTOR]"),
    };
    let number: u64 = number.parse()?;
    let place = tempfile::tempdir()?;
    let choice = Choice {
        given: Some(place.path().join("run")),
        name: "alone".into(),
        slots_at_peak: 1,
        ..Choice::default()
    };
    let mut chosen = RunDir::choose(&choice)?;
    chosen.dir.lock("alone")?;
    let mut epoch = Epoch::create(&chosen.dir, chosen.shape)?;
    epoch.publish()?;
    let (observed, worked) = (epoch.open_observer()?, epoch.open_worker(0, 1)?);
    // Each slot belongs to the thread that attached it.
    let written = thread::spawn(move || write(worked, number)).join();
    written.map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    if mode == "write" {
        return Ok(());
    }
    let (lifeline, order) = pipe()?;
    let settings = settings(chosen.dir.path(), collector)?;
    let run_dir = chosen.dir.path().to_owned();
    thread::spawn(move || stop_when_read(&run_dir, order));
    match saola_observer::run(settings, Slot::attach(observed)?, lifeline, None) {
        ExitReason::Stopped => Ok(()),
        ExitReason::Failed(error) => Err(error).context("the observer did not start"),
    }
}

/// Writes what a worker writes of requests as a browser sends them.
fn write(files: SlotFiles, number: u64) -> anyhow::Result<()> {
    let slot = Slot::attach(files)?;
    slot.set_state(SlotState::Ready);
    for number in 1..=number {
        let request_id = format!("{number:026}");
        let mut request = slot.in_flight().begin(&Begin {
            method: Method::Get,
            protocol: Protocol::Http11,
            start_ns: clock::monotonic_ns(),
            start_wall_ns: clock::wall_ns(),
            trace: TraceId(u128::from(number).to_be_bytes()),
            span: SpanId(number.to_be_bytes()),
            parent: SpanId::NONE,
            remote_parent: false,
            sampled: true,
            client: Some([127, 0, 0, 1].into()),
            client_port: 40_000,
            request_id: request_id.as_bytes(),
            path: "/items/7",
        });
        request.set_route("/items/{id}");
        request.end(&End {
            end_ns: clock::monotonic_ns(),
            outcome: Outcome::Ok,
            status: Some(200),
            request_bytes: 0,
            response_bytes: 13,
            sampling: Sampling::Ratio,
            exception: None,
            path: "/items/7",
            method_text: "",
            user_agent: b"curl/8.5.0",
            server_address: b"localhost",
            is_https: false,
            server_port: 8_000,
            tracestate: "",
            request_id: request_id.as_bytes(),
        });
    }
    Ok(())
}

fn settings(run_dir: &Path, collector: Option<String>) -> anyhow::Result<Settings> {
    let otlp = OtlpSettings::from_env(&|variable| match variable {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => collector.clone(),
        // Under valgrind a second is nothing.
        "OTEL_EXPORTER_OTLP_TIMEOUT" => Some("60000".to_owned()),
        "OTEL_BSP_EXPORT_TIMEOUT" => Some("120000".to_owned()),
        _ => None,
    });
    Ok(Settings {
        run_dir: run_dir.to_owned(),
        service: Resource {
            name: "hello".into(),
            version: "1.0.0".into(),
            instance: "host:80".into(),
            host: "host".into(),
            attributes: vec![],
        },
        format: Format::Logfmt,
        has_colour: false,
        lines: LineFilter::default(),
        slow_request: Duration::from_secs(60),
        otlp: otlp.map_err(|errors| anyhow::anyhow!("{errors:?}"))?,
        profiles: None,
        profile_hz: 0,
        admin_name: None,
        no_heap_profiles: None,
        warnings: vec![],
    })
}

/// Gives the order when both cursors of the worker's ring stand at its head: every line is written, every span acknowledged.
fn stop_when_read(run_dir: &Path, order: OwnedFd) -> anyhow::Result<()> {
    let mut rings = Rings::open(run_dir)?;
    let is_read = |rings: &mut Rings| {
        rings.slots().iter().all(|slot| {
            let head = slot.head(RingName::Owner);
            [Stage::Log, Stage::Otlp]
                .iter()
                .all(|stage| slot.start(RingName::Owner, *stage) == head)
        })
    };
    while !is_read(&mut rings) {
        thread::sleep(Duration::from_millis(20));
    }
    File::from(order).write_all(b"q")?;
    Ok(())
}

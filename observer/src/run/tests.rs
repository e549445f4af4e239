//! A whole observer over real slot files: a worker's thread writes, pipes stand for stdout and the lifeline.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use nix::unistd::pipe;
use saola_observability::closed::{Method, Outcome, Protocol, Sampling};
use saola_observability::record::Record;
use saola_observability::{Begin, Choice, End as Ended, Epoch, SlotFiles};

use super::*;
use crate::filter::LineFilter;
use crate::logfmt::Format;
use crate::reader::{Rings, Stage};

const REQUESTS: u32 = 500;

fn settings(run_dir: &Path) -> Settings {
    Settings {
        run_dir: run_dir.to_owned(),
        service: Resource {
            name: "shop".into(),
            version: "1.2".into(),
            instance: "host:80".into(),
            host: "host".into(),
            attributes: vec![],
        },
        format: Format::Logfmt,
        has_colour: false,
        lines: LineFilter::default(),
        slow_request: Duration::from_secs(1),
        otlp: None,
        profiles: None,
        profile_hz: 100,
        admin_name: None,
        no_heap_profiles: None,
        warnings: vec!["a setting has no effect".into()],
    }
}

/// Serves requests that only exist in the slot file; one is still running when it returns.
fn work(files: SlotFiles) {
    let slot = Slot::attach(files).unwrap();
    slot.set_state(SlotState::Ready);
    for number in 0..=REQUESTS {
        let request_id = number.to_string();
        let mut request = slot.in_flight().begin(&Begin {
            method: Method::Get,
            protocol: Protocol::Http11,
            start_ns: clock::monotonic_ns(),
            start_wall_ns: clock::wall_ns(),
            trace: TraceId([1; 16]),
            span: SpanId([2; 8]),
            parent: SpanId::NONE,
            remote_parent: false,
            sampled: true,
            client: None,
            client_port: 0,
            request_id: request_id.as_bytes(),
            path: "/items/7",
        });
        request.set_route("/items/{id}");
        if number == REQUESTS {
            // It runs for ever, as far as anybody can see.
            thread::park();
        }
        request.end(&Ended {
            end_ns: clock::monotonic_ns(),
            outcome: Outcome::Ok,
            status: Some(200),
            request_bytes: 0,
            response_bytes: 5,
            sampling: Sampling::Ratio,
            exception: None,
            path: "/items/7",
            method_text: "",
            user_agent: b"curl",
            server_address: b"localhost",
            is_https: false,
            server_port: 80,
            tracestate: "",
            request_id: request_id.as_bytes(),
        });
    }
}

fn ask(port: u16, head: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(port: u16, path: &str) -> String {
    ask(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let by = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < by, "waited for: {what}");
        thread::yield_now();
    }
}

/// A server's files, with nobody in them yet.
fn epoch(place: &Path) -> (saola_observability::RunDir, Epoch) {
    let choice = Choice {
        given: Some(place.join("run")),
        name: "test".into(),
        slots_at_peak: 2,
        ..Choice::default()
    };
    let mut chosen = saola_observability::RunDir::choose(&choice).unwrap();
    chosen.dir.lock("test").unwrap();
    let epoch = Epoch::create(&chosen.dir, chosen.shape).unwrap();
    epoch.publish().unwrap();
    epoch.supervisor().liveness().beat(clock::monotonic_ns());
    (chosen.dir, epoch)
}

/// One test, because a process has one slot of each kind: what is true of a whole life is asked in its order.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test never forks")]
fn an_observer_reads_answers_and_stops() {
    let place = tempfile::tempdir().unwrap();
    let (run_dir, mut epoch) = epoch(place.path());
    let observer_files = epoch.open_observer().unwrap();
    let worker_files = epoch.open_worker(0, 1).unwrap();
    let _idle = epoch.open_worker(1, 1).unwrap();
    thread::spawn(move || work(worker_files));
    let (lifeline, order) = pipe().unwrap();
    let (read, stdout) = pipe().unwrap();
    let text = thread::spawn(move || io::read_to_string(File::from(read)).unwrap());
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = admin.local_addr().unwrap().port();
    let settings = settings(run_dir.path());
    let observer = thread::spawn(move || {
        let slot = Slot::attach(observer_files).unwrap();
        run(settings, Given { slot, lifeline, admin: Some(admin.into()), stdout })
    });

    answers(port);
    refusals(port);
    damage(&run_dir.path().join("epoch-000001"), port);
    // A connection that was taken, and asks while the observer stops.
    let mut asks_late = TcpStream::connect(("127.0.0.1", port)).unwrap();
    asks_late.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    assert!(get(port, "/health").starts_with("HTTP/1.1 200"), "and so the one before is taken");
    File::from(order).write_all(b"q").unwrap();
    until("it stops", || epoch.observer_seen().state == SlotState::Draining);
    asks_late.write_all(b"\r\n").unwrap();
    let late = io::read_to_string(asks_late).unwrap();
    assert!(late.starts_with("HTTP/1.1 200"), "{late}");
    assert!(matches!(observer.join().unwrap(), ExitReason::Stopped));

    let text = text.join().unwrap();
    assert!(!text.contains(LOST), "it did not have to give up: {text}");
    let of_worker = |line: &&str| line.contains(" msg=request ") && line.contains(" worker=0 ");
    let access: Vec<_> = text.lines().filter(of_worker).collect();
    assert_eq!(access.len(), usize::try_from(REQUESTS).unwrap());
    let pid = std::process::id();
    for (number, line) in access.iter().enumerate() {
        assert!(line.contains(&format!(" worker=0 pid={pid} request_id={number} ")), "{line}");
    }
    for slot in ["slot=0", "slot=1"] {
        let line = format!(
            "msg=\"ring damaged\" target=saola::observer service=shop pid={pid} role=worker count=1 {slot}\n"
        );
        assert_eq!(text.matches(&line).count(), 1, "once a minute for each: {text}");
    }
    assert!(text.contains("level=warn msg=\"a setting has no effect\" target=saola::observer"));
    let lost = " msg=\"records dropped\" target=saola::observer service=shop ";
    let told: Vec<_> = text.lines().filter(|line| line.contains(lost)).collect();
    assert!(told.len() == 1 && told[0].ends_with(" kind=span count=7 slot=1"), "{told:?}");
    // The next observer finds nothing that was written already, and nothing to tell again.
    let mut again = Files::open(run_dir.path()).unwrap();
    assert_eq!(again.news(), []);
    for source in 0..again.sources() {
        assert_eq!([Stage::Log, Stage::Otlp].map(|stage| again.unread(source, stage)), [0, 0]);
    }
}

fn answers(port: u16) {
    until("a worker is ready", || get(port, "/ready").ends_with("\r\n\r\nready\n"));
    assert!(get(port, "/health").starts_with("HTTP/1.1 200"));
    assert!(get(port, "/").contains("/debug/requests"));
    let written = format!("\"lines_written\":{}", REQUESTS + 1);
    until("all lines are written", || get(port, "/status").contains(&written));
    // With its route, which it gets after it has begun.
    let last = || get(port, "/debug/requests?route=/items/{id}&min_ms=0");
    until("the last request runs", || last().contains("\"request_id\":\"500\""));
    assert!(get(port, "/status").contains("\"in_flight\":1"));
    let metrics = get(port, "/metrics");
    for line in [
        "http_server_requests_started_total{http_request_method=\"GET\"} 501\n",
        "saola_log_lines_total{level=\"info\"} 500\n",
        "saola_spans_dropped_total{reason=\"expired\"} 0\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(last().contains("cache-control: no-store"));
    assert!(get(port, "/debug/requests?route=/other").contains("\"requests\":[]"));
}

/// Another process has written over the owner rings of two slots, where `observability/docs/slot-file.md` says.
fn damage(epoch: &Path, port: u16) {
    const HEAD: u64 = 0x240;
    let open = |slot: u32| {
        let path = epoch.join(format!("slot-{slot:04}"));
        File::options().read(true).write(true).open(path).unwrap()
    };
    let word = |file: &File, at: u64| {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, at).unwrap();
        u64::from_ne_bytes(word)
    };
    let set = |file: &File, at: u64, value: u64| {
        file.write_all_at(&value.to_ne_bytes(), at).unwrap();
    };
    let ring = |file: &File| word(file, 0x50);
    let shows = |what: &str, line: &str| until(what, || get(port, "/metrics").contains(line));
    let dropped = |slot: u32, count: u32| {
        format!("saola_records_dropped_total{{worker=\"{slot}\",kind=\"event\"}} {count}\n")
    };
    let slots = [open(0), open(1)];
    // A length of 0 is none.
    for file in &slots {
        set(file, HEAD, word(file, HEAD) + 64);
    }
    for slot in [0, 1] {
        shows("what could not be read is counted", &dropped(slot, 1));
    }
    shows("both are bad", "saola_slots_bad 2\n");
    shows("each is told of", "saola_log_lines_total{level=\"error\"} 2\n");

    // A good record of the other one heals it.
    let begin = ring(&slots[0]);
    let length = word(&slots[0], begin) & 0xffff_ffff;
    let mut record = vec![0; usize::try_from(length).unwrap()];
    slots[0].read_exact_at(&mut record, begin).unwrap();
    record[8..16].copy_from_slice(&64_u64.to_ne_bytes());
    slots[1].write_all_at(&record, ring(&slots[1]) + 64).unwrap();
    set(&slots[1], HEAD, 64 + length);
    shows("a good record has come", "saola_slots_bad 1\n");

    set(&slots[1], HEAD, 64 + length + 64);
    // Spans that found no room.
    set(&slots[1], 0x208, 7);
    shows("that is told", "saola_log_lines_total{level=\"warn\"} 2\n");

    shows("it is bad again", "saola_slots_bad 2\n");
    shows("and counted", &dropped(1, 2));
}

fn refusals(port: u16) {
    assert!(get(port, "/other").starts_with("HTTP/1.1 404"));
    assert!(get(port, "/debug/requests?min_ms=abc").starts_with("HTTP/1.1 400"));
    let wrong = "POST /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let refused = ask(port, wrong);
    assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("allow: GET, HEAD\r\n"));
    let body =
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    assert!(ask(port, body).starts_with("HTTP/1.1 400"));
    let rebound = "GET /status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!(ask(port, rebound).starts_with("HTTP/1.1 403"));
    let head = "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(ask(port, head).ends_with("\r\n\r\n"));
}

/// Without a network driver every connection panics, here with a batch in the exporter's hands.
#[test]
fn an_exporter_that_panics_costs_its_batch_and_is_started_again() {
    let lookup = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://127.0.0.1:9".to_owned()),
        "OTEL_EXPORTER_OTLP_PROTOCOL" => Some("http/protobuf".to_owned()),
        "OTEL_BSP_SCHEDULE_DELAY" => Some("1".to_owned()),
        _ => None,
    };
    crate::otlp::install_tls();
    let traces = Traces::new(crate::OtlpSettings::from_env(&lookup).unwrap().unwrap());
    let resource = settings(Path::new("")).service;
    let said = Rc::new(RefCell::new(Vec::new()));
    let heard = Rc::clone(&said);
    let voice = Voice::new(move |level, message, _| {
        heard.borrow_mut().push(format!("{} {message}", level.as_str()));
    });
    let (_stop, stopped) = watch::channel(None);
    let produce = || {
        let record = Record::Request(crate::logfmt::tests::request());
        traces.record(None, record, &mut Profiles::new(0, None));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        spawn_local(keep_exporting(traces.clone(), resource, voice, stopped));
        let by = Instant::now() + Duration::from_secs(10);
        for lost in 1..=2 {
            produce();
            while traces.tally().dropped(LostSpans::Rejected) < lost {
                assert!(Instant::now() < by, "{:?}, {said:?}", traces.tally());
                sleep(DRAIN_PAUSE).await;
            }
        }
    });
    assert_eq!(said.borrow()[..2], ["error trace export panicked", "error trace export panicked"]);
}

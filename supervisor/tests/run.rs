//! A supervisor with pretended workers, on the real system: forks, kills, drains, failures.
//!
//! Not under the test harness: whoever forks must have one thread. Each scenario runs in a fork of `main`, which is the
//! subreaper of whatever that leaves behind, so that a forgotten process is found.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test, though not under the harness"
)]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::num::NonZeroU32;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, setsid};
use saola_observability::clock::{monotonic_ns, wall_ns};
use saola_observability::exposition::{self, Format};
use saola_observability::reader::Reader;
use saola_observability::record::OwnedValue;
use saola_observability::rings::{Reading, Rings};
use saola_observability::{
    Begin, Choice, Entry, Event, Method, Protocol, Record, Request, RingName, Role, Shape, Slot,
    SlotState, SpanId, Stage, TraceId, Value,
};
use saola_supervisor::{
    AdminBind, Birth, Channel, Children, Exit, ObserverBirth, Order, Reread, Settings,
    Stage as BootStage,
};

fn main() {
    nix::sys::prctl::set_child_subreaper(true).expect("a subreaper");
    let scenarios: [(&str, fn()); 14] = [
        ("a server boots and TERM ends it with 0", boots_and_stops),
        ("a killed worker is replaced in its slot and reported", killed_worker_is_replaced),
        ("requests that died with a worker are counted and recorded", lost_requests),
        ("workers that cannot boot end the server with 3", boot_failure),
        ("a worker that cannot load its application ends the server with 4", load_failure),
        ("a supervisor that is killed leaves no process", killed_supervisor),
        ("a killed observer is replaced and no worker notices", killed_observer),
        ("HUP replaces all workers, and a TERM after it ends them", reload),
        ("twenty reloads leak no descriptor and no process", many_reloads),
        ("a second INT is quick, whatever the workers do", quick_stop),
        ("a taken port ends the start with 5", port_taken),
        ("a thread before the first fork ends the start with 70", thread_before_fork),
        ("a second server in the same run directory is refused with 6", second_instance),
        ("a worker that hangs is aborted and replaced", hung_worker),
    ];
    let only = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    for (name, scenario) in
        scenarios.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| name.contains(only)))
    {
        println!("test {name} ...");
        scenario();
        nobody_is_left();
    }
    println!("test result: ok. {} scenarios", scenarios.len());
}

fn boots_and_stops() {
    let server = Server::start(Nature::Healthy);
    let pids = server.workers(3);
    assert!(title(server.pid).starts_with("saola: supervisor"), "{}", title(server.pid));
    for (slot, pid) in &pids {
        let title = title(*pid);
        assert!(title.starts_with(&format!("saola: worker {slot}")), "{title}");
    }
    assert!(title(server.observers()[0]).starts_with("saola: observer"));
    descriptors_are_few(&pids);
    let dir = server.run_dir.clone();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
    let left: Vec<_> =
        fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "the run directory is not empty: {left:?}");
}

fn killed_worker_is_replaced() {
    let server = Server::start(Nature::Healthy);
    let before = server.workers(3);
    let descriptors = count_descriptors(server.pid);
    let (slot, pid) = before[1];
    for round in 1..=5 {
        let victim = server
            .log()
            .iter()
            .rev()
            .find(|line| line.0 == "ready" && line.1 == slot)
            .map_or(pid, |line| line.2);
        kill(victim, Signal::SIGKILL).expect("the victim lives");
        until("the worker is replaced", || {
            server.log().iter().filter(|line| line.0 == "ready").count() == 3 + round
        });
    }
    assert_eq!(
        server.log().iter().filter(|line| line.0 == "ready" && line.1 == slot).count(),
        6,
        "in its own slot"
    );
    until("each death is counted", || {
        server.metric("saola_worker_restarts_total{reason=\"crash\"}") == Some(5.0)
    });
    assert_eq!(count_descriptors(server.pid), descriptors, "no descriptor is leaked");
    server.stop();
}

fn lost_requests() {
    let server = Server::start(Nature::Busy);
    let (slot, pid) = server.workers(3)[2];
    // Until its word has arrived, its death would be a failed boot.
    until("the supervisor knows of all", || title(server.pid).ends_with("3/3"));
    kill(pid, Signal::SIGSEGV).expect("it lives");
    until("both requests are counted", || {
        server.metric("http_server_requests_lost_total{http_route=\"unmatched\",reason=\"crash\"}")
            == Some(2.0)
    });
    until("the death has its line", || server.records().iter().any(|record| died(record, slot)));
    let mut lost: Vec<_> = server
        .records()
        .into_iter()
        .filter_map(|record| match record {
            Record::Lost(lost) => Some((lost.slot, lost.signal, lost.request.trace)),
            _ => None,
        })
        .collect();
    lost.sort_unstable_by_key(|(.., trace)| trace.0);
    let expected = [1, 2].map(|n| (slot, Some(11), TraceId([n; 16])));
    assert_eq!(lost, expected);
    server.stop();
}

/// The one line of a death, with what was lost.
fn died(record: &Record<'_>, slot: u32) -> bool {
    let Record::Event(event) = record else { return false };
    let has =
        |key: &str, value: &OwnedValue| event.fields.iter().any(|(k, v)| k == key && v == value);
    event.message == "worker died"
        && has("slot", &OwnedValue::U64(slot.into()))
        && has("signal", &OwnedValue::Str("SIGSEGV".to_owned()))
        && has("requests_lost", &OwnedValue::U64(2))
}

fn many_reloads() {
    let server = Server::start(Nature::Healthy);
    server.workers(3);
    let before = count_descriptors(server.pid);
    for round in 1..=20 {
        server.signal(Signal::SIGHUP);
        until("a new generation serves", || {
            server.metric("saola_generation") == Some(f64::from(round + 1))
        });
    }
    // Each slot that was ever used keeps its file mapped: nine at the peak, three at the start.
    until("the old have left", || count_descriptors(server.pid) <= before + 6);
    let files = fs::read_dir(server.run_dir.join("current")).expect("an epoch").count();
    assert!(files <= 2 + 9, "{files} files");
    server.stop();
}

fn quick_stop() {
    let server = Server::start(Nature::Clings);
    server.workers(3);
    server.signal(Signal::SIGINT);
    until("it drains", || {
        server.records().iter().any(|r| matches!(r, Record::Event(e) if e.message == "stopping"))
    });
    let asked = Instant::now();
    server.signal(Signal::SIGINT);
    assert_eq!(server.exit_code(), 0);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

fn port_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let address = taken.local_addr().expect("an address").to_string();
    assert_eq!(Server::start_on(&address, folder.path(), Nature::Healthy).exit_code(), 5);
}

fn thread_before_fork() {
    assert_eq!(Server::start(Nature::Threaded).exit_code(), 70);
}

fn boot_failure() {
    let server = Server::start(Nature::BadBoot);
    assert_eq!(server.exit_code(), 3);
}

fn load_failure() {
    let server = Server::start(Nature::BadLoad);
    assert_eq!(server.exit_code(), 4);
}

fn killed_supervisor() {
    let server = Server::start(Nature::Healthy);
    server.workers(3);
    server.signal(Signal::SIGKILL);
    assert_eq!(wait_for(server.pid), None);
    // Somebody starts anew where the dead left everything lying.
    nobody_is_left();
    let server = Server::start_in(&server.folder, Nature::Healthy);
    until("the next one boots", || {
        server.log().iter().filter(|line| line.0 == "ready").count() >= 6
    });
    server.stop();
}

fn killed_observer() {
    let server = Server::start(Nature::Healthy);
    server.workers(3);
    kill(server.observers()[0], Signal::SIGKILL).expect("it lives");
    until("it is replaced", || server.observers().len() == 2);
    assert_eq!(server.workers(3).len(), 3);
    server.stop();
}

fn reload() {
    let server = Server::start(Nature::Healthy);
    let old = server.workers(3);
    server.signal(Signal::SIGHUP);
    until("a new generation serves", || {
        server.log().iter().filter(|line| line.0 == "ready").count() == 6
    });
    until("the old one has left", || old.iter().all(|(_, pid)| !is_alive(*pid)));
    until("the gauge moves", || server.metric("saola_generation") == Some(2.0));
    server.stop();
}

fn second_instance() {
    let server = Server::start(Nature::Healthy);
    server.workers(3);
    let second = Server::start_in(&server.folder, Nature::Healthy);
    assert_eq!(second.exit_code(), 6);
    server.stop();
}

fn hung_worker() {
    let server = Server::start(Nature::HangsOnce);
    until("it is replaced", || server.log().iter().filter(|line| line.0 == "ready").count() == 4);
    until("it is counted", || {
        server.metric("saola_worker_restarts_total{reason=\"timeout\"}") == Some(1.0)
    });
    server.stop();
}

/// A supervisor in a process of its own.
struct Server {
    folder: PathBuf,
    run_dir: PathBuf,
    pid: Pid,
    owned: Option<tempfile::TempDir>,
}

impl Server {
    fn start(nature: Nature) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
        let path = folder.path().to_owned();
        let mut server = Self::start_in(&path, nature);
        server.owned = Some(folder);
        server
    }

    fn start_in(folder: &Path, nature: Nature) -> Self {
        Self::start_on("127.0.0.1:0", folder, nature)
    }

    #[expect(
        unsafe_code,
        clippy::disallowed_methods,
        reason = "a test is the parent of a supervisor"
    )]
    fn start_on(address: &str, folder: &Path, nature: Nature) -> Self {
        let run_dir = folder.join("run");
        let settings = settings(&run_dir, address);
        let mut children =
            Pretended { log: folder.join("log"), nature, settings: settings.clone() };
        // SAFETY: `main` has one thread, which is this one: it starts none.
        let pid = match unsafe { nix::unistd::fork() }.expect("a fork") {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                setsid().expect("a session of its own");
                if nature == Nature::Threaded {
                    std::thread::spawn(|| poll(&mut [], PollTimeout::NONE));
                }
                let code = saola_supervisor::run(&settings, &mut children).code();
                // SAFETY: _exit has no preconditions; the parent's destructors are the parent's.
                unsafe { nix::libc::_exit(code.into()) }
            }
        };
        Self { folder: folder.to_owned(), run_dir, pid, owned: None }
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("the supervisor lives");
    }

    fn stop(&self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.exit_code(), 0);
    }

    fn exit_code(&self) -> i32 {
        wait_for(self.pid).expect("it ends by itself")
    }

    /// What the children wrote: what, slot, pid.
    fn log(&self) -> Vec<(String, u32, Pid)> {
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.split(' ');
            let what = words.next()?.to_owned();
            Some((what, words.next()?.parse().ok()?, Pid::from_raw(words.next()?.parse().ok()?)))
        };
        text.lines().filter_map(line).collect()
    }

    /// Slots and pids of the first `count` workers that became ready.
    fn workers(&self, count: usize) -> Vec<(u32, Pid)> {
        until("workers are ready", || {
            self.log().iter().filter(|line| line.0 == "ready").count() >= count
        });
        let mut workers: Vec<_> = self
            .log()
            .into_iter()
            .filter(|line| line.0 == "ready")
            .map(|line| (line.1, line.2))
            .take(count)
            .collect();
        workers.sort_unstable_by_key(|(slot, _)| *slot);
        workers
    }

    fn observers(&self) -> Vec<Pid> {
        self.log().iter().filter(|line| line.0 == "observer").map(|line| line.2).collect()
    }

    /// All that stands in the supervisor's ring; the pretended observer takes nothing out.
    fn records(&self) -> Vec<Record<'static>> {
        let mut records = Vec::new();
        let Ok(mut rings) = Rings::open(&self.run_dir) else { return records };
        for slot in rings.slots().iter_mut().filter(|slot| slot.role() == Role::Supervisor) {
            let start = slot.start(RingName::Owner, Stage::Log);
            slot.read(RingName::Owner, start, |_, entry| {
                if let Entry::Record(record) = entry {
                    records.push(record.into_owned());
                }
                Reading::On
            });
        }
        records
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let mut reader = Reader::open(&self.run_dir).ok()?;
        let families = reader.read().ok()?;
        let text = String::from_utf8(exposition::text(families, Format::Text)).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
}

impl Drop for Server {
    /// A scenario that fails leaves nobody: the children follow their supervisor.
    fn drop(&mut self) {
        let _ended_already = kill(self.pid, Signal::SIGKILL);
    }
}

#[derive(Copy, Clone, Eq, PartialEq)]
enum Nature {
    Healthy,
    BadBoot,
    BadLoad,
    /// The first worker of slot 0 stops beating.
    HangsOnce,
    /// Has two requests open, for ever.
    Busy,
    /// Neither drains nor quits.
    Clings,
    /// Another thread runs when the server starts.
    Threaded,
}

struct Pretended {
    log: PathBuf,
    nature: Nature,
    settings: Settings,
}

impl Pretended {
    fn write(&self, what: &str, slot: u32) {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.log).expect("a log");
        file.write_all(format!("{what} {slot} {}\n", std::process::id()).as_bytes())
            .expect("written");
    }
}

impl Children for Pretended {
    fn worker(&mut self, birth: Birth) -> Exit {
        let slot = Slot::attach(birth.slot_files).expect("the slot is free");
        if birth.slot == 1 && self.nature == Nature::BadBoot {
            birth.channel.failed(BootStage::Boot, "no cache");
            return Exit::Boot;
        }
        if birth.slot == 1 && self.nature == Nature::BadLoad {
            birth.channel.failed(BootStage::Load, "no database");
            return Exit::Load;
        }
        let is_first = !fs::read_to_string(&self.log).unwrap_or_default().contains("ready 0 ");
        let hangs = self.nature == Nature::HangsOnce && birth.slot == 0 && is_first;
        let open = if self.nature == Nature::Busy {
            [1, 2].map(|n| Some(begin(slot, n)))
        } else {
            [None, None]
        };
        slot.set_state(SlotState::Ready);
        slot.liveness().beat(monotonic_ns());
        self.write("ready", birth.slot);
        birth.channel.ready();
        let exit = serve(slot, &birth.channel, (hangs, self.nature == Nature::Clings));
        drop(open);
        exit
    }

    fn observer(&mut self, birth: ObserverBirth) -> Exit {
        let slot = Slot::attach(birth.slot_files).expect("the slot is free");
        slot.set_state(SlotState::Ready);
        self.write("observer", 0);
        loop {
            slot.liveness().beat(monotonic_ns());
            let mut fds = [PollFd::new(birth.lifeline.as_fd(), PollFlags::POLLIN)];
            // A byte or the end of the file: both mean leave.
            if poll(&mut fds, PollTimeout::from(100u8)).is_ok_and(|ready| ready > 0) {
                return Exit::Success;
            }
        }
    }

    fn reread(&mut self, _generation: u64) -> Result<Reread, Vec<String>> {
        let settings = self.settings.clone();
        Ok(Reread { settings, observer_changed: false })
    }

    fn settle(&mut self, _generation: u64) {}
}

fn begin(slot: &'static Slot, n: u8) -> Request {
    slot.in_flight().begin(&Begin {
        method: Method::Get,
        protocol: Protocol::Http11,
        start_ns: monotonic_ns(),
        start_wall_ns: wall_ns(),
        trace: TraceId([n; 16]),
        span: SpanId([n; 8]),
        parent: SpanId::NONE,
        remote_parent: false,
        sampled: false,
        client: None,
        client_port: 0,
        request_id: b"id",
        path: "/slow",
    })
}

fn serve(slot: &Slot, channel: &Channel, (hangs, clings): (bool, bool)) -> Exit {
    let orders = channel.orders().expect("a descriptor");
    let mut buffer = [0; 4096];
    loop {
        if !hangs {
            slot.liveness().beat(monotonic_ns());
        }
        let mut fds = [PollFd::new(orders.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(100u8)) != Ok(1) {
            continue;
        }
        if clings {
            let _pause = poll(&mut [], PollTimeout::from(100u8));
            continue;
        }
        let len = recv(orders.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).unwrap_or_default();
        match Channel::parse(&buffer[..len]) {
            Some(Order::Drain { .. } | Order::Stop { .. }) => {
                channel.stopped();
                channel.drained(0);
                return Exit::Success;
            }
            Some(Order::Pause | Order::Resume) => {}
            // `quit`, or the supervisor has died.
            Some(Order::Quit) | None => return Exit::Success,
        }
    }
}

fn settings(run_dir: &Path, address: &str) -> Settings {
    let three = NonZeroU32::new(3).expect("not zero");
    let mut settings = Settings {
        name: "test".to_owned(),
        version: "0.0.0",
        bind: vec![address.parse().expect("an address")],
        admin_bind: AdminBind::Off,
        workers: three,
        workers_from: "test",
        max_workers: three,
        backlog: 64,
        reuse_port: false,
        timeout: Duration::from_secs(2),
        boot_timeout: Duration::from_secs(20),
        graceful_timeout: Duration::from_secs(10),
        abort_grace: Duration::from_secs(1),
        pre_stop_delay: Duration::ZERO,
        max_old_generations: NonZeroU32::new(2).expect("not zero"),
        max_lifetime: Duration::ZERO,
        min_lifetime: Duration::from_secs(1),
        max_memory: 0,
        max_memory_hard: 0,
        has_observer: true,
        give_up: Duration::ZERO,
        upgrade_probation: Duration::from_secs(5),
        image: saola_supervisor::Image {
            path: std::env::current_exe().expect("a program"),
            arguments: Vec::new(),
            start: saola_supervisor::Start::First,
        },
        memento: None,
        pidfile: None,
        umask: 0o077,
        chdir: None,
        socket_mode: 0o660,
        socket_owner: saola_supervisor::Owner::default(),
        identity: None,
        hook: None,
        manager: saola_supervisor::Manager::default(),
        run_dir: choice(run_dir),
        encode: std::rc::Rc::new(encode),
    };
    settings.run_dir.slots_at_peak = settings.slots_at_peak();
    settings
}

fn choice(run_dir: &Path) -> Choice {
    Choice {
        given: Some(run_dir.to_owned()),
        runtime_directory: None,
        xdg_runtime_dir: None,
        name: "test".to_owned(),
        slots_at_peak: 9,
        shape: Shape { ring_bytes: 1 << 17, ..Shape::default() },
    }
}

fn encode(event: &Event<'_>) -> Vec<u8> {
    let mut line = format!("level={} msg={:?}", event.level.as_str(), event.message);
    for (key, value) in event.fields {
        let value = match value {
            Value::Str(text) => format!("{text:?}"),
            Value::U64(number) => number.to_string(),
            Value::I64(number) => number.to_string(),
            Value::F64(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
        };
        line.extend([" ", key, "=", &value]);
    }
    line.push('\n');
    line.into_bytes()
}

/// The exit code; none if a signal ended it.
fn wait_for(pid: Pid) -> Option<i32> {
    let mut status = None;
    until("the process ends", || {
        status = match waitpid(pid, Some(WaitPidFlag::WNOHANG)).expect("our child") {
            WaitStatus::Exited(_, code) => Some(Some(code)),
            WaitStatus::Signaled(..) => Some(None),
            _ => None,
        };
        status.is_some()
    });
    status.flatten()
}

/// All that a server has left behind is given to us, and must be gone or go soon.
fn nobody_is_left() {
    until("no process is left", || {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                return false;
            }
        }
        waitpid(None, Some(WaitPidFlag::WNOHANG)) == Err(Errno::ECHILD)
    });
}

fn title(pid: Pid) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
}

fn count_descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or_default()
}

/// S24: 0 to 2, a listener, the slot's file and the bell, the channel; and what the pretended worker opened itself.
fn descriptors_are_few(workers: &[(u32, Pid)]) {
    for (_, pid) in workers {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").flatten();
        let targets: Vec<_> = links.filter_map(|link| fs::read_link(link.path()).ok()).collect();
        assert!(targets.len() <= 8, "too many: {targets:?}");
        assert!(
            !targets.iter().any(|target| target.to_string_lossy().contains("signalfd")),
            "{targets:?}"
        );
        assert!(!targets.iter().any(|target| target.ends_with("lock")), "{targets:?}");
    }
}

fn is_alive(pid: Pid) -> bool {
    kill(pid, None).is_ok()
}

#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        let _pause = poll(&mut [], PollTimeout::from(10u8));
    }
}

//! What others do to the files: cut, deleted, replaced, overwritten, of another kind, without space. The writer lives, and a
//! scrape shows either the truth or a gap. It forks, so each fault has a process of its own.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::panic,
    clippy::float_cmp,
    clippy::similar_names,
    reason = "a test with its own main"
)]

#[path = "calls/filter.rs"]
mod filter;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, raise, signal};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;
use saola_observability::exposition::{self, Format};
use saola_observability::metrics::{Counter, CounterVec, Histogram, HistogramVec};
use saola_observability::reader::Reader;
use saola_observability::rings::Rings;
use saola_observability::{
    Begin, Choice, Death, End, Epoch, Event, Level, LostReason, Method, Outcome, Protocol, Role,
    RunDir, RunDirError, Sampling, Shape, Slot, SlotError, SlotState, SpanId, TraceId,
};

use crate::filter::filter;

static WORK: Counter = Counter::new("test_work_total", "Work.");
static MANY: CounterVec<1> = CounterVec::new("test_many_total", "Many.", ["a"]);
static WIDE: HistogramVec<1> = HistogramVec::new("test_wide", "Numbers.", ["a"], &BOUNDS);
const BOUNDS: [f64; 64] = {
    let mut bounds = [1.0; 64];
    let mut at = 1;
    while at < 64 {
        bounds[at] = bounds[at - 1] + 1.0;
        at += 1;
    }
    bounds
};
static VALUES: Histogram = Histogram::new("test_values", "Numbers.", &[1.0, 2.0]);

fn main() {
    let tests: [(&str, fn()); 21] = [
        ("a_writer_outlives_a_file_that_is_cut", a_writer_outlives_a_file_that_is_cut),
        (
            "a_child_whose_handlers_were_taken_away_outlives_it_too",
            a_child_whose_handlers_were_taken_away_outlives_it_too,
        ),
        ("a_damaged_slot_leaves_a_gap_and_no_fall", a_damaged_slot_leaves_a_gap_and_no_fall),
        ("a_copy_in_the_place_of_a_file_is_found", a_copy_in_the_place_of_a_file_is_found),
        (
            "a_full_file_system_refuses_only_what_is_new",
            a_full_file_system_refuses_only_what_is_new,
        ),
        (
            "no_space_for_cells_refuses_only_what_is_new",
            no_space_for_cells_refuses_only_what_is_new,
        ),
        ("a_used_up_quota_refuses_only_what_is_new", a_used_up_quota_refuses_only_what_is_new),
        ("a_used_up_quota_is_said_at_the_start", a_used_up_quota_is_said_at_the_start),
        ("requests_agree_when_space_ends_before_attach", requests_agree_without_space_at_attach),
        ("requests_agree_when_space_ends_later", requests_agree_when_space_ends_later),
        ("names_beyond_the_limit_are_other", names_beyond_the_limit_are_other),
        (
            "long_label_values_are_cut_between_characters",
            long_label_values_are_cut_between_characters,
        ),
        ("files_are_for_their_user_alone", files_are_for_their_user_alone),
        ("no_space_at_the_start_is_said_at_the_start", no_space_at_the_start_is_said_at_the_start),
        ("two_supervisors_never_share_a_directory", two_supervisors_never_share_a_directory),
        ("a_slot_has_one_owner", a_slot_has_one_owner),
        ("a_worker_maps_its_own_file_and_the_bell", a_worker_maps_its_own_file_and_the_bell),
        ("a_touch_of_anothers_slot_is_the_end", a_touch_of_anothers_slot_is_the_end),
        ("the_end_of_a_request_ends_a_sleep", the_end_of_a_request_ends_a_sleep),
        ("a_million_label_values_stay_bounded", a_million_label_values_stay_bounded),
        ("requests_beyond_the_limit_count_as_other", requests_beyond_the_limit_count_as_other),
    ];
    let only = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let mut failed = 0;
    for (name, test) in tests {
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let is_passed = in_child_with(test); // a slot is attached once, for life
        println!("test {name} ... {}", if is_passed { "ok" } else { "FAILED" });
        failed += u8::from(!is_passed);
    }
    assert!(failed == 0, "{failed} tests failed");
    println!("\ntest result: ok. {} passed; 0 failed", tests.len());
}

struct World {
    folder: tempfile::TempDir,
    run_dir: RunDir,
    epoch: Epoch,
}

fn shape() -> Shape {
    Shape { in_flight_entries: 16, ring_bytes: 128 << 10, samples: false }
}

fn choice(run: PathBuf) -> Choice {
    Choice { given: Some(run), slots_at_peak: 1, shape: shape(), ..Choice::default() }
}

impl World {
    fn new() -> Self {
        Self::within(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn within(folder: tempfile::TempDir) -> Self {
        let mut run_dir = RunDir::choose(&choice(folder.path().join("run"))).unwrap().dir;
        run_dir.lock("0").unwrap();
        let epoch = Epoch::create(&run_dir, shape()).unwrap();
        epoch.publish().unwrap();
        Self { folder, run_dir, epoch }
    }

    fn worker(&mut self) -> &'static Slot {
        let slot = Slot::attach(self.epoch.open_worker(0, 1).unwrap()).unwrap();
        slot.set_state(SlotState::Ready);
        slot
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn slot_path(&self) -> PathBuf {
        self.run().join("epoch-000001").join("slot-0000")
    }

    /// The number of a counter, `None` while it is not shown, as a reader that opens now sees it.
    fn shown(&self, name: &str) -> Option<f64> {
        shown(&mut Reader::open(&self.run()).unwrap(), name)
    }
}

fn shown(reader: &mut Reader, name: &str) -> Option<f64> {
    let families = reader.read().unwrap();
    let family = families.list().iter().find(|family| family.name == name && family.is_known)?;
    Some(family.series.iter().map(|series| series.value.as_f64()).sum())
}

fn a_writer_outlives_a_file_that_is_cut() {
    let mut world = World::new();
    let slot = world.worker();
    WORK.inc();
    for length in [32 << 20, 4096, 0] {
        File::options().write(true).open(world.slot_path()).unwrap().set_len(length).unwrap();
        WORK.inc();
        VALUES.observe(1.0);
        MANY.with(["new"]).inc();
        slot.liveness().beat(1);
        slot.records().event(&event());
    }
    assert_eq!(world.shown("test_work_total"), None);
    assert_eq!(world.epoch.damaged(), Some((Role::Worker, 0)));
}

/// A supervisor gives its children the system's actions back, and the handler with them; whoever maps a slot has it again.
fn a_child_whose_handlers_were_taken_away_outlives_it_too() {
    let mut world = World::new();
    let files = world.epoch.open_worker(0, 1).unwrap();
    let survives = in_child_with(|| {
        #[expect(unsafe_code, reason = "as the supervisor does for each child")]
        // SAFETY: signal(2) is dangerous for what a handler may do; the default action runs no code.
        unsafe { signal(Signal::SIGBUS, SigHandler::SigDfl) }.unwrap();
        let slot = Slot::attach(files).unwrap();
        WORK.inc();
        cut(&world.slot_path(), 4096);
        WORK.inc();
        slot.records().event(&event());
    });
    assert!(survives);
    // A signal that somebody sends is the end, as it would be without us.
    let end = fork_with(|| {
        #[expect(unsafe_code, reason = "as the supervisor does for each child")]
        // SAFETY: as above.
        unsafe { signal(Signal::SIGBUS, SigHandler::SigDfl) }.unwrap();
        setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
        let _reader = Reader::open(&world.run()).unwrap().read().map(|_| ());
        raise(Signal::SIGBUS).unwrap();
    });
    assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGBUS, _)), "{end:?}");
}

fn event() -> Event<'static> {
    Event {
        wall_ns: 1,
        level: Level::Info,
        target: "t",
        message: "m",
        trace: TraceId::NONE,
        span: SpanId::NONE,
        request_id: "",
        fields: &[],
    }
}

fn a_damaged_slot_leaves_a_gap_and_no_fall() {
    type Fault = fn(&Path);
    let faults: [(&str, Fault); 10] = [
        ("cut to 0", |path| cut(path, 0)),
        ("cut to half", |path| cut(path, 33 << 20)),
        ("cut and grown again", |path| {
            cut(path, 33 << 20);
            cut(path, 16 << 20);
            cut(path, 64 << 20);
        }),
        ("deleted", |path| fs::remove_file(path).unwrap()),
        ("moved away", |path| fs::rename(path, path.with_extension("old")).unwrap()),
        ("replaced by a link", |path| {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
        }),
        ("replaced by a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("replaced by a FIFO", |path| {
            fs::remove_file(path).unwrap();
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
        ("overwritten header", |path| write(path, 0, &[0xAA; 4096])),
        ("overwritten keys", |path| write(path, 16 << 20, &[0xAA; 4096])),
    ];
    for (what, fault) in faults {
        assert!(
            in_child_with(|| {
                let mut world = World::new();
                let _slot = world.worker();
                WORK.add(5);
                let mut before = Reader::open(&world.run()).unwrap();
                assert_eq!(shown(&mut before, "test_work_total"), Some(5.0));
                fault(&world.slot_path());
                WORK.inc();
                for seen in [world.shown("test_work_total"), shown(&mut before, "test_work_total")]
                {
                    assert!(seen.is_none_or(|seen| seen >= 5.0), "{what}: {seen:?}");
                }
                assert_eq!(world.shown("test_work_total"), None, "{what}");
                assert!(world.shown("saola_slots_bad").is_some_and(|bad| bad >= 1.0), "{what}");
                assert_eq!(world.epoch.damaged(), Some((Role::Worker, 0)), "{what}");
            }),
            "{what}"
        );
    }
}

fn in_child_with(test: impl FnOnce()) -> bool {
    matches!(fork_with(test), WaitStatus::Exited(_, 0))
}

/// How a child ends that does this.
fn fork_with(test: impl FnOnce()) -> WaitStatus {
    #[expect(unsafe_code, reason = "a slot is attached once in the life of a process")]
    // SAFETY: fork(2) asks for one thread: this process has one.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        ForkResult::Child => {
            let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)).is_ok();
            std::process::exit(i32::from(!passed));
        }
    }
}

/// The supervisor misses each of its files, though a copy that looks the same stands there and counts no more.
fn a_copy_in_the_place_of_a_file_is_found() {
    for (name, whose) in [
        ("slot-0000", (Role::Worker, 0)),
        ("observer", (Role::Observer, 0)),
        ("supervisor", (Role::Supervisor, 0)),
    ] {
        let mut world = World::new();
        drop(world.epoch.open_worker(0, 1).unwrap());
        assert_eq!(world.epoch.damaged(), None);
        let path = world.slot_path().with_file_name(name);
        let old = path.with_extension("old");
        fs::rename(&path, &old).unwrap();
        assert_eq!(world.epoch.damaged(), Some(whose));
        fs::copy(old, path).unwrap();
        assert_eq!(world.epoch.damaged(), Some(whose));
        world.epoch.remove();
    }
}

fn cut(path: &Path, length: u64) {
    File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn write(path: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// A file system of its own, or none: that needs root.
struct Small(tempfile::TempDir);

impl Small {
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        match mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some(&*options))
        {
            Ok(()) => Some(Self(folder)),
            Err(errno) => {
                println!("SKIPPED: cannot mount a small tmpfs ({errno}); run this test as root");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a slot stays mapped for the life of its process.
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

fn a_full_file_system_refuses_only_what_is_new() {
    let Some(small) = Small::new("6m") else { return };
    let mut world = World::within(tempfile::tempdir_in(small.0.path()).unwrap());
    let _slot = world.worker();
    MANY.with(["old"]).inc();
    let ballast = fill(&world);
    // Keys of 250 bytes: the 64 KiB that a slot has are full after some 100.
    let label = |number: u32| format!("{number:0250}");
    for number in 0..500 {
        MANY.with([label(number)]).inc();
        MANY.with(["old"]).inc();
    }
    let sum = world.shown("test_many_total").unwrap();
    let dropped = world.shown("saola_metrics_series_dropped_total").unwrap();
    assert!(dropped > 0.0, "the file system was not full");
    assert_eq!(sum + dropped, 1_001.0);
    fs::remove_file(ballast).unwrap();
    // It is tried again at most once a second.
    let start = std::time::Instant::now();
    while world.shown("test_many_total").unwrap() <= sum {
        MANY.with([label(499)]).inc();
        assert!(start.elapsed().as_secs() < 10, "no recovery");
    }
    world.epoch.remove();
}

/// As above, where the cells need the space and not the keys: 195 words behind a label of a few bytes.
fn no_space_for_cells_refuses_only_what_is_new() {
    let Some(small) = Small::new("6m") else { return };
    let mut world = World::within(tempfile::tempdir_in(small.0.path()).unwrap());
    let _slot = world.worker();
    WIDE.with(["old"]).observe(1.0);
    let ballast = fill(&world);
    for number in 0..300 {
        WIDE.with([number.to_string()]).observe(1.0);
        WIDE.with(["old"]).observe(1.0);
    }
    let sum = world.shown("test_wide").unwrap();
    let dropped = world.shown("saola_metrics_series_dropped_total").unwrap();
    assert!(dropped > 0.0, "the file system was not full");
    assert_eq!(sum + dropped, 601.0);
    fs::remove_file(ballast).unwrap();
    let start = std::time::Instant::now();
    while world.shown("test_wide").unwrap() <= sum {
        WIDE.with(["299"]).observe(1.0);
        assert!(start.elapsed().as_secs() < 10, "no recovery");
    }
    world.epoch.remove();
}

/// The kernel refuses space as it does to a user who has used up a quota: with another error than a full file system's.
fn use_up_quota() {
    let refused = libc::SECCOMP_RET_ERRNO | libc::EDQUOT.cast_unsigned();
    filter(&[libc::SYS_fallocate], refused, libc::SECCOMP_RET_ALLOW);
}

fn a_used_up_quota_refuses_only_what_is_new() {
    let mut world = World::new();
    let _slot = world.worker();
    MANY.with(["old"]).inc();
    WIDE.with(["old"]).observe(1.0);
    use_up_quota();
    for number in 0..300 {
        MANY.with([format!("{number:0250}")]).inc();
        MANY.with(["old"]).inc();
        WIDE.with([number.to_string()]).observe(1.0);
        WIDE.with(["old"]).observe(1.0);
    }
    let [many, wide] = ["test_many_total", "test_wide"].map(|name| world.shown(name).unwrap());
    assert!(many >= 301.0 && wide >= 301.0, "what was known counts on");
    let dropped = world.shown("saola_metrics_series_dropped_total").unwrap();
    assert!(dropped > 0.0, "there was space");
    assert_eq!(many + wide + dropped, 1_202.0);
    world.epoch.remove();
}

fn a_used_up_quota_is_said_at_the_start() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut run_dir = RunDir::choose(&choice(folder.path().join("run"))).unwrap().dir;
    run_dir.lock("0").unwrap();
    use_up_quota();
    let Err(refused) = Epoch::create(&run_dir, shape()) else { panic!("there was space") };
    let SlotError::System { source, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(source.raw_os_error().map(Errno::from_raw), Some(Errno::EDQUOT));
}

/// Started, finished, lost and running requests, as a new reader sees them.
fn identity(world: &mut World) -> [f64; 4] {
    let shown = |name| world.shown(name).unwrap_or(0.0);
    let [started, finished, lost] = [
        "http_server_requests_started_total",
        "http_server_request_duration_seconds",
        "http_server_requests_lost_total",
    ]
    .map(shown);
    let running = u32::try_from(world.epoch.in_flight(0).len()).unwrap();
    [started, finished, lost, f64::from(running)]
}

fn assert_agreed(world: &mut World) -> f64 {
    let all @ [started, finished, lost, running] = identity(world);
    assert_eq!(started, finished + lost + running, "{all:?}");
    started
}

fn fill(world: &World) -> PathBuf {
    let ballast = world.folder.path().join("ballast");
    let file = File::create_new(&ballast).unwrap();
    let mut written = 0;
    while file.write_all_at(&[1; 4096], written).is_ok() {
        written += 4096;
    }
    ballast
}

/// No owner made the cells of requests, and there is no space for them: as after a death at the wrong moment.
fn requests_agree_without_space_at_attach() {
    let Some(small) = Small::new("6m") else { return };
    let mut world = World::within(tempfile::tempdir_in(small.0.path()).unwrap());
    let files = world.epoch.open_worker(0, 1).unwrap();
    // `key_len` (docs/slot-file.md) says that the first step is full, and no more can be had.
    let file = File::options().write(true).open(world.slot_path()).unwrap();
    file.write_all_at(&(64_u64 << 10).to_ne_bytes(), 0x180).unwrap();
    let ballast = fill(&world);
    let slot = Slot::attach(files).unwrap();
    slot.set_state(SlotState::Ready);
    let across = slot.in_flight().begin(&begin());
    for _ in 0..20 {
        slot.in_flight().begin(&begin()).end(&end());
        assert_agreed(&mut world);
    }
    assert_eq!(identity(&mut world)[0], 0.0, "there was space");
    fs::remove_file(ballast).unwrap();
    let start = std::time::Instant::now();
    while assert_agreed(&mut world) < 3.0 {
        slot.in_flight().begin(&begin()).end(&end());
        assert!(start.elapsed().as_secs() < 10, "no recovery");
    }
    across.end(&end()); // begun uncounted, so its end is not counted
    assert_agreed(&mut world);
    let running = slot.in_flight().begin(&begin());
    assert_agreed(&mut world);
    running.end(&end());
    assert_agreed(&mut world);
    world.epoch.remove();
}

fn requests_agree_when_space_ends_later() {
    let Some(small) = Small::new("6m") else { return };
    let mut world = World::within(tempfile::tempdir_in(small.0.path()).unwrap());
    let slot = world.worker();
    let ballast = fill(&world);
    for number in 0..500 {
        MANY.with([format!("{number:0250}")]).inc();
    }
    // Every route of these is one label set more than there is space for.
    for number in 0..200 {
        let mut request = slot.in_flight().begin(&begin());
        request.set_route(&format!("/{number:0120}"));
        assert_agreed(&mut world);
        request.end(&End { exception: Some("panic"), ..end() });
        assert_agreed(&mut world);
    }
    assert_eq!(identity(&mut world)[..2], [200.0, 200.0]);
    fs::remove_file(ballast).unwrap();
    let start = std::time::Instant::now();
    while !routes(&world).contains(&format!("/{:0120}", 199)) {
        let mut request = slot.in_flight().begin(&begin());
        request.set_route(&format!("/{:0120}", 199));
        request.end(&end());
        assert!(start.elapsed().as_secs() < 10, "no recovery");
    }
    assert_agreed(&mut world);
    world.epoch.remove();
}

fn routes(world: &World) -> String {
    let mut reader = Reader::open(&world.run()).unwrap();
    let families = reader.read().unwrap().list();
    let durations =
        families.iter().find(|family| family.name == "http_server_request_duration_seconds");
    durations.unwrap().series.iter().map(|series| series.labels.as_str()).collect()
}

fn begin() -> Begin<'static> {
    Begin {
        method: Method::Get,
        protocol: Protocol::Http11,
        start_ns: 1,
        start_wall_ns: 1,
        trace: TraceId::NONE,
        span: SpanId::NONE,
        parent: SpanId::NONE,
        remote_parent: false,
        sampled: false,
        client: None,
        client_port: 0,
        request_id: b"",
        path: "/",
    }
}

fn end() -> End<'static> {
    End {
        end_ns: 2,
        outcome: Outcome::Ok,
        status: Some(200),
        request_bytes: 1,
        response_bytes: 2,
        sampling: Sampling::Dropped,
        exception: None,
        path: "/",
        method_text: "",
        user_agent: b"",
        server_address: b"",
        is_https: false,
        server_port: 0,
        tracestate: "",
        request_id: b"",
    }
}

/// A worker names 200 routes, and a slot keeps 2,048 names of all its workers; what comes later is `other`, and the first ones
/// stay (F23).
fn names_beyond_the_limit_are_other() {
    let mut world = World::new();
    for life in 0..12 {
        let files = world.epoch.open_worker(0, 1).unwrap();
        let names_as_expected = in_child_with(|| {
            let slot = Slot::attach(files).unwrap();
            let is_known = |route: &str| {
                let mut request = slot.in_flight().begin(&begin());
                request.set_route(route);
                let known = request.route() == route;
                request.end(&end());
                known
            };
            assert!(is_known("/0/0"), "the first of all");
            let known = (0..300).filter(|number| is_known(&format!("/{life}/{number}"))).count();
            match life {
                0 => assert_eq!(known, 200),
                1..10 => assert_eq!(known, 199),
                // Some of the 2,048 are Saola's own: `GET`, `unmatched` and their like.
                _ => assert!(known < 60, "{known} in life {life}"),
            }
            assert!(life < 11 || known == 0, "{known} after the last");
        });
        assert!(names_as_expected, "life {life}");
        let (signal, exit_code, reason) = (None, Some(0), LostReason::Drain);
        world.epoch.bury(0, &Death { pid: 1, signal, exit_code, reason });
    }
    world.epoch.remove();
}

fn long_label_values_are_cut_between_characters() {
    let world = World::new();
    let long = "é".repeat(127) + "xé"; // 255 bytes, and a character of two
    MANY.with([&long]).inc();
    MANY.with([long + "and more"]).inc();
    let cut = "é".repeat(127) + "x";
    let mut reader = Reader::open(&world.run()).unwrap();
    let families = reader.read().unwrap().list();
    let many = families.iter().find(|family| family.name == "test_many_total").unwrap();
    let series = many.series.iter().find(|series| series.labels == format!("a=\"{cut}\"")).unwrap();
    assert_eq!(series.value.as_f64(), 2.0);
    world.epoch.remove();
}

/// Whatever the umask is: nobody else may enter the directory, and its files are for their user alone (F3).
fn files_are_for_their_user_alone() {
    for mask in [Mode::empty(), Mode::S_IRWXU | Mode::S_IRWXG | Mode::S_IRWXO] {
        let survives = in_child_with(|| {
            let folder = tempfile::tempdir_in("/dev/shm").unwrap();
            umask(mask);
            let mut world = World::within(folder);
            drop(world.epoch.open_worker(0, 1).unwrap());
            let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
            let epoch = world.run().join("epoch-000001");
            assert_eq!([mode(&world.run()), mode(&epoch)], [0o700, 0o700]);
            for name in ["supervisor", "observer", "slot-0000"] {
                assert_eq!(mode(&epoch.join(name)), 0o600, "{name}");
            }
            assert_eq!(mode(&world.run().join("lock")), 0o600);
            world.epoch.remove();
        });
        assert!(survives, "{mask:?}");
    }
}

fn no_space_at_the_start_is_said_at_the_start() {
    let Some(small) = Small::new("512k") else { return };
    let refused = RunDir::choose(&choice(small.0.path().join("run")));
    assert!(matches!(refused, Err(RunDirError::NoSpace { .. })), "{refused:?}");
}

fn two_supervisors_never_share_a_directory() {
    let world = World::new();
    let mut second = RunDir::choose(&choice(world.run())).unwrap().dir;
    let refused = second.lock("1");
    let Err(RunDirError::InUse { owner, .. }) = refused else { panic!("{refused:?}") };
    assert!(owner.starts_with(&format!("pid {}", std::process::id())), "{owner}");
    world.epoch.remove();
    world.run_dir.release();
    let mut third = RunDir::choose(&choice(world.folder.path().join("run"))).unwrap().dir;
    third.lock("1").unwrap();
}

fn a_slot_has_one_owner() {
    let mut world = World::new();
    let _slot = world.worker();
    let again = Slot::attach(world.epoch.open_worker(0, 2).unwrap());
    assert!(matches!(again, Err(SlotError::Locked(0))));
}

/// A child that is given slot 1 has no other slot's memory (F14): not slot 0's, and of the supervisor's the bell's page.
fn a_worker_maps_its_own_file_and_the_bell() {
    let mut world = World::new();
    WORK.inc();
    drop(world.epoch.open_worker(0, 1).unwrap());
    let files = world.epoch.open_worker(1, 1).unwrap();
    let run = world.run();
    #[expect(unsafe_code, reason = "a slot is attached once in the life of a process")]
    // SAFETY: fork(2) asks for one thread: this process has one.
    if let ForkResult::Parent { child } = unsafe { nix::unistd::fork() }.unwrap() {
        drop(files);
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        assert_eq!(world.shown("test_work_total"), Some(11.0), "counted once before the fork");
        return;
    }
    Slot::attach(files).unwrap();
    WORK.add(10);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let ours = maps.lines().filter(|line| line.contains(run.to_str().unwrap()));
    let mut found: Vec<(String, u64)> = ours
        .map(|line| {
            let (start, rest) = line.split_once('-').unwrap();
            let end = rest.split_once(' ').unwrap().0;
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            let name = line.rsplit_once('/').unwrap().1;
            (name.to_owned(), (number(end) - number(start)) >> 10)
        })
        .collect();
    found.sort();
    let expected = [("slot-0001".to_owned(), 64 << 10), ("supervisor".to_owned(), 4)];
    std::process::exit(i32::from(found != expected));
}

/// A child that follows a pointer into the supervisor's mapping of a slot dies of it, and has changed nothing.
fn a_touch_of_anothers_slot_is_the_end() {
    let mut world = World::new();
    drop(world.epoch.open_worker(0, 1).unwrap());
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let run = world.run();
    let mapped = maps.lines().filter(|line| line.contains(run.to_str().unwrap()));
    let starts: Vec<usize> = mapped
        .map(|line| usize::from_str_radix(line.split_once('-').unwrap().0, 16).unwrap())
        .collect();
    assert!(starts.len() >= 3, "supervisor, observer and slot 0: {maps}");
    for start in starts {
        #[expect(unsafe_code, reason = "a wild pointer is what is tested")]
        // SAFETY: fork(2) asks for one thread: this process has one.
        let child = match unsafe { nix::unistd::fork() }.unwrap() {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
                let word = std::ptr::with_exposed_provenance_mut::<u64>(start + 0x1C0);
                #[expect(unsafe_code, reason = "a wild pointer is what is tested")]
                // SAFETY: none of the contract of `write_volatile` holds: nothing is mapped there, and the kernel ends us.
                unsafe {
                    word.write_volatile(7);
                }
                std::process::exit(0)
            }
        };
        let end = waitpid(child, None).unwrap();
        assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGSEGV, _)), "{end:?}");
    }
    assert_eq!(world.epoch.damaged(), None);
    world.epoch.remove();
}

fn the_end_of_a_request_ends_a_sleep() {
    let mut world = World::new();
    let rings = Rings::open(&world.run()).unwrap();
    let files = world.epoch.open_worker(0, 1).unwrap();
    let alarm = rings.alarm().unwrap();
    assert!(!alarm.wait(std::time::Duration::from_millis(1)), "nobody rings");
    #[expect(unsafe_code, reason = "a slot is attached once in the life of a process")]
    // SAFETY: fork(2) asks for one thread: this process has one.
    if let ForkResult::Parent { child } = unsafe { nix::unistd::fork() }.unwrap() {
        assert!(alarm.wait(std::time::Duration::from_mins(1)), "the worker rings");
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        return;
    }
    Slot::attach(files).unwrap().in_flight().begin(&begin()).end(&end());
    std::process::exit(0);
}

fn a_million_label_values_stay_bounded() {
    let is_long = std::env::var("SAOLA_LONG").is_ok_and(|value| value == "1");
    let many: u32 = if is_long { 1_000_000 } else { 50_000 };
    let mut world = World::new();
    let _slot = world.worker();
    for number in 0..many {
        MANY.with([format!("value {number}")]).inc();
    }
    let mut reader = Reader::open(&world.run()).unwrap();
    let families = reader.read().unwrap();
    let family = families.list().iter().find(|family| family.name == "test_many_total").unwrap();
    assert_eq!(family.series.len(), 1_001);
    assert_eq!(
        family.series.iter().map(|series| series.value.as_f64()).sum::<f64>(),
        f64::from(many)
    );
    let other = family.series.iter().find(|series| series.labels == "a=\"other\"").unwrap();
    assert_eq!(other.value.as_f64(), f64::from(many - 1_000));
    let dropped = |world: &World| world.shown("saola_metrics_series_dropped_total").unwrap();
    assert_eq!(dropped(&world), f64::from(many - 1_000));
    // However many there were: the file has two steps of keys and one of values, a scrape the lines of what is kept.
    let kib = fs::metadata(world.slot_path()).unwrap().blocks() / 2;
    assert!(kib < 512, "{kib} KiB of file");
    let text = exposition::text(reader.families(), Format::Text);
    assert!(text.len() < 64 << 10, "{} bytes of text", text.len());
    // Each update counts, also by a handle that is kept.
    let kept = MANY.with(["one more"]);
    (0..5).for_each(|_| kept.inc());
    assert_eq!(dropped(&world), f64::from(many - 995));
    assert_eq!(world.shown("test_many_total"), Some(f64::from(many + 5)));
}

/// Kinds of requests beyond the limit of a family count in its overflow series, and each such update is told (F55).
fn requests_beyond_the_limit_count_as_other() {
    let mut world = World::new();
    let slot = world.worker();
    let mut requests = 0.0;
    for route in 0..150 {
        for status in 200..208 {
            let mut request = slot.in_flight().begin(&begin());
            request.set_route(&format!("/{route}"));
            request.end(&End { status: Some(status), response_bytes: 1, ..end() });
            requests += 1.0;
        }
    }
    let mut reader = Reader::open(&world.run()).unwrap();
    let families = reader.read().unwrap().list();
    let durations =
        families.iter().find(|family| family.name == "http_server_request_duration_seconds");
    let series = &durations.unwrap().series;
    let other = series.iter().find(|series| series.labels.contains("http_route=\"other\""));
    assert_eq!(series.len(), 1_001);
    assert_eq!(other.unwrap().value.as_f64(), requests - 1_000.0);
    // Of bytes there is one series a route.
    let dropped = world.shown("saola_metrics_series_dropped_total").unwrap();
    assert_eq!(dropped, requests - 1_000.0);
    assert_eq!(assert_agreed(&mut world), requests);
    world.epoch.remove();
}

//! Facts about single decisions.

use super::asked::{Client, Origin, Scale, Stop};
use super::cause::{Oom, Stage, Status};
use super::event::{Answer, Ending, ForkFailure};
use super::*;

mod boots;
mod control;

const KILLED: Status = Status::Signaled { signal: 9, core: false };

struct Server {
    life: Lifecycle,
    now: Instant,
}

impl Server {
    /// Of two workers, that may become four; all forked, none ready.
    fn booting() -> Self {
        let limits = Limits {
            workers: 2,
            max_workers: 4,
            timeout: Duration::from_secs(30),
            boot_timeout: Duration::from_mins(1),
            graceful_timeout: Duration::from_secs(30),
            abort_grace: Duration::from_secs(2),
            pre_stop_delay: Duration::ZERO,
            max_old_generations: 2,
            max_lifetime: Duration::ZERO,
            min_lifetime: Duration::from_secs(1),
            max_memory: 0,
            max_memory_hard: 0,
            give_up: Duration::ZERO,
            has_observer: true,
            reuse_port: false,
            upgrade_probation: Duration::from_secs(5),
        };
        let now = Instant::now();
        let mut server = Self { life: Lifecycle::new(limits, 7, now), now };
        let commands = server.tell(Event::Started);
        assert!(matches!(commands[0], Command::ForkObserver), "the observer comes first");
        assert_eq!(forked(&commands), [0, 1]);
        server
    }

    fn running() -> Self {
        let mut server = Self::booting();
        server.tell(ready(0));
        let commands = server.tell(ready(1));
        assert!(
            commands.iter().any(|c| matches!(c, Command::Emit(Notice::Started { workers: 2, .. })))
        );
        server
    }

    /// Settings are always good here, unless a test says otherwise itself.
    fn tell(&mut self, event: Event) -> Vec<Command> {
        let mut commands = self.life.on(event, self.now);
        if let Some(generation) = configured(&commands) {
            let limits = self.life.limits.clone();
            commands.extend(self.life.on(Event::Configured { generation, limits }, self.now));
        }
        commands
    }

    fn tell_only(&mut self, event: Event) -> Vec<Command> {
        self.life.on(event, self.now)
    }

    /// Lets time pass with every look answered by fresh beats.
    fn pass(&mut self, time: Duration) -> Vec<Command> {
        let until = self.now + time;
        let mut all = Vec::new();
        while let Some(due) = self.life.deadline().filter(|&due| due <= until) {
            self.now = self.now.max(due);
            all.extend(self.tell(Event::Tick));
        }
        self.now = until;
        all
    }
}

fn configured(commands: &[Command]) -> Option<u64> {
    commands.iter().find_map(|c| match c {
        Command::Configure { generation } => Some(*generation),
        _ => None,
    })
}

fn seen(slot: SlotNumber, beat_age: Duration) -> Event {
    Event::Seen { slot, beat_age, private_bytes: None, is_idle_acceptor: false, is_stopped: false }
}

fn ready(slot: u32) -> Event {
    Event::Ready(SlotNumber(slot))
}

fn exited(slot: u32, status: Status) -> Event {
    Event::Exited { slot: SlotNumber(slot), status, oom: Oom::No }
}

fn term() -> Event {
    Event::Stop(Stop::Graceful, Origin::default())
}

fn forked(commands: &[Command]) -> Vec<u32> {
    commands
        .iter()
        .filter_map(|c| if let Command::Fork { slot, .. } = c { Some(slot.0) } else { None })
        .collect()
}

fn drained(commands: &[Command]) -> Vec<u32> {
    commands
        .iter()
        .filter_map(|c| match c {
            Command::Drain { slot, .. } | Command::Stop { slot, .. } => Some(slot.0),
            _ => None,
        })
        .collect()
}

fn killed(commands: &[Command]) -> Vec<u32> {
    commands
        .iter()
        .filter_map(|c| if let Command::Kill { slot, .. } = c { Some(slot.0) } else { None })
        .collect()
}

fn ending(commands: &[Command]) -> Option<Ending> {
    commands.iter().find_map(|c| if let Command::Exit(ending) = c { Some(*ending) } else { None })
}

#[test]
fn a_killed_worker_is_buried_first_and_replaced_at_once_in_its_slot() {
    let mut server = Server::running();
    let commands = server.tell(exited(1, KILLED));
    assert!(
        matches!(&commands[0], Command::Bury { slot: SlotNumber(1), report } if report.cause == Cause::Signal)
    );
    assert_eq!(forked(&commands), [1]);
}

#[test]
fn deaths_in_a_row_wait_longer_each_time() {
    let mut server = Server::running();
    let mut waits = Vec::new();
    for _ in 0..5 {
        let commands = server.tell(exited(1, KILLED));
        let Command::Bury { report, .. } = &commands[0] else { panic!("not buried first") };
        waits.push(report.next_try.expect("it is replaced").as_millis());
        server.pass(Duration::from_secs(2));
        server.tell(ready(1));
    }
    assert_eq!(waits[0], 0);
    assert!(waits[1] >= 80 && waits[1] <= 120, "{waits:?}");
    assert!(waits[4] >= 640 && waits[4] <= 960, "{waits:?}");
    server.pass(Duration::from_secs(61));
    let commands = server.tell(exited(1, KILLED));
    assert_eq!(forked(&commands), [1], "a minute of service is forgiveness");
}

#[test]
fn a_stop_drains_closes_the_listeners_and_ends_with_the_last_worker() {
    let mut server = Server::running();
    let commands = server.tell(term());
    assert_eq!(drained(&commands), [0, 1]);
    assert!(
        !server
            .tell(Event::Stopped(SlotNumber(0)))
            .iter()
            .any(|c| matches!(c, Command::CloseListeners))
    );
    assert!(
        server
            .tell(Event::Stopped(SlotNumber(1)))
            .iter()
            .any(|c| matches!(c, Command::CloseListeners))
    );
    server.tell(exited(0, Status::Exited(0)));
    let commands = server.tell(exited(1, Status::Exited(0)));
    assert!(commands.iter().any(|c| matches!(c, Command::StopObserver)));
    assert_eq!(ending(&server.tell(Event::ObserverExited(Status::Exited(0)))), Some(Ending::Asked));
}

#[test]
fn a_worker_that_will_not_drain_is_killed_at_the_deadline_and_so_is_the_observer() {
    let mut server = Server::running();
    server.tell(term());
    assert!(killed(&server.pass(Duration::from_millis(31_900))).is_empty());
    assert_eq!(killed(&server.pass(Duration::from_millis(200))), [0, 1]);
    server.tell(exited(0, KILLED));
    server.tell(exited(1, KILLED));
    let commands = server.pass(Duration::from_secs(3));
    assert!(commands.iter().any(|c| matches!(c, Command::KillObserver)));
}

#[test]
fn a_second_stop_is_quick() {
    let mut server = Server::running();
    server.tell(term());
    let commands = server.tell(term());
    assert_eq!(commands.iter().filter(|c| matches!(c, Command::Quit(_))).count(), 2);
    assert_eq!(killed(&server.pass(Duration::from_secs(2))), [0, 1]);
}

#[test]
fn nobody_is_replaced_while_the_server_drains() {
    let mut server = Server::running();
    server.tell(term());
    assert!(forked(&server.tell(exited(0, KILLED))).is_empty());
}

#[test]
fn a_reload_drains_the_old_only_when_all_the_new_are_ready() {
    let mut server = Server::running();
    assert_eq!(forked(&server.tell(Event::Reload(Origin::default()))), [2, 3]);
    assert!(drained(&server.tell(ready(2))).is_empty());
    assert_eq!(drained(&server.tell(ready(3))), [0, 1]);
    assert_eq!(server.life.generation(), 2);
}

#[test]
fn ten_reloads_at_once_are_two() {
    let mut server = Server::running();
    for _ in 0..10 {
        server.tell(Event::Reload(Origin::default()));
    }
    server.tell(ready(2));
    let commands = server.tell(ready(3));
    assert_eq!(forked(&commands), [4, 5], "one more is remembered");
    server.tell(ready(4));
    assert!(forked(&server.tell(ready(5))).is_empty(), "only one");
    assert_eq!(server.life.generation(), 3);
}

#[test]
fn the_number_of_workers_keeps_its_bounds_and_the_oldest_leaves() {
    let mut server = Server::running();
    let from = Origin::default();
    assert_eq!(forked(&server.tell(Event::Scale(Scale::More, from))), [2]);
    server.tell(ready(2));
    assert_eq!(drained(&server.tell(Event::Scale(Scale::Fewer, from))), [0]);
    server.tell(Event::Scale(Scale::Fewer, from));
    let refusals = |commands: &[Command]| {
        commands.iter().filter(|c| matches!(c, Command::Emit(Notice::ChangeRefused { .. }))).count()
    };
    assert_eq!(refusals(&server.tell(Event::Scale(Scale::Fewer, from))), 1);
    assert_eq!(refusals(&server.tell(Event::Scale(Scale::Fewer, from))), 0, "one line a second");
    assert_eq!(server.life.workers(), 1);
}

#[test]
fn a_silent_worker_is_warned_about_aborted_and_killed() {
    let mut server = Server::running();
    let seen = |age| seen(SlotNumber(0), Duration::from_secs(age));
    server.pass(Duration::from_secs(40));
    assert!(server.tell(seen(14)).is_empty());
    assert!(matches!(server.tell(seen(15))[..], [Command::Emit(Notice::WorkerSlow { .. })]));
    assert!(server.tell(seen(16)).is_empty(), "once");
    let commands = server.tell(seen(30));
    assert!(matches!(commands[1], Command::Kill { slot: SlotNumber(0), how: Blow::Abort }));
    let commands = server.pass(Duration::from_secs(2));
    assert!(
        commands
            .iter()
            .any(|c| matches!(c, Command::Kill { slot: SlotNumber(0), how: Blow::Kill }))
    );
    let commands = server.tell(exited(0, KILLED));
    assert!(
        matches!(&commands[0], Command::Bury { report, .. } if report.cause == Cause::Heartbeat)
    );
    assert_eq!(forked(&commands), [0]);
}

#[test]
fn a_supervisor_that_was_stopped_kills_nobody_for_it() {
    let mut server = Server::running();
    server.tell(exited(1, KILLED));
    server.now += Duration::from_secs(100);
    let commands = server.tell(Event::Tick);
    assert!(killed(&commands).is_empty(), "the boot deadline moves");
    let commands = server.tell(seen(SlotNumber(0), Duration::from_secs(100)));
    assert!(commands.is_empty(), "so does the beat");
}

#[test]
fn too_many_deaths_degrade_the_server_and_a_full_house_recovers_it() {
    let mut server = Server::running();
    let mut commands = Vec::new();
    for _ in 0..50 {
        commands.extend(server.tell(exited(0, KILLED)));
        commands.extend(server.tell(exited(1, KILLED)));
        commands.extend(server.pass(Duration::from_secs(1)));
        commands.extend(server.tell(ready(0)));
        commands.extend(server.tell(ready(1)));
    }
    let degraded = |c: &Command| matches!(c, Command::Emit(Notice::Degraded { .. }));
    assert_eq!(commands.iter().filter(|c| degraded(c)).count(), 1);
    server.pass(Duration::from_secs(12));
    server.tell(ready(0));
    server.tell(ready(1));
    let commands = server.pass(Duration::from_secs(10));
    assert!(commands.iter().any(|c| matches!(c, Command::Emit(Notice::Recovered { .. }))));
}

#[test]
fn a_refused_fork_because_of_a_thread_degrades_and_keeps_the_living() {
    let mut server = Server::running();
    server.tell(exited(0, KILLED));
    let commands =
        server.tell(Event::ForkFailed { slot: SlotNumber(0), why: ForkFailure::Threads });
    assert!(matches!(commands[0], Command::Release(SlotNumber(0))));
    assert!(commands.iter().any(|c| matches!(c, Command::Emit(Notice::Degraded { .. }))));
    assert!(killed(&commands).is_empty());
}

#[test]
fn a_worker_that_was_told_to_leave_by_somebody_else_is_succeeded_in_another_slot() {
    let mut server = Server::running();
    assert_eq!(forked(&server.tell(Event::Stopped(SlotNumber(0)))), [2]);
    let commands = server.tell(exited(0, Status::Exited(0)));
    assert!(matches!(&commands[0], Command::Bury { report, .. } if report.cause == Cause::Retired));
    assert!(forked(&commands).is_empty());
}

#[test]
fn a_dead_observer_costs_no_worker_and_comes_back_ever_slower() {
    let mut server = Server::running();
    for expected_ms in [100, 200, 400] {
        let commands = server.tell(Event::ObserverExited(KILLED));
        let Some(Command::Emit(Notice::ObserverDied { next_try, .. })) = commands.first() else {
            panic!("no line: {commands:?}")
        };
        assert_eq!(next_try.as_millis(), expected_ms);
        assert_eq!(commands.len(), 1);
        assert!(server.pass(*next_try).iter().any(|c| matches!(c, Command::ForkObserver)));
    }
}

#[test]
fn a_pause_reaches_all_and_a_reload_ends_it() {
    let mut server = Server::running();
    let from = Origin::default();
    let paused =
        |commands: &[Command]| commands.iter().filter(|c| matches!(c, Command::Pause(_))).count();
    assert_eq!(paused(&server.tell(Event::Pause(from))), 2);
    assert_eq!(paused(&server.tell(Event::Pause(from))), 0, "once");
    server.tell(Event::Reload(from));
    assert_eq!(paused(&server.tell(ready(2))), 0);
    server.tell(ready(3));
    assert!(server.tell(Event::Resume(from)).is_empty(), "it serves again already");
}

//! Facts about what operators ask for, reloads with settings, and recycling.

use super::*;
use crate::Exit;

const FROM: Origin = Origin { signal: "test", pid: 1, uid: 0, client: Some(Client(9)) };

fn answers(commands: &[Command]) -> Vec<&Answer> {
    commands
        .iter()
        .filter_map(|c| match c {
            Command::Reply { client: Client(9), answer } => Some(answer),
            _ => None,
        })
        .collect()
}

fn refusal(commands: &[Command]) -> Option<Exit> {
    answers(commands).into_iter().find_map(|answer| match answer {
        Answer::Refused { exit, .. } => Some(*exit),
        _ => None,
    })
}

#[test]
fn wrong_settings_are_refused_before_any_fork() {
    let mut server = Server::running();
    let commands = server.tell_only(Event::Reload(FROM));
    let generation = configured(&commands).expect("settings are read first");
    assert!(forked(&commands).is_empty());
    let text = "workers: many".to_owned();
    let commands = server.tell(Event::Misconfigured { generation, exit: Exit::Usage, text });
    assert_eq!(refusal(&commands), Some(Exit::Usage));
    assert!(forked(&commands).is_empty() && drained(&commands).is_empty());
    assert_eq!(server.life.generation(), 1);
}

#[test]
fn a_reload_to_more_workers_serves_with_all_of_them_before_the_old_leave() {
    let mut server = Server::running();
    let generation = configured(&server.tell_only(Event::Reload(FROM))).unwrap();
    let limits = Limits { workers: 3, max_workers: 6, ..server.life.limits.clone() };
    let commands = server.tell(Event::Configured { generation, limits });
    assert_eq!(forked(&commands), [2, 3, 4]);
    server.tell(ready(2));
    assert!(drained(&server.tell(ready(3))).is_empty());
    let commands = server.tell(ready(4));
    assert_eq!(drained(&commands), [0, 1]);
    server.tell(Event::Stopped(SlotNumber(0)));
    let commands = server.tell(Event::Stopped(SlotNumber(1)));
    assert!(matches!(answers(&commands)[..], [Answer::Serves { workers: 3, .. }]));
    assert_eq!(server.life.workers(), 3);
}

#[test]
fn who_waits_for_a_reload_hears_of_it_when_only_the_new_ones_accept() {
    let told = |commands: &[Command]| {
        answers(commands).iter().filter(|a| matches!(a, Answer::Serves { .. })).count()
    };
    let reloaded = || {
        let mut server = Server::running();
        server.tell(Event::Reload(FROM));
        server.tell(ready(2));
        let commands = server.tell(ready(3));
        assert_eq!((drained(&commands), told(&commands)), (vec![0, 1], 0));
        assert_eq!(told(&server.tell(Event::Stopped(SlotNumber(0)))), 0);
        server
    };
    // A dead one accepts nobody, one that does not hear is waited for a second, a stop does not wait.
    assert_eq!(told(&reloaded().tell(Event::Stopped(SlotNumber(1)))), 1);
    assert_eq!(told(&reloaded().tell(exited(1, Status::Exited(0)))), 1);
    assert_eq!(told(&reloaded().pass(Duration::from_millis(1_001))), 1);
    assert_eq!(told(&reloaded().tell(term())), 1);
}

#[test]
fn what_ttin_made_of_the_number_survives_a_reload_unless_it_is_set_anew() {
    let mut server = Server::running();
    server.tell(Event::Scale(Scale::More, FROM));
    server.tell(ready(2));
    server.tell(Event::Reload(FROM));
    for slot in 3..6 {
        server.tell(ready(slot));
    }
    assert_eq!((server.life.workers(), server.life.generation()), (3, 2));
}

#[test]
fn one_fewer_during_a_reload_to_another_number_is_one_fewer_than_that() {
    let mut server = Server::running();
    let generation = configured(&server.tell_only(Event::Reload(FROM))).unwrap();
    let limits = Limits { workers: 4, max_workers: 6, ..server.life.limits.clone() };
    server.tell(Event::Configured { generation, limits });
    let commands = server.tell(Event::Scale(Scale::Fewer, FROM));
    assert!(matches!(answers(&commands)[..], [Answer::Workers { old: 4, new: 3 }]));
    assert_eq!(server.life.workers(), 1, "of those that serve until then");
    for slot in 2..6 {
        server.tell(ready(slot));
    }
    assert_eq!((server.life.workers(), server.life.generation()), (3, 2));
}

#[test]
fn a_stop_during_a_reload_answers_the_one_who_waits() {
    let mut server = Server::running();
    server.tell(Event::Reload(FROM));
    assert_eq!(refusal(&server.tell(term())), Some(Exit::Busy));
}

#[test]
fn two_recycled_workers_go_one_after_the_other_and_never_before_their_successor() {
    let mut server = Server::running();
    server.now += Duration::from_secs(5);
    let want = |slot| Event::RecycleWanted { slot: SlotNumber(slot), why: Cause::Requests };
    let commands = server.tell(want(0));
    assert_eq!(forked(&commands), [2], "the successor takes a free slot");
    assert!(drained(&commands).is_empty());
    assert!(forked(&server.tell(want(1))).is_empty(), "one token");
    assert_eq!(drained(&server.tell(ready(2))), [0]);
    let commands = server.tell(Event::Stopped(SlotNumber(0)));
    assert_eq!(forked(&commands), [3], "the token is back");
    assert_eq!(drained(&server.tell(ready(3))), [1]);
    assert_eq!(server.life.ready_workers(), 2);
}

#[test]
fn a_successor_that_cannot_boot_keeps_the_old_one_and_is_tried_again_later() {
    let mut server = Server::running();
    server.now += Duration::from_secs(5);
    server.tell(Event::Retire(SlotNumber(1), FROM));
    let commands = server.tell(exited(2, Status::Exited(3)));
    assert!(drained(&commands).is_empty() && forked(&commands).is_empty());
    let commands = server.pass(Duration::from_secs(1));
    assert_eq!(forked(&commands), [2]);
    assert_eq!(server.life.ready_workers(), 2);
}

#[test]
fn min_lifetime_holds_a_young_worker_back_once_it_is_warned_about() {
    let mut server = Server::running();
    let commands = server.tell(Event::RecycleWanted { slot: SlotNumber(0), why: Cause::Requests });
    assert!(forked(&commands).is_empty());
    assert!(commands.iter().any(|c| matches!(c, Command::Emit(Notice::RecycleHeld { .. }))));
    assert_eq!(forked(&server.pass(Duration::from_millis(1_100))), [2]);
}

#[test]
fn a_fat_worker_is_replaced_after_two_samples_and_a_monstrous_one_drains_at_once() {
    let mut server = Server::running();
    server.life.limits.max_memory = 100;
    server.life.limits.max_memory_hard = 1_000;
    server.now += Duration::from_secs(5);
    let weighs = |slot, bytes| Event::Seen {
        slot: SlotNumber(slot),
        beat_age: Duration::ZERO,
        private_bytes: Some(bytes),
        is_idle_acceptor: false,
        is_stopped: false,
    };
    assert!(forked(&server.tell(weighs(0, 101))).is_empty(), "one sample is chance");
    assert_eq!(forked(&server.tell(weighs(0, 101))), [2]);
    let commands = server.tell(weighs(1, 1_001));
    assert_eq!(drained(&commands), [1]);
    assert_eq!(forked(&commands), [3], "its successor at once");
}

#[test]
fn retire_of_an_empty_slot_is_a_mistake_and_during_a_reload_it_is_refused() {
    let mut server = Server::running();
    assert_eq!(refusal(&server.tell(Event::Retire(SlotNumber(7), FROM))), Some(Exit::Usage));
    server.tell(Event::Reload(Origin::default()));
    assert_eq!(refusal(&server.tell(Event::Retire(SlotNumber(0), FROM))), Some(Exit::Busy));
}

#[test]
fn a_worker_that_takes_no_connection_though_some_wait_is_aborted_at_the_timeout() {
    let mut server = Server::running();
    let idle = Event::Seen {
        slot: SlotNumber(0),
        beat_age: Duration::ZERO,
        private_bytes: None,
        is_idle_acceptor: true,
        is_stopped: false,
    };
    assert!(killed(&server.tell(idle.clone())).is_empty());
    server.pass(Duration::from_secs(29));
    assert!(killed(&server.tell(idle.clone())).is_empty());
    server.pass(Duration::from_secs(2));
    assert_eq!(killed(&server.tell(idle)), [0]);
}

#[test]
fn a_server_without_any_worker_gives_up_when_it_was_told_to() {
    let mut server = Server::running();
    server.life.limits.give_up = Duration::from_secs(20);
    let mut over = Vec::new();
    for _ in 0..40 {
        for slot in [0, 1] {
            over.extend(server.tell(exited(slot, KILLED)));
        }
        over.extend(server.pass(Duration::from_secs(1)));
    }
    over.extend(server.tell(Event::ObserverExited(Status::Exited(0))));
    assert_eq!(ending(&over), Some(Ending::Boot));
}

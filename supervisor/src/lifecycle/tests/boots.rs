//! Facts about workers that do not become ready.

use super::*;

#[test]
fn a_first_generation_that_cannot_boot_ends_the_server() {
    for (code, expected) in [(3, Ending::Boot), (1, Ending::Boot), (4, Ending::Load)] {
        let mut server = Server::booting();
        server.tell(ready(0));
        let commands = server.tell(exited(1, Status::Exited(code)));
        assert_eq!(killed(&commands), [0], "the others are ended at once");
        assert!(ending(&commands).is_none(), "not before they are reaped");
        let commands = server.tell(exited(0, KILLED));
        assert!(commands.iter().any(|c| matches!(c, Command::StopObserver)));
        let commands = server.tell(Event::ObserverExited(Status::Exited(0)));
        assert_eq!(ending(&commands), Some(expected));
    }
}

#[test]
fn what_a_worker_said_before_it_failed_stands_in_its_report() {
    let mut server = Server::booting();
    let (slot, stage) = (SlotNumber(0), Stage::Load);
    server.tell(Event::BootFailed { slot, stage, text: "no database".into() });
    let commands = server.tell(exited(0, Status::Exited(4)));
    let Command::Bury { report, .. } = &commands[0] else { panic!("not buried first") };
    assert_eq!(report.text.as_deref(), Some("no database"));
    assert_eq!(report.cause, Cause::Load);
}

#[test]
fn after_the_start_a_boot_failure_never_ends_the_server() {
    let mut server = Server::running();
    server.tell(exited(0, KILLED));
    let commands = server.tell(exited(0, Status::Exited(3)));
    assert!(killed(&commands).is_empty());
    assert!(server.life.deadline().is_some());
}

#[test]
fn a_worker_that_is_never_ready_is_killed_at_the_boot_timeout() {
    let mut server = Server::running();
    server.tell(exited(0, KILLED));
    assert!(killed(&server.pass(Duration::from_secs(59))).is_empty());
    assert_eq!(killed(&server.pass(Duration::from_secs(2))), [0]);
    let commands = server.tell(ready(0));
    assert!(commands.is_empty(), "READY after it means nothing");
}

#[test]
fn a_generation_that_cannot_boot_is_given_up_and_the_old_never_hears_of_it() {
    let mut server = Server::running();
    server.tell(Event::Reload(Origin::default()));
    server.tell(ready(2));
    let commands = server.tell(exited(3, Status::Exited(4)));
    assert_eq!(killed(&commands), [2]);
    assert!(drained(&commands).is_empty());
    let failed =
        |c: &Command| matches!(c, Command::Emit(Notice::ReloadFailed { stage: "load", .. }));
    assert!(commands.iter().any(failed));
    assert_eq!((server.life.generation(), server.life.ready_workers()), (1, 2));
}

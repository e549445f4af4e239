//! Profiles of the heap, of a program that was built to take them: `cargo test --features jemalloc`.

use nix::sys::signal::{Signal, kill};

use crate::client;
use crate::profile_server::decoded;
use crate::server::{Server, Slot};
use crate::setup::Setup;

fn started(conf: &str) -> Server {
    Setup::new().args(["--workers", "2"]).env("_RJEM_MALLOC_CONF", conf).start()
}

#[test]
fn a_heap_profile_says_who_holds_the_memory_of_a_worker() {
    let server = started("prof:true,lg_prof_sample:12");
    let admin = server.admin();
    for path in ["/debug/pprof/heap", "/debug/pprof/heap?worker=1"] {
        let answer = client::get(&admin, path);
        let profile = decoded(answer.expect_status(200).bytes());
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        let text = |number: i64| &profile.string_table[usize::try_from(number).unwrap()];
        let kinds: Vec<_> = profile.sample_type.iter().map(|kind| text(kind.r#type)).collect();
        assert_eq!(kinds, ["inuse_objects", "inuse_space"]);
        let names: Vec<_> = profile.function.iter().map(|function| text(function.name)).collect();
        let held: i64 = profile.sample.iter().map(|sample| sample.value[1]).sum();
        // The buffers of the slot files' writers alone are more.
        assert!(held > 10_000, "{held} bytes in {path}");
        // A worker's own call, and so neither the supervisor's heap nor addresses without names.
        assert!(names.iter().any(|name| name.contains("saola_worker::run")), "{names:?}");
    }
    assert_eq!(
        client::get(&admin, "/debug/pprof/heap?worker=9").expect_status(404).text(),
        "no worker 9\n"
    );
    client::get(&admin, "/debug/pprof/heap?worker=x").expect_status(400);
    client::get(&admin, "/debug/pprof/heap?worker=0&worker=1").expect_status(400);
}

#[test]
fn a_worker_that_does_not_deliver_its_heap_is_waited_for_ten_seconds() {
    let server = started("prof:true");
    let admin = server.admin();
    kill(server.pids().workers[&Slot(1)], Signal::SIGSTOP).unwrap();
    let mut answers: Vec<_> = std::thread::scope(|scope| {
        let ask = || client::get(&admin, "/debug/pprof/heap?worker=1");
        let both = [scope.spawn(ask), scope.spawn(ask)];
        both.map(|asking| asking.join().unwrap())
            .map(|answer| (answer.status, answer.text().to_owned()))
            .into()
    });
    answers.sort();
    let [refused, late] = answers.try_into().unwrap();
    assert_eq!(refused, (503, "a heap profile is being written\n".to_owned()));
    assert_eq!(late, (504, "worker 1 did not deliver its heap in 10 s\n".to_owned()));
    client::get(&admin, "/debug/pprof/heap").expect_status(200);
    kill(server.pids().workers[&Slot(1)], Signal::SIGCONT).unwrap();
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_worker_of_another_program_is_not_asked_for_its_heap_while_an_upgrade_lasts() {
    let server = Setup::new()
        .args(["--workers", "2", "--upgrade-probation", "60s"])
        .env("_RJEM_MALLOC_CONF", "prof:true")
        .start();
    server.signal(Signal::SIGUSR2);
    // Those of the new program have slots of their own until they have proved themselves.
    server.until_true("both programs have workers", || server.pids().workers.len() == 4);
    let admin = server.admin();
    let (mut profiles, mut refused) = (0, 0);
    for worker in 0..4 {
        let answer = client::get(&admin, &format!("/debug/pprof/heap?worker={worker}"));
        if answer.status == 200 {
            profiles += 1;
        } else {
            let reason = answer.expect_status(404).text();
            assert!(
                reason.starts_with(&format!("worker {worker} is of another program")),
                "{reason}"
            );
            refused += 1;
        }
    }
    assert_eq!((profiles, refused), (2, 2));
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_server_that_was_not_told_to_take_heap_profiles_says_how() {
    let server = started("prof:false");
    assert_eq!(
        client::get(&server.admin(), "/debug/pprof/heap").expect_status(501).text(),
        "heap profiles are off: start the server with _RJEM_MALLOC_CONF=prof:true in its environment\n"
    );
}

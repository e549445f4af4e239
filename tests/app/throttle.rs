//! Passwords that are guessed, and passwords that come all at once.

use serde_json::json;

use crate::app::database;
use crate::app::person::{PASSWORD, Person, mail};

#[test]
fn of_a_thousand_guesses_ten_are_tried_and_others_sign_in_meanwhile() {
    database::each(|database| {
        let server = database.setup().start();
        let nobody = Person::nobody(&server);
        let (_ann, _bob) = (Person::of_conduit(&server, "ann"), Person::of_conduit(&server, "bob"));
        let sign_in = |name: &str, password: &str| {
            nobody.post_once(
                "/api/users/login",
                &json!({"user": {"email": mail(name), "password": password}}),
            )
        };
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let guess = || (0..125).map(|_| sign_in("ann", "a guess").status).collect::<Vec<_>>();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(guess)).collect();
            sign_in("bob", PASSWORD).expect_status(200);
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
        // A try that a busy machine had no time for was one of the ten.
        let tried = count(401) + count(503);
        assert_eq!((tried, count(429)), (10, 990), "{statuses:?}");
        let refused = sign_in("ann", PASSWORD);
        let errors = refused.expect_status(429).json()["errors"].clone();
        assert_eq!(errors, json!({"credentials": ["too many attempts"]}));
        let seconds: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=900).contains(&seconds), "{seconds}");
        // The e-mail stands nowhere, and the other surface has counters of its own.
        assert!(!database.query("SELECT key FROM app_auth_failures").contains("ann"));
        let other = nobody.post_form("/login", &format!("username={}&password=x", mail("ann")));
        other.expect_status(403);
        // Past the window all is forgotten.
        database.query("UPDATE app_auth_failures SET window_start = window_start - 900000001");
        sign_in("ann", PASSWORD).expect_status(200);
        // What nobody asks for again is swept away.
        let old = "SELECT count(*) FROM app_auth_failures WHERE window_start < \
                   (SELECT max(window_start) - 800000000 FROM app_auth_failures)";
        server.until_true("old failures are gone", || database.number(old) == 0);
    });
}

#[test]
fn a_right_password_clears_what_was_wrong_before() {
    database::each(|database| {
        let server = database.setup().start();
        let eve = Person::of_blog(&server, "eve");
        let sign_in = |password: &str| {
            eve.post_form("/login", &format!("username={}&password={password}", mail("eve"))).status
        };
        for _ in 0..3 {
            for _ in 0..9 {
                assert_eq!(sign_in("wrong"), 403);
            }
            assert_eq!(sign_in(PASSWORD), 200);
        }
        let refused = (0..11).map(|_| sign_in("wrong")).collect::<Vec<_>>();
        assert_eq!((refused[9], refused[10]), (403, 429), "{refused:?}");
    });
}

#[test]
fn fifty_passwords_at_once_leave_the_loop_free() {
    let database = crate::app::database::Database::sqlite();
    let server = database.setup().env("PASSWORD_CONCURRENCY", "1").args(["--workers", "1"]).start();
    let nobody = Person::nobody(&server);
    let worker = server.worker(crate::server::Slot(0));
    // The most that it ever had, in KiB. A password takes 19 MiB while it is hashed.
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let user = json!({"email": "first@example.com", "password": PASSWORD});
    nobody.post("/users", &user).expect_status(201);
    let before = peak();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let register = |number: usize| {
            let user = json!({"email": format!("u{number}@example.com"), "password": PASSWORD});
            nobody.post("/users", &user).status
        };
        let users: Vec<_> = (0..50).map(|number| scope.spawn(move || register(number))).collect();
        let mut answered = 0;
        while users.iter().any(|user| !user.is_finished()) {
            nobody.get("/health").expect_status(200);
            answered += 1;
        }
        assert!(answered > 10, "{answered}");
        users.into_iter().map(|user| user.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| *status == 201), "{statuses:?}");
    let more = peak() - before;
    assert!(more < 2 * 19_456, "{more} KiB more than for one alone: two were hashed at once");
}

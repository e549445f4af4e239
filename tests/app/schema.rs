//! The schema: made once by whoever comes first, and refused when it is not ours.

use crate::app::database::{self, Database};
use crate::setup::{Ended, Setup};

fn migrate(database: &Database, args: &[&str]) -> Ended {
    let setup = Setup::new().bare().env("DATABASE_URL", &database.url());
    setup.args(["migrate"].into_iter().chain(args.iter().copied())).run()
}

#[test]
fn eight_workers_at_once_migrate_once() {
    database::each(|database| {
        let server = database.setup().args(["--workers", "8"]).start();
        server.get("/ready").expect_status(200);
        assert_eq!(database.query("SELECT version, name FROM app_migrations"), "1|0001_initial");
        assert_eq!(database.number("SELECT count(*) FROM items_items"), 100);
        let told = || server.lines_of("migration applied").len();
        server.until_true("the one who did it has said so", || told() == 1);
        assert_eq!(server.stop(), 0);
        assert_eq!(told(), 1);
    });
}

#[test]
fn migrate_says_what_it_does_and_check_changes_nothing() {
    database::each(|database| {
        let pending = migrate(database, &["--check"]);
        assert_eq!((pending.code, pending.stdout.as_str()), (1, "pending 0001_initial"));
        let first = migrate(database, &[]);
        assert_eq!(first.code, 0, "{}", first.stderr);
        assert!(
            first.stdout.starts_with("applied 0001_initial (") && first.stdout.ends_with(" ms)")
        );
        for args in [&[][..], &["--check"]] {
            let again = migrate(database, args);
            assert_eq!((again.code, again.stdout.as_str()), (0, "schema is current (version 1)"));
        }
    });
    let nowhere = Setup::new().bare().env("DATABASE_URL", "postgres://x@127.0.0.1:1/x");
    let nowhere = nowhere.args(["migrate"]).run();
    assert_eq!(nowhere.code, 1);
    assert!(nowhere.stderr.contains("the database is away"), "{}", nowhere.stderr);
}

#[test]
fn a_schema_of_another_program_is_refused_at_boot() {
    database::each(|database| {
        for (change, back, why) in [
            (
                "UPDATE app_migrations SET checksum = 'x' || checksum",
                "UPDATE app_migrations SET checksum = substr(checksum, 2)",
                "migration 0001_initial has been applied with other text",
            ),
            (
                "INSERT INTO app_migrations VALUES (2, '0002_later', 'x', 0)",
                "DELETE FROM app_migrations WHERE version = 2",
                "the database has schema version 2, newer than 1 of this program",
            ),
        ] {
            migrate(database, &[]);
            database.query(change);
            let ended = database.setup().run();
            assert_eq!(ended.code, 4, "{}\n{}", ended.stdout, ended.stderr);
            assert!((ended.stdout + &ended.stderr).contains(why), "{why}");
            let refused = migrate(database, &[]);
            assert_eq!(refused.code, 1);
            assert!(refused.stderr.contains(why), "{}", refused.stderr);
            database.query(back);
        }
    });
}

#[test]
fn without_auto_migrate_workers_wait_for_the_command() {
    database::each(|database| {
        let server = database.setup().env("DATABASE_AUTO_MIGRATE", "off").start();
        let unready = server.get("/ready");
        assert_eq!(unready.expect_status(503).json()["status"], "not ready");
        let refused = server.get("/api/items/7");
        assert_eq!(refused.expect_status(503).header("retry-after"), "2");
        server.get("/health").expect_status(200);
        assert_eq!(migrate(database, &[]).code, 0);
        server.until_true("both workers are ready", || {
            (0..8).all(|_| server.get("/ready").status == 200)
        });
        server.get("/api/items/7").expect_status(200);
    });
}

#[test]
fn a_database_that_does_not_want_us_ends_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().display());
    let ended = Setup::new().env("DATABASE_URL", &url).run();
    assert_eq!(ended.code, 4, "{}", ended.stdout);
    assert!((ended.stdout + &ended.stderr).contains("cannot open"), "a folder is no database");
    let Some(cluster) = crate::app::postgres::shared() else { return };
    let database = Database::on(cluster);
    let ended = Setup::new().env("DATABASE_URL", &format!("{}_none", database.url())).run();
    assert_eq!(ended.code, 4, "{}", ended.stdout);
    assert!((ended.stdout + &ended.stderr).contains("does not exist"));
    let crowd = database.setup().env("DATABASE_POOL_SIZE", "100").run();
    let text = crowd.stdout + &crowd.stderr;
    assert_eq!(crowd.code, 4, "{text}");
    assert!(text.contains("database pool: 2 workers x 100 connections x 2 generations = 400 exceed the 397 usable connections; set DATABASE_POOL_SIZE to 99 or less, or raise max_connections"), "{text}");
}

#[test]
fn wrong_settings_are_told_all_at_once_before_any_fork() {
    let wrong = || {
        let setup =
            Setup::new().env("APP_ENV", "production").env("DATABASE_URL", "mysql://u:canary@h/d");
        setup.env("SECRET_KEY", "canary").env("SAOLA_WORKERS_X", "").args(["--workers", "many"])
    };
    for command in [None, Some("check")] {
        let setup = match command {
            Some(command) => {
                let setup = Setup::new().bare().env("APP_ENV", "production");
                setup
                    .env("DATABASE_URL", "mysql://u:canary@h/d")
                    .env("SECRET_KEY", "canary")
                    .args([command, "--workers", "many"])
            }
            None => wrong(),
        };
        let ended = setup.run();
        assert_eq!(ended.code, 64, "{}", ended.stderr);
        for part in ["workers:", "DATABASE_URL:", "SECRET_KEY:"] {
            assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
        }
        assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
    }
}

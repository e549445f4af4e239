//! The command line, the settings and what they refuse.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::server::Server;
use crate::setup::{Ended, Setup};

fn run<'a>(args: impl IntoIterator<Item = &'a str>) -> Ended {
    Setup::new().bare().args(args).run()
}

/// With the arguments of a server that could start, but for what is under test.
fn start<'a>(args: impl IntoIterator<Item = &'a str>) -> Ended {
    Setup::new().args(args).run()
}

#[test]
fn help_names_every_setting_command_and_exit_code() {
    let help = run(["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    for word in [
        "--bind",
        "--admin-bind",
        "--workers",
        "--run-dir",
        "SAOLA_BIND",
        "check",
        "serve",
        "load",
        "64",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        assert!(help.stdout.contains(word), "{word} is missing in:\n{}", help.stdout);
    }
}

#[test]
fn version_is_one_line() {
    let version = run(["--version"]);
    assert_eq!(
        (version.code, version.stdout.as_str()),
        (0, concat!("saola ", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn check_says_that_the_defaults_are_valid_and_starts_nothing() {
    let check = run(["check"]);
    assert_eq!(
        (check.code, check.stdout.as_str()),
        (0, "the settings are valid"),
        "{}",
        check.stderr
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let setup =
        Setup::new().bare().args(["--workers", "none", "--timeout", "soon", "--bind", "nowhere"]);
    let ended = setup.env("SAOLA_BACKLOG", "-1").env("OTEL_TRACES_SAMPLER", "sometimes").run();
    assert_eq!(ended.code, 64);
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 5, "{}", ended.stderr);
    for word in [
        "workers: \"none\"",
        "timeout: \"soon\"",
        "bind: \"nowhere\"",
        "backlog: \"-1\"",
        "OTEL_TRACES_SAMPLER: \"sometimes\"",
    ] {
        assert!(ended.stderr.contains(word), "{word} is missing in:\n{}", ended.stderr);
    }
    assert!(lines.iter().all(|line| line.starts_with("error: ")), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("SAOLA_BACKLOG") && ended.stderr.contains("command line"),
        "each says where it is from"
    );
}

#[test]
fn check_and_serve_tell_the_same_mistakes() {
    let (check, serve) = (run(["check", "--workers", "0"]), run(["--workers", "0"]));
    assert_eq!((check.code, serve.code), (64, 64));
    assert_eq!(check.stderr, serve.stderr);
}

#[test]
fn what_has_one_queue_cannot_have_one_for_each_worker() {
    for bind in ["unix:/tmp/x.sock", "unix:@x", "fd://3", "systemd"] {
        let ended = run(["check", "--reuse-port", "on", "--bind", ":8000", "--bind", bind]);
        assert_eq!(ended.code, 64);
        let mistake = format!("reuse_port: \"on\" means TCP addresses only, and bind has {bind}");
        assert!(ended.stderr.contains(&mistake), "{}", ended.stderr);
    }
}

#[test]
fn an_unknown_flag_is_a_mistake_of_usage() {
    let ended = run(["--wrokers", "3"]);
    assert_eq!(ended.code, 64);
    assert!(ended.stderr.contains("--workers"), "the nearest name is told: {}", ended.stderr);
}

#[test]
fn an_unknown_key_of_the_file_is_told_with_the_nearest_name() {
    let setup = Setup::new().bare();
    let file = setup.folder().join("saola.toml");
    std::fs::write(&file, "wrokers = 3\nbind = [\"127.0.0.1:0\"]\n").unwrap();
    let ended = setup.args(["check", "--config", file.to_str().unwrap()]).run();
    assert_eq!(ended.code, 64);
    assert!(
        ended.stderr.contains("wrokers") && ended.stderr.contains("did you mean workers?"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("saola.toml"), "{}", ended.stderr);
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_told() {
    let setup = Setup::new().bare();
    let file = setup.folder().join("saola.toml");
    let missing = setup.args(["check", "--config", file.to_str().unwrap()]).run();
    assert!(missing.code == 64 && missing.stderr.contains("saola.toml"), "{}", missing.stderr);
    let setup = Setup::new().bare();
    let file = setup.folder().join("saola.toml");
    std::fs::write(&file, "workers = = 3\n").unwrap();
    let broken = setup.args(["check", "--config", file.to_str().unwrap()]).run();
    assert!(broken.code == 64 && broken.stderr.contains("TOML"), "{}", broken.stderr);
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let workers = |flag: Option<&str>, variable: Option<&str>| {
        let mut setup = Setup::new().bare();
        let file = setup.folder().join("saola.toml");
        std::fs::write(&file, "workers = 5\n").unwrap();
        setup = setup.args(["check", "--print"]).env("SAOLA_CONFIG", file.to_str().unwrap());
        setup = flag.into_iter().fold(setup, |setup, flag| setup.args(["--workers", flag]));
        let ended = variable
            .into_iter()
            .fold(setup, |setup, value| setup.env("SAOLA_WORKERS", value))
            .run();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.stdout.lines().find(|line| line.starts_with("workers = ")).unwrap().to_owned()
    };
    assert!(workers(None, None).starts_with("workers = \"5\""));
    assert!(workers(None, Some("4")).starts_with("workers = \"4\""));
    assert!(workers(Some("3"), Some("4")).starts_with("workers = \"3\""));
}

#[test]
fn a_server_can_be_set_by_its_environment_alone() {
    let setup = Setup::new().bare();
    let run_dir = setup.folder().join("run");
    let setup = setup
        .env("SAOLA_BIND", "127.0.0.1:0")
        .env("SAOLA_ADMIN_BIND", "127.0.0.1:0")
        .env("SAOLA_WORKERS", "3");
    let server = setup.env("SAOLA_RUN_DIR", run_dir.to_str().unwrap()).start();
    server.get("/").expect_status(200);
    assert_eq!(server.until_whole(3).workers.len(), 3);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_port_in_use_is_told_with_its_owner_and_what_to_do() {
    let other = Server::start([]);
    let ended = start(["--bind", &other.address()]);
    assert_eq!(ended.code, 5, "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.contains(&other.address()) && last.contains("--bind"), "{last}");
    // Supervisor and workers hold it alike; whoever is found first is named.
    assert!(last.contains("pid "), "{last}");
}

#[test]
fn a_given_admin_port_in_use_is_refused_too() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let ended = start(["--admin-bind", &other.local_addr().unwrap().to_string()]);
    assert_eq!(ended.code, 5, "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("pid {}", std::process::id())), "{}", ended.stderr);
}

#[test]
fn a_run_directory_that_others_may_enter_is_refused() {
    let setup = Setup::new();
    let folder = setup.folder().join("open");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
    let ended = setup.args(["--run-dir", folder.to_str().unwrap()]).run();
    assert_eq!(ended.code, 6, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("open") && ended.stderr.contains("--run-dir"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_run_directory_that_cannot_be_made_is_refused() {
    // Nobody can make a folder below a file, root neither.
    let setup = Setup::new();
    let file = setup.folder().join("file");
    std::fs::write(&file, "").unwrap();
    let ended = setup.args(["--run-dir", file.join("run").to_str().unwrap()]).run();
    assert_eq!(ended.code, 6, "{}", ended.stderr);
    assert!(ended.stderr.contains("--run-dir"), "{}", ended.stderr);
}

#[test]
fn a_second_server_in_one_run_directory_is_refused_with_the_pid_of_the_first() {
    let first = Server::start([]);
    let ended = Setup::new().in_folder_of(&first).run();
    assert_eq!(ended.code, 6, "{}", ended.stderr);
    assert!(ended.stderr.contains(&first.supervisor().to_string()), "{}", ended.stderr);
    first.get("/").expect_status(200);
    assert_eq!(first.stop(), 0);
}

#[test]
fn a_socket_path_that_is_a_file_is_refused_and_left_alone() {
    let setup = Setup::new();
    let file = setup.folder().join("precious");
    std::fs::write(&file, "data").unwrap();
    let ended = setup.args(["--bind", &format!("unix:{}", file.display())]).run();
    assert_eq!(ended.code, 64, "{}", ended.stderr);
}

#[test]
fn an_application_that_cannot_be_loaded_is_exit_4() {
    let ended = Setup::of_example("misfit").args(["--workers", "3"]).env("MISFIT", "error").run();
    assert_eq!(ended.code, 4, "{}\n{}", ended.stdout, ended.stderr);
    let said = format!("{}\n{}", ended.stdout, ended.stderr);
    assert!(said.contains("the misfit does not want to"), "{said}");
}

#[test]
fn an_application_that_panics_while_it_is_made_is_exit_3() {
    let ended = Setup::of_example("misfit").args(["--workers", "3"]).env("MISFIT", "panic").run();
    assert_eq!(ended.code, 3, "{}\n{}", ended.stdout, ended.stderr);
    let said = format!("{}\n{}", ended.stdout, ended.stderr);
    assert!(said.contains("the misfit panics"), "{said}");
}

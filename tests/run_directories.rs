//! Run directories that cannot be used: each is refused with what to do, before anything listens.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::server::{Server, is_empty};
use crate::setup::Setup;

#[test]
fn a_run_directory_that_will_not_do_is_refused_in_one_line() {
    let setup = Setup::new();
    let folder = setup.folder().to_owned();
    let mode = |name: &str, mode| {
        let path = folder.join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("group-writable", 0o770);
    mode("of-everybody", 0o777);
    std::fs::write(folder.join("a-file"), "").unwrap();
    std::os::unix::fs::symlink("/dev/shm", folder.join("a-link")).unwrap();
    let mut cases = vec![
        ("group-writable".to_owned(), "is not safe"),
        ("of-everybody".to_owned(), "is not safe"),
        ("a-file".to_owned(), "is not safe"),
        ("a-link".to_owned(), "is not safe"),
        ("a-file/below".to_owned(), "cannot make run directory"),
        ("x".repeat(108), "is too long for a socket"),
    ];
    if nix::unistd::geteuid().is_root() {
        mode("of-another", 0o700);
        nix::unistd::chown(&folder.join("of-another"), Some(65534.into()), None).unwrap();
        cases.push(("of-another".to_owned(), "is not safe"));
    }
    for (name, why) in &cases {
        let path = folder.join(name);
        let ended = Setup::new().args(["--run-dir", path.to_str().unwrap()]).run();
        assert_eq!(ended.code, 6, "{name}: {}", ended.stderr);
        let errors: Vec<_> = ended.stderr.lines().filter(|line| line.contains("error")).collect();
        assert!(errors.len() == 1 && errors[0].contains(why), "{name}: {}", ended.stderr);
        assert!(errors[0].contains("--run-dir"), "it says what to do: {}", ended.stderr);
        assert!(!ended.stdout.contains("listening"), "{name}");
    }
    let limited = ["sh", "-c", "ulimit -f 1024; exec \"$0\" \"$@\""];
    let ended = Setup::new().started_by(&limited).run();
    assert_eq!(ended.code, 6, "{}", ended.stderr);
    assert!(ended.stderr.contains("RLIMIT_FSIZE") && ended.stderr.contains("ulimit -f"));
}

#[test]
fn a_run_directory_without_space_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        Command::new("mount").args(args).arg(folder.path()).stderr(Stdio::null()).status()
    };
    if !mount(&["-t", "tmpfs", "-o", "size=1m", "none"]).is_ok_and(|status| status.success()) {
        println!("SKIPPED: nothing can be mounted here");
        return;
    }
    let run_dir = folder.path().join("run");
    let full = Setup::new().args(["--run-dir", run_dir.to_str().unwrap()]).run();
    let remounted = mount(&["-o", "remount,ro"]);
    let sealed =
        Setup::new().args(["--run-dir", folder.path().join("other").to_str().unwrap()]).run();
    let unmounted = Command::new("umount").arg(folder.path()).status();
    assert_eq!(full.code, 6, "{}", full.stderr);
    assert!(full.stderr.contains("MiB are needed"), "{}", full.stderr);
    assert!(remounted.unwrap().success() && unmounted.unwrap().success());
    assert_eq!(sealed.code, 6, "{}", sealed.stderr);
}

#[test]
fn a_user_who_has_used_up_a_quota_is_told_so() {
    let quota = Setup::example("quota");
    let ended = Setup::new().started_by(&[quota.to_str().unwrap()]).run();
    assert_eq!(ended.code, 6, "{}", ended.stderr);
    let errors: Vec<_> = ended.stderr.lines().filter(|line| line.contains("error")).collect();
    assert!(errors.len() == 1 && errors[0].contains("Disk quota exceeded"), "{}", ended.stderr);
    assert!(!ended.stdout.contains("listening"));
}

#[test]
fn a_container_that_starts_again_with_the_same_pids_and_directory_has_books_of_its_own() {
    let contained = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let probe = Command::new(contained[0]).args(&contained[1..]).arg("true").status();
    if !probe.is_ok_and(|status| status.success()) {
        println!("SKIPPED: no pid namespaces here");
        return;
    }
    let pid_of = |server: &Server| {
        server.until_line("it is told", |line| line.is("started")).get("pid").to_owned()
    };
    let first = Setup::new().started_by(&contained).start();
    let lost: Vec<_> = (0..5).map(|_| first.get("/").request_id().to_owned()).collect();
    // The container is taken away: nobody cleans up.
    first.signal(Signal::SIGKILL);
    first.wait_for_exit();
    first.until_true("its processes are gone", || is_empty(first.supervisor()));

    let second = Setup::new().started_by(&contained).in_folder_of(&first).start();
    assert_eq!(pid_of(&second), pid_of(&first), "the pids are those of before");
    let ids: Vec<_> = (0..3).map(|_| second.get("/").request_id().to_owned()).collect();
    second.until("the new requests are counted, and no others", |metrics| {
        metrics.sum("http_server_request_duration_seconds_count") == 3
    });
    let told = |id: &String| {
        let servers = [&first, &second];
        let lines = servers.map(|server| server.lines_of("request"));
        lines.iter().flatten().filter(|line| line.get("request_id") == id.as_str()).count()
    };
    second.until_true("each has its line", || ids.iter().chain(&lost).all(|id| told(id) > 0));
    let stop = Setup::new().in_folder_of(&second).args(["stop", "--wait"]).run();
    assert_eq!(stop.code, 0, "{}", stop.stderr);
}

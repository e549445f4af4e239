//! Who starts the server, and what it leaves for them: a service manager's sockets, a pidfile, a folder.
//! systemd itself does not run here: its protocol is tested with a socket and descriptors of the test's own.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};

use crate::client;
use crate::collector::{Collector, Mode};
use crate::load::{Connections, Load};
use crate::server::Server;
use crate::setup::{Setup, pid_of};
use crate::wait;

#[test]
fn the_service_manager_hears_ready_after_all_workers_and_each_reload_and_the_stop() {
    let setup = Setup::new();
    let path = setup.folder().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let server = setup
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        .env("WATCHDOG_USEC", "200000")
        .args(["--workers", "3"])
        .start();
    let mut heard: Vec<String> = Vec::new();
    let mut until = |what: &str| {
        wait::until(what, || {
            let mut buffer = [0; 512];
            while let Ok(length) = manager.recv(&mut buffer) {
                heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
            heard.iter().any(|text| text.starts_with(what))
        });
        std::mem::take(&mut heard)
    };
    let before = until("READY=1");
    assert!(!before.iter().any(|text| text.starts_with("STATUS=3/3")), "{before:?}");
    until("STATUS=3/3 workers, generation 1");
    until("WATCHDOG=1");
    server.signal(Signal::SIGHUP);
    let reload = until("RELOADING=1\nMONOTONIC_USEC=");
    assert!(!reload.is_empty());
    until("STATUS=3/3 workers, generation 2");
    kill(server.supervisor(), Signal::SIGSTOP).unwrap();
    // A supervisor that is stopped feeds no watchdog.
    while manager.recv(&mut [0; 512]).is_ok() {}
    wait::pause(std::time::Duration::from_millis(500));
    assert!(manager.recv(&mut [0; 512]).is_err(), "a stopped supervisor still pings");
    kill(server.supervisor(), Signal::SIGCONT).unwrap();
    server.signal(Signal::SIGTERM);
    until("STOPPING=1");
    assert_eq!(server.wait_for_end(), 0);
}

#[test]
fn a_pidfile_is_held_for_life_and_a_second_server_is_refused_with_its_pid() {
    let setup = Setup::new();
    let pidfile = setup.folder().join("saola.pid");
    let pidfile = pidfile.to_str().unwrap();
    std::fs::write(pidfile, "1\n").unwrap();
    let server = setup.args(["--pidfile", pidfile]).start();
    let pid = server.supervisor().as_raw().to_string();
    assert_eq!(std::fs::read_to_string(pidfile).unwrap().trim(), pid);
    let second = Setup::new().args(["--pidfile", pidfile]).run();
    assert_eq!(second.code, 6, "{}", second.stderr);
    assert!(second.stderr.contains(&format!("held by pid {pid}")), "{}", second.stderr);
    assert_eq!(server.stop(), 0);
    assert!(!std::path::Path::new(pidfile).exists());
}

#[test]
fn inherited_sockets_are_served_and_others_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    // The shell is the service manager: it puts the socket at 3 and says whose it is.
    let start = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_saola")]);
        shell
            .args(["--admin-bind", "off", "--workers", "1", "--run-dir"])
            .arg(folder.path().join("run"));
        shell
            .current_dir(folder.path())
            .env_clear()
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap())));
        shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let adopted = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" --bind systemd \"$@\"";
    let named = "exec 3</dev/null 4<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=other:web; exec \"$0\" --bind systemd:web \"$@\"";
    for script in [adopted, named, "exec 3<&0 0</dev/null; exec \"$0\" --bind fd://3 \"$@\""] {
        let mut child = start(script);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("msg=started")), "it starts");
        // Ended before anything is judged: it is in no group that a failing test would take along.
        let answer = client::try_get(&address, "/");
        kill(pid_of(&child), Signal::SIGTERM).unwrap();
        lines.for_each(drop);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        answer.unwrap().expect_status(200);
    }
    let foreign = "exec 3<&0 0</dev/null; export LISTEN_PID=1 LISTEN_FDS=1; exec \"$0\" --bind systemd \"$@\"";
    let nameless = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$0\" --bind systemd:other \"$@\"";
    for script in
        [foreign, nameless, "exec 3</dev/null 0</dev/null; exec \"$0\" --bind fd://3 \"$@\""]
    {
        let output = start(script).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn grandchildren_whose_parents_have_died_are_reaped_by_a_server_that_is_pid_1() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let namespace = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", command]);
        unshare.env_clear().env("PATH", "/usr/bin:/bin").current_dir(folder.path());
        unshare.stdin(Stdio::null()).output()
    };
    if !namespace("true").is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: no pid namespaces here");
        return;
    }
    // The server is pid 1: the shell becomes it. The orphans are children of a process that ends at once.
    let script = format!(
        "(while [ ! -e {0}/run/control.sock ]; do sleep 0.05; done; \
          i=0; while [ $i -lt 1000 ]; do (exit 3 & exit 0); i=$((i+1)); done; sleep 0.5; \
          grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l > {0}/zombies; kill -TERM 1) & \
         exec {1} --bind 127.0.0.1:0 --admin-bind off --workers 1 --run-dir {0}/run",
        folder.path().display(),
        env!("CARGO_BIN_EXE_saola"),
    );
    let output = namespace(&script).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(folder.path().join("zombies")).unwrap().trim(), "0");
}

#[test]
fn a_unix_socket_has_the_mode_that_was_asked_for_and_chdir_holds_for_it() {
    use std::os::unix::fs::PermissionsExt;

    let setup = Setup::new();
    let folder = setup.folder().to_owned();
    let args = [
        "--bind",
        "unix:relative.sock",
        "--socket-mode",
        "0600",
        "--chdir",
        folder.to_str().unwrap(),
    ];
    let server: Server = setup.args(args).start();
    let path = folder.join("relative.sock");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    client::get(&format!("unix:{}", path.display()), "/").expect_status(200);
    assert_eq!(server.stop(), 0);
    assert!(!path.exists());
}

#[test]
fn a_hook_program_hears_of_workers_that_come_and_go() {
    use std::os::unix::fs::PermissionsExt;

    let setup = Setup::new();
    let (hook, heard) = (setup.folder().join("hook"), setup.folder().join("heard"));
    let script = format!(
        "#!/bin/sh\necho \"$1 $SAOLA_WORKER $SAOLA_CAUSE $SAOLA_STATUS\" >> {}\n",
        heard.display()
    );
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = setup.args(["--workers", "2", "--hook", hook.to_str().unwrap()]).start();
    let has = |line: &str| {
        std::fs::read_to_string(&heard)
            .unwrap_or_default()
            .lines()
            .any(|heard| heard.trim() == line)
    };
    server.until_true("it hears of the start", || has("when_ready") && has("worker_ready 1"));
    server.kill(crate::server::Slot(1));
    server.until_true("it hears of the death", || has("child_exit 1 signal signal 9"));
    assert!(!server.lines().iter().any(|line| line.is("hook failed")));
    assert_eq!(server.stop(), 0);
}

#[test]
fn workers_and_observer_are_another_user_for_good_and_the_supervisor_stays() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: only root can change the user");
        return;
    }
    let setup = Setup::new();
    let folder = setup.folder().to_owned();
    // The folder of the test is its own; others may only pass.
    let pass = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(&folder, pass).unwrap();
    let socket = folder.join("here.sock");
    let bind = format!("unix:{}", socket.display());
    // What the workers write is theirs.
    let data = folder.join("data");
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(65534), Some(65534)).unwrap();
    let database = format!("sqlite:{}", data.join("saola.db").display());
    let server = setup
        .env("DATABASE_URL", &database)
        .args(["--user", "nobody", "--bind", &bind, "--bind", "127.0.0.1:0"])
        .args(["--socket-user", "nobody", "--socket-group", "0"])
        .start();
    let status =
        |pid: nix::unistd::Pid| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let pids = server.until_whole(2);
    for pid in pids.workers.values().chain(&pids.observer) {
        let status = status(*pid);
        assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
        assert!(status.contains("Gid:\t65534\t65534\t65534\t65534"), "{status}");
        assert!(status.contains("Groups:\t65534 \n"), "{status}");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    }
    assert!(status(server.supervisor()).contains("Uid:\t0\t0"));
    let owner = std::fs::metadata(&socket).unwrap();
    let ids =
        (std::os::unix::fs::MetadataExt::uid(&owner), std::os::unix::fs::MetadataExt::gid(&owner));
    assert_eq!(ids, (65534, 0));
    // Both readers find their files: the observer, and a worker's own answer.
    assert_eq!(server.metrics().sum("saola_worker_up"), 2);
    let tcp = server.addresses().into_iter().find(|address| address.starts_with("127")).unwrap();
    client::get(&tcp, "/metrics").expect_status(200);
    // The signal at the death of the parent was set again after the change.
    server.signal(Signal::SIGHUP);
    server.until("a reload is fine", |metrics| metrics.sum("saola_generation") == 2);
    kill(server.supervisor(), Signal::SIGKILL).unwrap();
    server.until_true("nobody is left", || crate::server::is_empty(server.supervisor()));
    // What it left belongs to them, and is taken back.
    let next = Setup::new().in_folder_of(&server).env("DATABASE_URL", &database);
    let next = next.args(["--user", "nobody"]).start();
    next.get("/").expect_status(200);
    assert_eq!(next.stop(), 0);
}

#[test]
fn users_that_are_unknown_or_not_allowed_are_refused() {
    let unknown =
        Setup::new().args(["--user", "nobody-of-that-name", "--group", "none-such"]).run();
    assert_eq!(unknown.code, 64, "{}", unknown.stderr);
    assert_eq!(unknown.stderr.matches("of this system").count(), 2, "{}", unknown.stderr);
    let invisible = Setup::new().bare().args(["check", "--user", "nobody"]).run();
    assert_eq!(invisible.code, 64, "{}", invisible.stderr);
    assert!(invisible.stderr.contains("needs a run_dir"), "{}", invisible.stderr);
    if nix::unistd::geteuid().is_root() {
        println!("SKIPPED: root may be anybody");
        return;
    }
    let forbidden = Setup::new().args(["--user", "root"]).run();
    assert_eq!(forbidden.code, 77, "{}", forbidden.stderr);
}

#[test]
fn a_worker_that_the_kernel_takes_for_its_memory_is_told_as_such() {
    let group = std::path::PathBuf::from(format!(
        "/sys/fs/cgroup/memory/saola-test-{}",
        std::process::id()
    ));
    if std::fs::create_dir(&group).is_err() {
        println!("SKIPPED: no memory cgroup can be made here");
        return;
    }
    let limit = std::fs::write(group.join("memory.limit_in_bytes"), "100M");
    let server = Setup::of_example("misfit").within(&group).args(["--workers", "1"]).start();
    let answer = client::try_get(&server.address(), "/grow/1000");
    let died = server.until_line("it is told", |line| line.is("worker died"));
    let stopped = server.stop();
    wait::until("the group is empty", || std::fs::remove_dir(&group).is_ok());
    limit.unwrap();
    assert!(answer.is_err());
    assert_eq!((died.get("cause"), died.get("signal")), ("oom", "SIGKILL"), "{}", died.text);
    assert_eq!(stopped, 0);
}

#[test]
fn hooks_of_the_application_hear_of_workers_that_come_and_go() {
    let setup = Setup::of_example("hooks");
    let journal = setup.folder().join("journal");
    let server = setup
        .env("JOURNAL", journal.to_str().unwrap())
        .args(["--workers", "2", "--max-workers", "3"])
        .start();
    let lines = || -> Vec<String> {
        let text = std::fs::read_to_string(&journal).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    let has = |line: &str| lines().iter().any(|told| told == line);
    server.until_true("it hears of the start", || has("ready"));
    assert!(has("worker 0 is born after 0 ends") && has("worker 1 is born after 0 ends"));
    server.kill(crate::server::Slot(1));
    server.until_true("it hears of the death", || has("worker 1 ended: signal, signal 9"));
    server.until_true("what it keeps is kept", || has("worker 1 is born after 1 ends"));
    server.signal(Signal::SIGTTIN);
    server.until_true("it hears of the number", || has("workers 2 -> 3"));
    server.until_whole(3);
    assert_eq!(server.stop(), 0);
    assert_eq!(lines().last().map(String::as_str), Some("the end"));
    assert_eq!(lines().iter().filter(|line| line.contains("ended: stop, ")).count(), 3);
}

#[test]
fn hooks_that_panic_or_are_slow_are_told_and_change_nothing() {
    let server =
        Setup::of_example("misfit").env("MISFIT", "hooks").args(["--workers", "2"]).start();
    server.get("/").expect_status(200);
    server.signal(Signal::SIGHUP);
    server.until("it reloads", |metrics| metrics.sum("saola_generation") == 2);
    let failed = |event: &str, why: &str| {
        let lines = server.lines_of("hook failed").into_iter();
        lines.filter(|line| line.get("event") == event && line.get("error").contains(why)).count()
    };
    server.until_true("all are told", || failed("worker_ready", "panicked") == 4);
    assert_eq!(failed("on_reload", "ms of the supervisor's time"), 1);
    assert_eq!(server.stop(), 0);
    // In the worker it is a boot failure.
    let broken = Setup::of_example("misfit").env("MISFIT", "post_fork").run();
    assert_eq!(broken.code, 3, "{}", broken.stderr);
    assert!(format!("{}{}", broken.stdout, broken.stderr).contains("hook post_fork has panicked"));
}

/// Becomes the program in a mount namespace of its own: nothing on disk can be written, `/tmp` neither, and it is nobody
/// without rights. Its folder is bound to where nobody can reach it.
const BARREN: &str = "set -e; mount --bind \"$(dirname \"$0\")\" /mnt; \
    mount -t tmpfs -o ro none /tmp; mount -o remount,bind,ro /; \
    exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --bounding-set=-all \
    \"/mnt/$(basename \"$0\")\" \"$@\"";

#[test]
fn everything_works_for_nobody_on_a_disk_that_cannot_be_written() {
    let barren = ["unshare", "--mount", "--propagation", "private", "sh", "-c", BARREN];
    if !Command::new(barren[0]).args(&barren[1..]).arg("/bin/true").status().unwrap().success() {
        println!("SKIPPED: no mount namespaces here");
        return;
    }
    let setup = Setup::of_example("observed").started_by(&barren);
    nix::unistd::chown(setup.folder(), Some(65534.into()), Some(65534.into())).unwrap();
    let collector = Collector::start(Mode::Answer);
    let server = setup
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start();
    let answer = server.get("/order");
    let id = answer.expect_status(200).request_id();
    collector.span_of(id);
    server.until_line("it has its line", |line| line.get("request_id") == id);
    let load = Load::start(&server.address(), 1, Connections::Kept, "/heavy?ms=20");
    let profile = client::get(&server.admin(), "/debug/pprof/profile?seconds=1&format=collapsed");
    assert!(profile.expect_status(200).text().contains("burn_heavily"));
    load.stop().expect_no_loss();
    server.kill(crate::server::Slot(0));
    server.until("the worker is replaced", |metrics| {
        metrics.sum("saola_worker_restarts_total") == 1 && metrics.sum("saola_worker_up") == 2
    });
    server.signal(Signal::SIGHUP);
    server.until("a reload is fine", |metrics| metrics.sum("saola_generation") == 2);
    assert_eq!(server.stop(), 0);
}

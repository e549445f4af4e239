//! The processes of a server, their titles, and the crates that the supervisor may know.

use std::process::Command;

use crate::server::{Server, Slot};

#[test]
fn the_titles_tell_the_roles_apart() {
    let server = Server::start(["--workers", "3"]);
    let pids = server.until_whole(3);
    assert_eq!(pids.workers.keys().copied().collect::<Vec<_>>(), [Slot(0), Slot(1), Slot(2)]);
    let title = std::fs::read_to_string(format!("/proc/{}/cmdline", server.supervisor())).unwrap();
    assert!(title.starts_with("saola: supervisor"), "{title:?}");
}

#[test]
fn the_supervisor_has_one_thread() {
    let server = Server::start([]);
    server.get("/").expect_status(200);
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.supervisor())).unwrap().count();
    assert_eq!(threads, 1);
}

#[test]
fn the_supervisor_knows_neither_tokio_nor_hyper() {
    for banned in ["tokio", "hyper", "tonic", "axum"] {
        let mut tree = Command::new(env!("CARGO"));
        tree.args([
            "tree",
            "--offline",
            "--locked",
            "-p",
            "saola-supervisor",
            "-e",
            "normal",
            "--prefix",
            "none",
        ]);
        let output = tree.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("saola-observability"), "the tree is there: {text}");
        assert!(
            !text.lines().any(|line| line.starts_with(&format!("{banned} "))),
            "{banned} is in:\n{text}"
        );
    }
}

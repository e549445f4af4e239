//! Slow and silent clients, three hundred of each kind: all are sent away, and the others are served meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::setup::Setup;
use crate::wait::DEADLINE;
use crate::wire::Wire;

const CROWD: u32 = 300;
const SHORT: [&str; 10] = [
    "--workers",
    "1",
    "--header-timeout",
    "1s",
    "--body-timeout",
    "1s",
    "--write-timeout",
    "1s",
    "--worker-connections",
    "900",
];
const HEAD: &str = "GET / HTTP/1.1\r\nHo";
const BODY: &str = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";

/// Opens the crowd, has each say `first` and then `drip` until it is closed, and serves an honest client beside it.
fn crowd(first: &str, drip: &str, kind: &str, answer: &str) {
    let server = Setup::of_example("misfit").args(SHORT).args(["--access-log", "off"]).start();
    let address = server.address();
    let mut slow: Vec<_> = (0..CROWD)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(first.as_bytes()).unwrap();
            stream
        })
        .collect();
    let answered = AtomicU32::new(0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let mut honest = Wire::connect(&address).unwrap();
                assert_eq!(honest.get("/", "honest").unwrap().status, 200);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
        server.until(&format!("{CROWD} of kind {kind}"), |metrics| {
            for stream in &mut slow {
                // Written into a connection that may be closed by now.
                let _gone = stream.write_all(drip.as_bytes());
            }
            metrics.value("http_server_request_timeouts_total", &[("kind", kind)])
                >= u64::from(CROWD)
        });
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(answered.into_inner() > 0);
    for mut stream in slow {
        let mut said = Vec::new();
        // A reset is an end, too: the client was still sending.
        let _reset = stream.read_to_end(&mut said);
        assert!(said.starts_with(answer.as_bytes()), "{:?}", String::from_utf8_lossy(&said));
    }
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.stop(), 0);
}

#[test]
fn three_hundred_slow_heads_are_sent_away() {
    crowd(HEAD, "x", "header", "HTTP/1.1 408 ");
}

#[test]
fn three_hundred_silent_clients_are_sent_away() {
    crowd("", "", "header", "");
}

#[test]
fn three_hundred_halves_of_a_preface_are_sent_away() {
    crowd("PRI * HT", "", "header", "HTTP/1.1 408 ");
}

#[test]
fn three_hundred_slow_bodies_are_sent_away() {
    crowd(BODY, "x", "body", "HTTP/1.1 408 ");
}

#[test]
fn three_hundred_that_do_not_read_are_sent_away() {
    crowd("GET /large HTTP/1.1\r\nHost: a\r\n\r\n", "", "write", "HTTP/1.1 200 ");
}

#[test]
fn a_client_on_the_same_machine_that_reads_slowly_gets_all_of_it() {
    let server =
        Setup::of_example("misfit").args(["--workers", "1", "--write-timeout", "3s"]).start();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut taken = 0;
    // Its kernel acknowledges nothing for as long as it takes to read a segment of 64 KiB: more than three seconds
    // at this pace, and less than six.
    for _ in 0..90 {
        taken += stream.read(&mut [0; 2_000]).unwrap();
        crate::wait::pause(std::time::Duration::from_millis(100));
    }
    taken += stream.read_to_end(&mut Vec::new()).unwrap();
    assert!(taken > 16 << 20, "{taken}");
    assert_eq!(server.stop(), 0);
}

#[test]
fn slowhttptest_ties_nothing_up() {
    let modes: [(&str, &[&str]); 3] = [
        ("header", &["-H", "-u", "/"]),
        ("body", &["-B", "-s", "100000", "-u", "/upload"]),
        ("write", &["-X", "-w", "1", "-y", "2", "-n", "5", "-z", "1", "-u", "/large"]),
    ];
    for (kind, mode) in modes {
        let server = Setup::of_example("misfit").args(SHORT).args(["--access-log", "off"]).start();
        let (path, mode) = mode.split_last().unwrap();
        let url = format!("http://{}{path}", server.address());
        let attack = std::process::Command::new("slowhttptest")
            .args(["-c", "300", "-r", "300", "-i", "1", "-l", "60", "-x", "10", "-p", "3"])
            .args(mode)
            .arg(url)
            .stdout(std::process::Stdio::null())
            .spawn();
        let Ok(mut attack) = attack else {
            eprintln!("slowhttptest is not installed: its three modes were not tried");
            return;
        };
        server.until(&format!("all 300 are sent away, {kind}"), |metrics| {
            metrics.value("http_server_request_timeouts_total", &[("kind", kind)])
                >= u64::from(CROWD)
        });
        assert_eq!(server.get("/").status, 200);
        // It may have ended by itself: nothing was left open.
        let _ended = attack.kill();
        attack.wait().unwrap();
        assert_eq!(server.stop(), 0);
    }
}

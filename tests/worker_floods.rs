//! HTTP/2 clients that send frames without end, while others are served.

use std::io::Write;
use std::net::TcpStream;

use crate::server::Server;
use crate::wait::DEADLINE;

const ATTACKERS: u64 = 10;

#[test]
fn floods_of_frames_end_their_connections_and_leave_the_server_serving() {
    let server = Server::start(["--workers", "1"]);
    let address = server.address();
    // A frame header: three bytes of length, type, flags, stream.
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[1; 8]].concat();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0].to_vec();
    let priority = [&[0, 0, 5, 2, 0, 0, 0, 0, 1][..], &[0, 0, 0, 0, 7]].concat();
    let window = [&[0, 0, 4, 8, 0, 0, 0, 0, 0][..], &[0, 0, 0, 1]].concat();
    let unknown = [0, 0, 0, 200, 0, 0, 0, 0, 0].to_vec();
    let floods = [ping, settings, priority, window, unknown];
    std::thread::scope(|scope| {
        for frame in floods.iter().cycle().take(usize::try_from(ATTACKERS).unwrap()) {
            scope.spawn(|| attack(&address, frame));
        }
        for _ in 0..50 {
            assert_eq!(server.get("/").status, 200);
        }
    });
    server.until("each is counted", |metrics| {
        metrics.value("http_server_requests_rejected_total", &[("reason", "h2_flood")]) == ATTACKERS
    });
    let line = server
        .until_line("the flood is named", |line| line.is("a client floods its HTTP/2 connection"));
    assert_eq!(line.get("peer"), "127.0.0.1");
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.stop(), 0);
}

/// Sends frames until the server has closed the connection.
fn attack(address: &str, frame: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
    let many = frame.repeat(100);
    for _ in 0..10_000 {
        if stream.write_all(&many).is_err() {
            return;
        }
    }
    panic!("a million frames were taken");
}

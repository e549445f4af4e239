//! Every raw request of the corpus against `examples/echo.rs`: whole, byte by byte, and split at every offset.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::corpus::{self, Row};
use crate::setup::Setup;
use crate::wait::DEADLINE;

const CLIENTS: usize = 4;

#[test]
fn every_raw_request_gets_the_answer_of_the_standard_however_it_is_cut() {
    let server = Setup::of_example("echo")
        .args(["--workers", "1", "--access-log", "off", "--keepalive-requests", "4000000000"])
        .start();
    let address = server.address();
    let rows = corpus::all();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || {
            while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                for cuts in [vec![Vec::new()], row.bytewise(), row.splits()].concat() {
                    let answers = exchange(&address, row, &cuts);
                    let found = row.check(&answers);
                    assert_eq!(found, Ok(()), "{} cut at {cuts:.3?}", row.name);
                }
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(work)).collect();
        for client in clients {
            client.join().unwrap();
        }
    });
    let metrics = server.metrics();
    assert_eq!(metrics.sum("http_server_exceptions_total"), 0, "no row makes anything fail");
    assert_eq!(server.stop(), 0);
}

fn exchange(address: &str, row: &Row, cuts: &[usize]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    for part in row.parts(cuts) {
        if stream.write_all(part).is_err() {
            break; // refused and closed already; the answer says why
        }
    }
    let _closed = stream.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    match stream.read_to_end(&mut answers) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{}: the connection stays open: {error}", row.name),
    }
    answers
}

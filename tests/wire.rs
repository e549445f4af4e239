//! A connection where each byte matters: sends what it is told, and says exactly how an answer went wrong.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::wait::DEADLINE;

pub(crate) struct Wire {
    stream: BufReader<TcpStream>,
    /// Answers read so far.
    answers: u32,
}

/// How a request failed.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug)]
pub(crate) enum Failure {
    /// Nobody listened: the request was never sent.
    Refused,
    /// End or reset before a byte of the first answer.
    LostFresh,
    /// The same on a connection that had answered before.
    LostReused,
    /// End or reset within an answer.
    Truncated,
    Timeout,
    /// Bytes that are no answer.
    Garbled,
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut values = fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim());
        values.next().unwrap_or_default()
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection").eq_ignore_ascii_case("close")
    }
}

impl Wire {
    pub(crate) fn connect(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).map_err(|_| Failure::Refused)?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Ok(Self { stream: BufReader::new(stream), answers: 0 })
    }

    /// Sends bytes; that the peer is gone shows when the answer is read.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _gone = self.stream.get_mut().write_all(bytes.as_ref());
    }

    /// One request with an id, and its answer.
    pub(crate) fn get(&mut self, path: &str, request_id: &str) -> Result<Reply, Failure> {
        self.send(format!(
            "GET {path} HTTP/1.1\r\nhost: saola.test\r\nx-request-id: {request_id}\r\n\r\n"
        ));
        self.answer()
    }

    pub(crate) fn answer(&mut self) -> Result<Reply, Failure> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let is_empty = head.is_empty();
            match self.stream.read_line(&mut head) {
                Ok(1..) => {}
                Ok(0) => return Err(self.lost(is_empty)),
                Err(error) => return Err(self.failed(&error, is_empty)),
            }
        }
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or(Failure::Garbled)?;
        let mut reply = Reply { status, head, body: Vec::new() };
        let length = reply.header("content-length").parse().unwrap_or(0);
        reply.body.resize(length, 0);
        if let Err(error) = self.stream.read_exact(&mut reply.body) {
            return Err(self.failed(&error, false));
        }
        self.answers += 1;
        Ok(reply)
    }

    /// Reads to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        rest
    }

    /// Waits for the end of the connection: true for FIN, false for a reset; bytes before it are a failure.
    pub(crate) fn ends_cleanly(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {
                assert!(
                    rest.is_empty(),
                    "bytes nobody asked for: {:?}",
                    String::from_utf8_lossy(&rest)
                );
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("the connection stays open: {error}"),
        }
    }

    fn lost(&self, before_the_first_byte: bool) -> Failure {
        match (before_the_first_byte, self.answers) {
            (true, 0) => Failure::LostFresh,
            (true, _) => Failure::LostReused,
            (false, _) => Failure::Truncated,
        }
    }

    fn failed(&self, error: &std::io::Error, before_the_first_byte: bool) -> Failure {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::Timeout,
            ErrorKind::InvalidData => Failure::Garbled,
            _ => self.lost(before_the_first_byte),
        }
    }
}

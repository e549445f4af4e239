//! A client of HTTP/2 that sends the frames it is told to, good or bad, and reads what comes.

use std::collections::HashMap;

use tokio::io::{AsyncBufRead, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};

use super::Server;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// The other end of a connection.
pub(crate) struct Peer {
    client: BufReader<DuplexStream>,
    statuses: HashMap<u32, String>,
    pub(crate) resets: Vec<(u32, u32)>,
    /// The error of the last GOAWAY.
    pub(crate) goaway: Option<u32>,
    /// Whether it answers pings.
    pub(crate) answers: bool,
}

/// A frame as it goes over the wire.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The fields of a request, in HPACK without Huffman coding and without the table.
pub(crate) fn fields(method: &str, path: &str) -> Vec<u8> {
    // 6: :scheme http; 1, 2, 4: the names :authority, :method, :path of the static table.
    let mut block = vec![0x86];
    for (name, value) in [(1, "test"), (2, method), (4, path)] {
        block.extend([name, u8::try_from(value.len()).unwrap()]);
        block.extend(value.as_bytes());
    }
    block
}

impl Peer {
    pub(crate) async fn open(server: &Server) -> Self {
        Self::with_window(server, 65_535).await
    }

    /// Opens a connection whose streams may be sent so many bytes each.
    pub(crate) async fn with_window(server: &Server, window: u32) -> Self {
        let client = BufReader::new(server.connect().0);
        let (statuses, resets) = (HashMap::new(), Vec::new());
        let mut peer = Self { client, statuses, resets, goaway: None, answers: true };
        let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        peer.send(&[preface, frame(SETTINGS, 0, 0, &settings)].concat()).await;
        peer
    }

    /// Sends bytes; whether the server still takes them.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.client.write_all(bytes).await.is_ok()
    }

    /// A whole request.
    pub(crate) async fn get(&mut self, stream: u32, path: &str) {
        self.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields("GET", path))).await;
    }

    /// A request whose body is still to come.
    pub(crate) async fn begin(&mut self, stream: u32, path: &str) {
        self.send(&frame(HEADERS, END_HEADERS, stream, &fields("POST", path))).await;
    }

    pub(crate) async fn widen(&mut self, stream: u32, bytes: u32) {
        self.send(&frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())).await;
    }

    /// Says whether something has come that was not read.
    pub(crate) fn is_readable(&mut self) -> bool {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::Pin::new(&mut self.client).poll_fill_buf(&mut cx).is_ready()
    }

    pub(crate) fn has_status(&self, stream: u32) -> bool {
        self.statuses.contains_key(&stream)
    }

    /// The status of a stream, once it has come.
    pub(crate) async fn status(&mut self, stream: u32) -> String {
        while !self.statuses.contains_key(&stream) {
            assert!(
                self.read().await,
                "no answer on {stream}: {:?} {:?}",
                self.goaway,
                self.resets
            );
        }
        self.statuses[&stream].clone()
    }

    /// The error with which the server ends a stream, or the whole connection for it (RFC 9113 section 5.4.2 leaves the choice).
    pub(crate) async fn blamed(&mut self, stream: u32) -> u32 {
        loop {
            let reset = self.resets.iter().find(|(of, _)| *of == stream).map(|(_, error)| *error);
            if let Some(error) = reset.or(self.goaway) {
                return error;
            }
            assert!(self.read().await, "the connection has ended without a word");
        }
    }

    /// Reads to the end of the connection.
    pub(crate) async fn until_end(&mut self) {
        while self.read().await {}
    }

    /// Reads a frame; `false` at the end.
    pub(crate) async fn read(&mut self) -> bool {
        let mut head = [0; 9];
        if self.client.read_exact(&mut head).await.is_err() {
            return false;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if self.client.read_exact(&mut payload).await.is_err() {
            return false;
        }
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match head[3] {
            HEADERS => {
                self.statuses.entry(stream).or_insert_with(|| status(&payload));
            }
            RESET => self.resets.push((stream, number(0))),
            GOAWAY => self.goaway = Some(number(4)),
            SETTINGS if head[4] & ACK == 0 => {
                self.send(&frame(SETTINGS, ACK, 0, &[])).await;
            }
            PING if head[4] & ACK == 0 && self.answers => {
                self.send(&frame(PING, ACK, 0, &payload)).await;
            }
            _ => {}
        }
        true
    }
}

/// The first field of a response, which is its status: indexed, or as a literal of the name that has number 8.
fn status(block: &[u8]) -> String {
    match block {
        [index @ 0x88..=0x8e, ..] => {
            ["200", "204", "206", "304", "400", "404", "500"][usize::from(index - 0x88)].to_owned()
        }
        [0x08 | 0x48, 3, text @ ..] => String::from_utf8_lossy(&text[..3]).into_owned(),
        // Huffman code: digits 0, 1, 2 have five bits, the others six.
        [0x08 | 0x48, 0x82 | 0x83, high, middle, low, ..] => {
            huffman(u32::from_be_bytes([*high, *middle, *low, 0]))
        }
        _ => panic!("no status: {block:?}"),
    }
}

fn huffman(bits: u32) -> String {
    let (mut text, mut at) = (String::new(), 0);
    while text.len() < 3 {
        let five = bits << at >> 27;
        let digit = if five < 3 {
            at += 5;
            five
        } else {
            let six = bits << at >> 26;
            at += 6;
            // 3 is 011001, 9 is 011111.
            six - 0b01_1001 + 3
        };
        text.push_str(&digit.to_string());
    }
    text
}

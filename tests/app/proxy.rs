//! A way to the inventory that can be cut in every place: before the call, in it, and after the work is done.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::output::thread;
use crate::wait;

pub(crate) struct Proxy {
    address: String,
    state: Arc<Mutex<State>>,
}

struct State {
    target: String,
    mode: Mode,
    /// Connections that nobody answers.
    held: Vec<TcpStream>,
}

/// What becomes of a call.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Mode {
    Pass,
    /// Deductions get no answer, and never arrive.
    Hang,
    /// Deductions are done, and their answer is lost.
    CloseAfter,
    /// No call arrives.
    Close,
}

impl Proxy {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = State { target: String::new(), mode: Mode::Pass, held: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        // It ends with the tests.
        thread(move || {
            for connection in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread(move || serve(connection, &state));
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where calls go.
    pub(crate) fn lead_to(&self, target: &str) {
        target.clone_into(&mut self.state.lock().unwrap().target);
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }
}

/// One call. A side that goes away ends it, as on any network.
fn serve(mut client: TcpStream, state: &Mutex<State>) -> Option<()> {
    client.set_read_timeout(Some(wait::DEADLINE)).ok()?;
    let request = message(&mut client)?;
    let is_deduction = request.starts_with(b"POST /inventory/deduct");
    let (target, mode) = {
        let state = state.lock().unwrap();
        (state.target.clone(), state.mode)
    };
    match mode {
        Mode::Close => return None,
        Mode::Hang if is_deduction => {
            state.lock().unwrap().held.push(client);
            return None;
        }
        Mode::Pass | Mode::Hang | Mode::CloseAfter => (),
    }
    let mut server = TcpStream::connect(target).ok()?;
    server.set_read_timeout(Some(wait::DEADLINE)).ok()?;
    server.write_all(&request).ok()?;
    let answer = message(&mut server)?;
    if mode == Mode::CloseAfter && is_deduction {
        return None;
    }
    client.write_all(&answer).ok()
}

/// A head and the body that its `Content-Length` says.
fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?;
            if read.len() >= end + 4 + length.parse::<usize>().ok()? {
                return Some(read);
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(length) => read.extend_from_slice(&piece[..length]),
        }
    }
}

//! The control socket (S70-S72): one JSON request a line from whoever is us or root; no client can slow the loop.

pub(crate) mod request;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use serde_json::{Value, json};

use crate::Exit;
use crate::descriptors::copy_descriptor;
use crate::lifecycle::asked::Client;
use crate::lifecycle::event::Answer;
use crate::upgrade::Inherited;
use crate::upgrade::state::{ConnectionState, ControlState, WaitingState};
pub(crate) use request::Request;

/// The socket and its clients.
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
    connections: BTreeMap<u64, Connection>,
    /// Requests that wait for their answer.
    waiting: BTreeMap<Client, Waiting>,
    next: u64,
}

struct Connection {
    stream: UnixStream,
    uid: u32,
    pid: i32,
    input: Vec<u8>,
    /// Since when it owes the end of a line.
    since: Instant,
    output: Vec<u8>,
    /// Nothing more is read; it closes when what it is owed is sent.
    is_closing: bool,
}

struct Waiting {
    connection: u64,
    id: Value,
    /// It wants the end, not the beginning.
    waits: bool,
}

/// What somebody has asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) client: Client,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) request: Request,
}

/// Somebody who may not ask.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Intruder {
    pub(crate) uid: u32,
    pub(crate) pid: i32,
}

impl Control {
    /// Binds the socket of a run directory that is locked: what has that name is a dead server's.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let _none_left = fs::remove_file(path);
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            connections: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next: 0,
        })
    }

    /// For the next image: who waits for the end of the upgrade hears it from there.
    pub(crate) fn hand_over<'a>(&'a self, open: &mut Inherited<'a>) -> ControlState {
        let connections = self.connections.iter().filter(|(_, connection)| !connection.is_closing);
        ControlState {
            fd: open.keep(self.listener.as_fd()),
            path: self.path.clone(),
            next: self.next,
            connections: connections
                .map(|(number, connection)| ConnectionState {
                    number: *number,
                    fd: open.keep(connection.stream.as_fd()),
                    uid: connection.uid,
                    pid: connection.pid,
                    input: connection.input.clone(),
                    output: connection.output.clone(),
                })
                .collect(),
            waiting: self
                .waiting
                .iter()
                .map(|(client, waiting)| WaitingState {
                    client: client.0,
                    connection: waiting.connection,
                    id: waiting.id.clone(),
                    waits: waiting.waits,
                })
                .collect(),
        }
    }

    /// The socket and the clients of the image before this one.
    pub(crate) fn adopt(state: &ControlState, now: Instant) -> io::Result<Self> {
        let mut connections = BTreeMap::new();
        for connection in &state.connections {
            let ConnectionState { number, fd, uid, pid, input, output } = connection;
            let stream = UnixStream::from(copy_descriptor(*fd)?);
            let (input, output) = (input.clone(), output.clone());
            let (uid, pid) = (*uid, *pid);
            let connection =
                Connection { stream, uid, pid, input, since: now, output, is_closing: false };
            connections.insert(*number, connection);
        }
        let waiting = state.waiting.iter().map(|waiting| {
            let WaitingState { client, connection, id, waits } = waiting;
            let waiting = Waiting { connection: *connection, id: id.clone(), waits: *waits };
            (Client(*client), waiting)
        });
        Ok(Self {
            listener: UnixListener::from(copy_descriptor(state.fd)?),
            path: state.path.clone(),
            connections,
            waiting: waiting.collect(),
            next: state.next,
        })
    }

    /// The end of the server: the name goes, and those who wait for the end hear it by the end of the file.
    pub(crate) fn remove(mut self) {
        for connection in self.connections.values_mut() {
            connection.send();
        }
        let _gone = fs::remove_file(&self.path);
    }

    /// Descriptors to wait for, and whether each is to be written to.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let connections = self
            .connections
            .values()
            .map(|connection| (connection.stream.as_fd(), !connection.output.is_empty()));
        std::iter::once((self.listener.as_fd(), false)).chain(connections)
    }

    /// Takes whoever knocks, and reads what they ask.
    pub(crate) fn read(&mut self, now: Instant) -> (Vec<Asked>, Vec<Intruder>) {
        let intruders = self.accept(now);
        let mut lines = Vec::new();
        for (&number, connection) in &mut self.connections {
            for line in connection.read(now) {
                lines.push((number, connection.uid, connection.pid, line));
            }
            connection.send();
        }
        let mut asked = Vec::new();
        for (number, uid, pid, line) in lines {
            let parsed = request::parse(&line);
            match parsed {
                Ok((id, request)) => {
                    self.next += 1;
                    let client = Client(self.next);
                    let waiting = Waiting { connection: number, id, waits: request.waits() };
                    self.waiting.insert(client, waiting);
                    asked.push(Asked { client, pid: pid.unsigned_abs(), uid, request });
                }
                Err((id, why)) => self.send(number, &refusal(&id, Exit::Usage, &why)),
            }
        }
        self.forget_the_gone();
        (asked, intruders)
    }

    /// Passes an answer on to whoever asked, who may have left.
    pub(crate) fn reply(&mut self, client: Client, answer: &Answer) {
        let Some(waiting) = self.waiting.get(&client) else { return };
        let (connection, id) = (waiting.connection, waiting.id.clone());
        if !answer.is_final() && waiting.waits {
            if let Answer::WorkerReady(slot) = answer {
                let line = json!({"id": id, "event": "worker_ready", "worker": slot.0});
                self.send(connection, &line);
            }
            return;
        }
        if matches!(answer, Answer::WorkerReady(_)) {
            return;
        }
        self.waiting.remove(&client);
        self.send(connection, &line_of(&id, answer));
    }

    /// Answers at once with facts.
    pub(crate) fn answer(&mut self, client: Client, mut facts: Value) {
        let Some(waiting) = self.waiting.remove(&client) else { return };
        if let Some(object) = facts.as_object_mut() {
            object.insert("id".to_owned(), waiting.id);
            object.insert("ok".to_owned(), Value::Bool(true));
        }
        self.send(waiting.connection, &facts);
    }

    fn accept(&mut self, now: Instant) -> Vec<Intruder> {
        let mut intruders = Vec::new();
        // At most so many in a turn of the loop; the others wait in the queue.
        for _ in 0..MOST_CLIENTS {
            let Ok((mut stream, _)) = self.listener.accept() else { break };
            let credentials = getsockopt(&stream, PeerCredentials);
            let (uid, pid) = credentials.map_or((u32::MAX, 0), |peer| (peer.uid(), peer.pid()));
            let refused = if uid != 0 && uid != geteuid().as_raw() {
                intruders.push(Intruder { uid, pid });
                Some((Exit::Permission, "this server belongs to another user"))
            } else if self.connections.len() >= MOST_CLIENTS {
                Some((Exit::Busy, "too many clients"))
            } else {
                None
            };
            // What cannot be made non-blocking could block the loop.
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if let Some((exit, why)) = refused {
                let _gone = stream.write_all(text(&refusal(&Value::Null, exit, why)).as_bytes());
                continue;
            }
            self.next += 1;
            let connection = Connection {
                stream,
                uid,
                pid,
                input: Vec::new(),
                since: now,
                output: Vec::new(),
                is_closing: false,
            };
            self.connections.insert(self.next, connection);
        }
        intruders
    }

    fn send(&mut self, connection: u64, line: &Value) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.output.extend(text(line).as_bytes());
            connection.send();
        }
    }

    /// A client that leaves changes nothing (S72).
    fn forget_the_gone(&mut self) {
        let waiting = &self.waiting;
        self.connections.retain(|number, connection| {
            let is_owed = waiting.values().any(|waiting| waiting.connection == *number);
            !connection.is_closing || !connection.output.is_empty() || is_owed
        });
        let connections = &self.connections;
        self.waiting.retain(|_, waiting| connections.contains_key(&waiting.connection));
    }
}

impl Connection {
    /// The lines that are complete.
    fn read(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut buffer = [0; LONGEST_LINE];
        // A bound for the turn: whoever sends without end has it read in the next ones.
        for _ in 0..4 {
            if self.is_closing {
                break;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => self.is_closing = true,
                Ok(len) => self.input.extend(buffer.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_broken) => self.hang_up(),
            }
            while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                lines.push(self.input.drain(..=end).collect());
                self.since = now;
            }
            if self.input.len() > LONGEST_LINE {
                self.refuse("line too long");
            }
        }
        if self.input.is_empty() {
            self.since = now;
        } else if now.saturating_duration_since(self.since) > LONGEST_WAIT {
            self.refuse("the line has no end");
        }
        lines
    }

    fn refuse(&mut self, why: &str) {
        self.output.extend(text(&refusal(&Value::Null, Exit::Usage, why)).as_bytes());
        self.input.clear();
        self.is_closing = true;
    }

    fn hang_up(&mut self) {
        self.output.clear();
        self.is_closing = true;
    }

    #[expect(clippy::disallowed_methods, reason = "the socket takes what it can now")]
    fn send(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return self.hang_up(),
                Ok(len) => _ = self.output.drain(..len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // One that does not read is let go.
                    if self.output.len() > LARGEST_BACKLOG {
                        self.hang_up();
                    }
                    return;
                }
                Err(_broken) => return self.hang_up(),
            }
        }
    }
}

fn line_of(id: &Value, answer: &Answer) -> Value {
    match answer {
        Answer::Begun(state) => json!({"id": id, "ok": true, "state": state}),
        Answer::WorkerReady(_) | Answer::Done => json!({"id": id, "ok": true}),
        Answer::Serves { generation, workers, duration } => json!({
            "id": id, "ok": true, "generation": generation, "workers": workers,
            "duration_ms": u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        }),
        Answer::Workers { old, new } => json!({"id": id, "ok": true, "old": old, "new": new}),
        Answer::Refused { exit, why } => refusal(id, *exit, why),
    }
}

fn refusal(id: &Value, exit: Exit, why: &str) -> Value {
    json!({"id": id, "ok": false, "code": exit.code(), "message": why})
}

fn text(line: &Value) -> String {
    let mut text = line.to_string();
    text.push('\n');
    text
}

const MOST_CLIENTS: usize = 16;
const LONGEST_LINE: usize = 4096;
const LARGEST_BACKLOG: usize = 256 << 10;
const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;

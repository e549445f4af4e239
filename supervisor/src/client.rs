//! The other end of the control socket: for commands that talk to a running server.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Exit;

/// A connection to a running server.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    input: Vec<u8>,
}

/// What came of a request that has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("no supervisor is reachable at {path}: {why}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The supervisor went away before it answered.
    #[error("the supervisor has gone; outcome unknown")]
    Unknown,
    /// The answer did not come in time; what was asked for goes on.
    #[error("no answer within {0:?}; it goes on")]
    TimedOut(Duration),
    /// The server refuses.
    #[error("{message}")]
    Refused {
        /// The exit code for the command.
        code: u8,
        /// Why.
        message: String,
    },
}

impl ClientError {
    /// The exit code of the command that met it.
    pub fn code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::Unknown => Exit::Unavailable.code(),
            Self::TimedOut(_) => Exit::TimedOut.code(),
            Self::Refused { code, .. } => *code,
        }
    }
}

impl Client {
    /// Connects to the server that has this run directory.
    ///
    /// # Errors
    ///
    /// [`ClientError::Unreachable`] with the path and the reason.
    pub fn connect(run_dir: &Path) -> Result<Self, ClientError> {
        let path = run_dir.join("control.sock");
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Self { stream, input: Vec::new() }),
            Err(error) => {
                let why = error.to_string();
                Err(ClientError::Unreachable { path, why })
            }
        }
    }

    /// Asks, hands what happens meanwhile to `on_event`, and answers with the last line. No timeout: waits for ever.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn ask(
        &mut self,
        request: &Value,
        timeout: Option<Duration>,
        on_event: &mut dyn FnMut(&Value),
    ) -> Result<Value, ClientError> {
        let mut line = request.to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes()).map_err(|_| ClientError::Unknown)?;
        let end = timeout.map(|timeout| (timeout, Instant::now() + timeout));
        loop {
            let answer = self.line(end)?.ok_or(ClientError::Unknown)?;
            match answer.get("ok").and_then(Value::as_bool) {
                Some(true) => return Ok(answer),
                Some(false) => {
                    let code = answer.get("code").and_then(Value::as_u64);
                    let code = code.and_then(|code| u8::try_from(code).ok());
                    let message = answer.get("message").and_then(Value::as_str).unwrap_or_default();
                    return Err(ClientError::Refused {
                        code: code.unwrap_or(Exit::Internal.code()),
                        message: message.to_owned(),
                    });
                }
                None => on_event(&answer),
            }
        }
    }

    /// Waits until the server has closed its end, which it does by ending.
    ///
    /// # Errors
    ///
    /// [`ClientError::TimedOut`].
    pub fn wait_for_end(&mut self, timeout: Option<Duration>) -> Result<(), ClientError> {
        let end = timeout.map(|timeout| (timeout, Instant::now() + timeout));
        while self.line(end)?.is_some() {}
        Ok(())
    }

    /// The next line; none at the end of the file.
    fn line(&mut self, end: Option<(Duration, Instant)>) -> Result<Option<Value>, ClientError> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=at).collect();
                // A line that is no JSON is nobody's answer.
                return serde_json::from_slice(&line).map(Some).map_err(|_| ClientError::Unknown);
            }
            let left =
                end.map(|(timeout, end)| (timeout, end.saturating_duration_since(Instant::now())));
            if let Some((timeout, left)) = left
                && left.is_zero()
            {
                return Err(ClientError::TimedOut(timeout));
            }
            let patience = left.map(|(_, left)| left);
            self.stream.set_read_timeout(patience).map_err(|_| ClientError::Unknown)?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(len) => self.input.extend(buffer.get(..len).unwrap_or_default()),
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut => {}
                    _broken => return Ok(None),
                },
            }
        }
    }
}

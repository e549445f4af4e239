//! A receiver of the tests' own for HTTP POSTs, in the clear or over TLS: it says what came to whoever decides the answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::certificates::Authority;
use crate::output::thread;

/// One request, whole.
pub(crate) struct Post {
    /// The request line and the headers, as they came.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// What becomes of a request.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum Reply {
    /// Status line without the version, further header lines, each with its CR LF, and the body.
    Answer { status: &'static str, headers: &'static str, body: Vec<u8> },
    /// No answer, and the connection stays open.
    Silence,
    /// No answer, and the connection ends.
    Close,
}

impl Reply {
    pub(crate) fn status(status: &'static str) -> Self {
        Self::Answer { status, headers: "", body: b"{}".to_vec() }
    }
}

/// Listens on a free port until the test process ends; gives the URL.
pub(crate) fn listen(
    authority: Option<&Authority>,
    decide: impl Fn(Post) -> Reply + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = authority.map(Authority::server);
    // The certificate is for a name.
    let url = if tls.is_some() { "https://localhost" } else { "http://127.0.0.1" };
    let decide = Arc::new(decide);
    thread(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (decide, tls) = (Arc::clone(&decide), tls.clone());
            thread(move || match tls {
                Some(tls) => serve(StreamOwned::new(connection(tls), stream), &*decide),
                None => serve(stream, &*decide),
            });
        }
    });
    format!("{url}:{port}")
}

fn connection(tls: Arc<ServerConfig>) -> ServerConnection {
    ServerConnection::new(tls).unwrap()
}

fn serve(stream: impl Read + Write, decide: &impl Fn(Post) -> Reply) {
    let mut reader = BufReader::new(stream);
    while let Some(post) = read(&mut reader) {
        let written = match decide(post) {
            Reply::Answer { status, headers, body } => {
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n");
                let stream = reader.get_mut();
                stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(&body))
                    .and_then(|()| stream.flush())
            }
            Reply::Silence => {
                // Until the client gives up.
                let _end = reader.read(&mut [0]);
                return;
            }
            Reply::Close => return,
        };
        if written.is_err() {
            return;
        }
    }
}

/// The next request; `None` when the client has left.
fn read(reader: &mut BufReader<impl Read + Write>) -> Option<Post> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = vec![0; length.expect("a POST has a length")];
    reader.read_exact(&mut body).ok()?;
    Some(Post { head, body })
}

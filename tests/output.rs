//! What a process has written, line by line, read by a thread of its own.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};

/// The lines of a pipe so far.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<(Mutex<Text>, Condvar)>);

#[derive(Default)]
struct Text {
    lines: Vec<String>,
    is_over: bool,
}

impl Output {
    /// Reads `pipe` until its end; without one there is nothing to read.
    pub(crate) fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        Self::of_parts(pipe, b'\n')
    }

    /// As [`Self::of`], with another byte at the end of each part.
    pub(crate) fn of_parts(pipe: Option<impl Read + Send + 'static>, end: u8) -> Self {
        let output = Self::default();
        let reader = output.clone();
        thread(move || {
            let lines = pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).split(end));
            // A terminal whose other side is gone ends with an error instead of an end.
            for line in lines.map_while(Result::ok) {
                let text = String::from_utf8_lossy(&line).into_owned();
                reader.0.0.lock().unwrap().lines.push(text);
            }
            reader.0.0.lock().unwrap().is_over = true;
            reader.0.1.notify_all();
        });
        output
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.since(0)
    }

    /// The lines from number `first` on.
    pub(crate) fn since(&self, first: usize) -> Vec<String> {
        self.0.0.lock().unwrap().lines.get(first..).unwrap_or_default().to_vec()
    }

    /// All lines, when nobody holds the pipe any more.
    pub(crate) fn to_end(&self) -> Vec<String> {
        let read = self.0.0.lock().unwrap();
        let (read, _) =
            self.0.1.wait_timeout_while(read, crate::wait::DEADLINE, |read| !read.is_over).unwrap();
        assert!(read.is_over, "somebody still holds the output open");
        read.lines.clone()
    }

    /// The last 50 lines; of requests only the last few, for they crowd out what the server says of itself.
    pub(crate) fn tail(&self) -> String {
        let lines = self.lines();
        let (mut requests, mut tail) = (0, Vec::new());
        for line in lines.iter().rev() {
            let is_request = line.contains(" msg=request ");
            requests += u32::from(is_request);
            if tail.len() < 50 && !(is_request && requests > 5) {
                tail.push(line.as_str());
            }
        }
        tail.reverse();
        tail.join("\n")
    }
}

/// Starts a thread of the test.
#[expect(
    clippy::disallowed_methods,
    reason = "the test forks nothing itself: std's spawn execs at once"
)]
pub(crate) fn thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(work)
}

//! Stdout: one thread that calls plain blocking `write(1)`, behind a bounded queue.
//!
//! It is the only place that may wait for whoever reads stdout. `O_NONBLOCK` is never set: the flag belongs
//! to the open file and would hit the shell, the supervisor and the handlers too.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use saola_observability::closed::Level;
use tokio::sync::Notify;

use crate::lost::LostLines;
use crate::metrics;

/// Encoded lines may wait here in this many bytes; whoever offers more keeps it.
const QUEUE_BYTES: usize = 192 * 1024;

/// Whole lines that one `write(2)` takes.
#[derive(Debug)]
pub(crate) struct Chunk<T> {
    /// At most [`LINE_BYTES`](crate::logfmt::LINE_BYTES) bytes.
    pub(crate) bytes: Vec<u8>,
    /// The level of each line.
    pub(crate) levels: Vec<Level>,
    /// What the sender wants back when the chunk is done with.
    pub(crate) tag: T,
}

/// Why lines were not written.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Failure {
    /// Nobody reads the pipe any more.
    Closed,
    /// The file system or the device refuses.
    WriteError,
}

impl From<Failure> for LostLines {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Closed => Self::Closed,
            Failure::WriteError => Self::WriteError,
        }
    }
}

/// A chunk that is done with.
#[derive(Debug)]
pub(crate) struct Finished<T> {
    /// The chunk; its buffers may be used again.
    pub(crate) chunk: Chunk<T>,
    /// Lines of it that were written whole, from the first. They are counted in the metrics, as are the others.
    pub(crate) written: usize,
    /// Why the others were not.
    pub(crate) failure: Option<Failure>,
}

/// The sender's side.
#[derive(Debug)]
pub(crate) struct Output<T> {
    shared: Arc<Shared<T>>,
}

impl<T: Send + 'static> Output<T> {
    /// Starts the thread `saola-out`, which writes to `fd` until the output is dropped. It calls `done` with the tag of
    /// each chunk as soon as `write(2)` has returned: whoever dies then has at most that one write repeated.
    #[expect(clippy::disallowed_methods, reason = "the observer never forks")]
    pub(crate) fn start(fd: OwnedFd, done: impl Fn(&T) + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
            progress: Notify::new(),
        });
        let writer = Writer { fd, shared: Arc::clone(&shared), broken: None, complained: None };
        thread::Builder::new().name("saola-out".to_owned()).spawn(move || writer.run(done))?;
        Ok(Self { shared })
    }

    /// Queues chunks from the first, and leaves those for which the queue is too full.
    pub(crate) fn offer(&self, chunks: &mut VecDeque<Chunk<T>>) {
        let mut state = self.shared.lock();
        while let Some(chunk) = chunks.pop_front_if(|chunk| state.has_room_for(chunk)) {
            state.queued_bytes += chunk.bytes.len();
            state.queued_lines += chunk.levels.len();
            state.queue.push_back(chunk);
        }
        // A wake-up is a system call, and the thread would be asleep again before the next chunk: it gets all of them at
        // once. While it is writing it looks again by itself.
        let is_waiting = !state.queue.is_empty() && std::mem::take(&mut state.is_waiting);
        drop(state);
        if is_waiting {
            self.shared.wake.notify_one();
        }
    }

    /// The chunks that were done with since the last call, in the order they were offered.
    pub(crate) fn finished(&self) -> Vec<Finished<T>> {
        std::mem::take(&mut self.shared.lock().finished)
    }

    /// Whether nothing waits and nothing is being written.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.lock().queued_bytes == 0
    }

    /// Takes back what waits; returns how many lines that is, with those of a write that hangs. If that still
    /// returns, nobody hears of it: each line is counted once.
    pub(crate) fn give_up(&self) -> usize {
        let mut state = self.shared.lock();
        state.is_given_up = true;
        state.queue.clear();
        state.queued_bytes = 0;
        std::mem::take(&mut state.queued_lines)
    }

    /// Waits until a chunk was done with and half of the queue is free; may also return early.
    pub(crate) fn progress(&self) -> impl Future<Output = ()> + use<T> {
        let shared = Arc::clone(&self.shared);
        async move { shared.progress.notified().await }
    }
}

impl<T> Drop for Output<T> {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.wake.notify_one();
    }
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
    progress: Notify,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nobody panics while holding it; and if, each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<Chunk<T>>,
    /// Of the queue and of the chunk that is being written.
    queued_bytes: usize,
    queued_lines: usize,
    finished: Vec<Finished<T>>,
    /// The writing thread sleeps until it is woken.
    is_waiting: bool,
    is_closed: bool,
    is_given_up: bool,
}

impl<T> State<T> {
    /// The first chunk has room whatever its size.
    fn has_room_for(&self, chunk: &Chunk<T>) -> bool {
        self.queued_bytes == 0 || self.queued_bytes + chunk.bytes.len() <= QUEUE_BYTES
    }

    /// Accounts for a chunk that is done with; says whether half of the queue is free, for whoever waits for room is
    /// woken for many chunks, not for each.
    fn finish(&mut self, done: Finished<T>) -> bool {
        if self.is_given_up {
            return false;
        }
        self.queued_bytes -= done.chunk.bytes.len();
        self.queued_lines -= done.chunk.levels.len();
        self.finished.push(done);
        self.queued_bytes <= QUEUE_BYTES / 2
    }
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            queued_bytes: 0,
            queued_lines: 0,
            finished: Vec::new(),
            is_waiting: false,
            is_closed: false,
            is_given_up: false,
        }
    }
}

struct Writer<T> {
    fd: OwnedFd,
    shared: Arc<Shared<T>>,
    /// Since when nothing can be written, and why: one attempt a second, the chunks between are dropped.
    broken: Option<(Instant, Failure)>,
    complained: Option<Instant>,
}

impl<T> Writer<T> {
    fn run(mut self, done: impl Fn(&T)) {
        let mut last = None;
        while let Some(chunk) = self.next(last.take()) {
            // After a panic the chunk counts as not written, and the next attempt is a second later (O11).
            let mut is_counted = false;
            let written = catch_unwind(AssertUnwindSafe(|| {
                let (written, failure) = self.write(&chunk);
                // Before the cursors move: a count that waited for the reader would be lost with it.
                self.count(&chunk, written, failure);
                is_counted = true;
                done(&chunk.tag);
                (written, failure)
            }));
            let (written, failure) = written.unwrap_or_else(|_| {
                self.broken = Some((Instant::now(), Failure::WriteError));
                if !is_counted {
                    self.count(&chunk, 0, Some(Failure::WriteError));
                }
                (0, Some(Failure::WriteError))
            });
            last = Some(Finished { chunk, written, failure });
        }
    }

    /// Counts the lines of a chunk as written or dropped, unless they were given up and are counted so.
    fn count(&self, chunk: &Chunk<T>, written: usize, failure: Option<Failure>) {
        if self.shared.lock().is_given_up {
            return;
        }
        let (written, unwritten) = chunk.levels.split_at(written);
        for alike in written.chunk_by(|level, next| level == next) {
            metrics::lines_written(alike[0], alike.len());
        }
        if let Some(failure) = failure {
            metrics::lines_dropped(failure.into(), unwritten.len());
        }
    }

    /// Accounts for the last chunk, and waits for one.
    fn next(&self, last: Option<Finished<T>>) -> Option<Chunk<T>> {
        let mut state = self.shared.lock();
        if let Some(last) = last
            && state.finish(last)
        {
            self.shared.progress.notify_one();
        }
        loop {
            if let Some(chunk) = state.queue.pop_front() {
                return Some(chunk);
            }
            if state.is_closed {
                return None;
            }
            state.is_waiting = true;
            state = self.shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(&mut self, chunk: &Chunk<T>) -> (usize, Option<Failure>) {
        if chunk.bytes.is_empty() {
            // Only its tag travels: it must not pass those before it.
            return (0, None);
        }
        if let Some((since, failure)) = self.broken
            && since.elapsed() < ATTEMPT_EVERY
        {
            return (0, Some(failure));
        }
        match self.write_all(&chunk.bytes) {
            Ok(()) => {
                self.broken = None;
                (chunk.levels.len(), None)
            }
            Err((written, errno)) => {
                let failure =
                    if errno == Errno::EPIPE { Failure::Closed } else { Failure::WriteError };
                self.broken = Some((Instant::now(), failure));
                if failure == Failure::WriteError {
                    self.complain(errno);
                }
                let lines = chunk.bytes.iter().take(written).filter(|byte| **byte == b'\n').count();
                (lines, Some(failure))
            }
        }
    }

    /// Writes all bytes, or says how many were written before the error.
    fn write_all(&self, bytes: &[u8]) -> Result<(), (usize, Errno)> {
        let mut written = 0;
        while written < bytes.len() {
            match write(&self.fd, &bytes[written..]) {
                Ok(0) => return Err((written, Errno::EIO)),
                Ok(count) => written += count,
                Err(Errno::EINTR) => {}
                // Somebody else set O_NONBLOCK on the open file that we share.
                Err(Errno::EAGAIN) => wait_for_room(&self.fd),
                Err(errno) => return Err((written, errno)),
            }
        }
        Ok(())
    }

    /// One line on stderr a minute, if stderr takes it at once.
    fn complain(&mut self, errno: Errno) {
        if self.complained.is_some_and(|when| when.elapsed() < COMPLAIN_EVERY) {
            return;
        }
        self.complained = Some(Instant::now());
        let stderr = io::stderr();
        let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut ready, PollTimeout::ZERO).is_ok_and(|count| count > 0) {
            let text = format!("saola: cannot write log lines to stdout: {}\n", errno.desc());
            // Nobody is left to tell if this fails too; the lines are counted either way.
            let _ = write(&stderr, text.as_bytes());
        }
    }
}

/// Sleeps until the descriptor takes bytes, or a second, whichever is first.
fn wait_for_room(fd: &OwnedFd) {
    let mut room = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    // An error shows itself in the write that follows.
    let _ = poll(&mut room, PollTimeout::from(1_000_u16));
}

const ATTEMPT_EVERY: Duration = Duration::from_secs(1);
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::unistd::pipe;

    use super::*;

    fn chunk(tag: usize, text: &str) -> Chunk<usize> {
        let levels = text.bytes().filter(|byte| *byte == b'\n').map(|_| Level::Info).collect();
        Chunk { bytes: text.into(), levels, tag }
    }

    /// Whether the queue takes it.
    fn is_taken(output: &Output<usize>, chunk: Chunk<usize>) -> bool {
        let mut chunks = VecDeque::from([chunk]);
        output.offer(&mut chunks);
        chunks.is_empty()
    }

    /// Collects finished chunks until `count` have come.
    fn finished(output: &Output<usize>, count: usize) -> Vec<Finished<usize>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut all = Vec::new();
        let collect = async {
            while all.len() < count {
                output.progress().await;
                all.extend(output.finished());
            }
        };
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(10), collect).await.expect("chunks finish");
        });
        all
    }

    /// Whether somebody is woken within this time.
    fn has_progress(output: &Output<usize>, within: Duration) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let told = async { tokio::time::timeout(within, output.progress()).await };
        runtime.block_on(told).is_ok()
    }

    /// Fills the queue until it refuses; says how many chunks it took.
    fn fill(output: &Output<usize>) -> usize {
        let line = format!("{}\n", "x".repeat(4_095));
        (0..1_000).find(|tag| !is_taken(output, chunk(*tag, &line))).expect("the queue is bounded")
    }

    #[test]
    fn chunks_come_out_whole_and_in_order() {
        let (read, write) = pipe().unwrap();
        let output = Output::start(write, |_| ()).unwrap();
        for tag in 0..100 {
            assert!(is_taken(&output, chunk(tag, &format!("line {tag}\n"))));
        }
        let all = finished(&output, 100);
        assert!(all.iter().enumerate().all(|(at, done)| done.chunk.tag == at && done.written == 1));
        assert!(output.is_idle());
        drop(output);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 100);
    }

    #[test]
    fn a_pipe_that_nobody_reads_fills_the_queue_and_no_more_until_it_is_read() {
        let (read, write) = pipe().unwrap();
        let output = Output::start(write, |_| ()).unwrap();
        let taken = fill(&output);
        let bytes = taken * 4_096;
        let mut text = vec![0; bytes];
        File::from(read).read_exact(&mut text).unwrap();
        assert_eq!(finished(&output, taken).len(), taken);
        assert!(output.is_idle());
    }

    #[test]
    fn nobody_is_woken_before_half_of_the_queue_is_free() {
        let (read, write) = pipe().unwrap();
        let output = Output::start(write, |_| ()).unwrap();
        let taken = fill(&output);
        // Told while it was filling.
        let _old = has_progress(&output, Duration::ZERO);
        let mut read = File::from(read);
        let mut text = vec![0; 4_096];
        for _ in 0..taken {
            read.read_exact(&mut text).unwrap();
            if has_progress(&output, Duration::ZERO) {
                break;
            }
        }
        assert!(output.shared.lock().queued_bytes <= QUEUE_BYTES / 2);
        thread::scope(|scope| {
            scope.spawn(|| io::copy(&mut read, &mut io::sink()));
            while !output.is_idle() {
                assert!(has_progress(&output, Duration::from_secs(10)));
            }
            drop(output);
        });
    }

    #[test]
    fn a_non_blocking_stdout_is_waited_for() {
        let (read, write) = pipe().unwrap();
        fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let output = Output::start(write, |_| ()).unwrap();
        let taken = fill(&output);
        let mut text = vec![0; taken * 4_096];
        File::from(read).read_exact(&mut text).unwrap();
        assert!(finished(&output, taken).iter().all(|done| done.failure.is_none()));
    }

    #[test]
    fn a_closed_pipe_is_counted_and_waits_for_nothing() {
        let (read, write) = pipe().unwrap();
        drop(read);
        let output = Output::start(write, |_| ()).unwrap();
        for tag in 0..3 {
            assert!(is_taken(&output, chunk(tag, "a\nb\n")));
        }
        for done in finished(&output, 3) {
            assert_eq!((done.written, done.failure), (0, Some(Failure::Closed)));
        }
    }

    #[test]
    fn a_panic_costs_the_chunks_of_a_second() {
        let (read, write) = pipe().unwrap();
        let output = Output::start(write, |tag| assert_ne!(*tag, 0, "a panic on purpose")).unwrap();
        assert!(is_taken(&output, chunk(0, "a\nb\n")));
        let done = &finished(&output, 1)[0];
        assert_eq!((done.written, done.failure), (0, Some(Failure::WriteError)));
        // The thread lives: it takes what comes, and writes again when the second is over.
        let mut tag = 0;
        let by = Instant::now() + Duration::from_secs(10);
        let written = loop {
            tag += 1;
            assert!(is_taken(&output, chunk(tag, "c\n")));
            let done = &finished(&output, 1)[0];
            if done.failure.is_none() || Instant::now() > by {
                break done.written;
            }
        };
        assert_eq!(written, 1);
        drop(output);
        assert!(io::read_to_string(File::from(read)).unwrap().ends_with("\nc\n"));
    }

    #[test]
    fn a_full_device_is_counted() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = Output::start(full.into(), |_| ()).unwrap();
        assert!(is_taken(&output, chunk(0, "a\n")));
        assert_eq!(finished(&output, 1)[0].failure, Some(Failure::WriteError));
    }
}

//! The answer to a scrape, whole: negotiated, made once for all who ask at the same time, and free of any HTTP library.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::clock::wall_ns;
use crate::closed::Level;
use crate::exposition::{self, Encoding, Negotiated};
use crate::header::WhyBad;
use crate::ids::{SpanId, TraceId};
use crate::metrics::{Histogram, Metric};
use crate::names;
use crate::reader::{Families, Reader};
use crate::record::Value;
use crate::record::encode::Event;

static DURATION: Histogram = Histogram::new(
    names::SAOLA_SCRAPE_DURATION,
    "Time to read all slots and write them down for a scrape, in seconds.",
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0],
);

/// Answers scrapes of one server: one at a time. Who asks while another is answered waits, and shares its bytes.
///
/// It blocks for the time of a scrape: on a worker it belongs on a blocking thread, never on the event loop.
///
/// ```
/// use saola_observability::scraper::Scraper;
///
/// let scraper = Scraper::new("/nowhere".into());
/// let answer = scraper.answer("GET", Some("text/plain"), None);
/// assert_eq!(answer.status, 500); // nobody serves there
/// assert_eq!(scraper.answer("POST", None, None).status, 405);
/// ```
pub struct Scraper {
    run_dir: PathBuf,
    reader: Mutex<Option<Reader>>,
    turn: Mutex<Turn>,
    done: Condvar,
    /// Conflicting families that were warned of.
    warned: Mutex<Vec<String>>,
}

/// An answer, for any HTTP library to send.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers that depend on the request; `Content-Length` and `Date` are the server's.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The body; empty for HEAD.
    pub body: Arc<[u8]>,
    /// How long the body is or, for HEAD, would be.
    pub length: usize,
}

/// A body, or the line that says why there is none.
type Made = Result<Arc<[u8]>, Failed>;

/// Why there is no body: a status and a line.
type Failed = (u16, String);

/// Who is scraping, and what came of it.
#[derive(Default)]
struct Turn {
    is_busy: bool,
    /// Scrapes begun.
    begun: u64,
    /// What came of the scrape with this number.
    last: u64,
    made: Option<(Negotiated, Made)>,
}

impl Scraper {
    /// A scraper of the server in a run directory, which need not run yet.
    pub fn new(run_dir: PathBuf) -> Self {
        let (reader, turn) = (Mutex::new(None), Mutex::new(Turn::default()));
        Self { run_dir, reader, turn, done: Condvar::new(), warned: Mutex::default() }
    }

    /// The directory whose server it scrapes.
    pub fn run_dir(&self) -> &std::path::Path {
        &self.run_dir
    }

    /// Answers a request by its method and its headers `Accept` and `Accept-Encoding`. Never half a body: what fails is a
    /// 500 with one line. A process that a successor with other files has left behind answers 503 (F58): else scrapes that
    /// meet the two in turn would alternate between two sums.
    pub fn answer(
        &self,
        method: &str,
        accept: Option<&str>,
        accept_encoding: Option<&str>,
    ) -> Answer {
        if method != "GET" && method != "HEAD" {
            let mut answer = plain(405, "use GET or HEAD\n");
            answer.headers.push(("allow", "GET, HEAD"));
            return answer;
        }
        let wanted = agreed(Negotiated::from_headers(accept, accept_encoding));
        let mut answer = match self.shared(wanted) {
            Ok(body) => found(wanted, body),
            Err((status, line)) => plain(status, &line),
        };
        if method == "HEAD" {
            answer.body = Arc::default();
        }
        answer
    }

    /// The bytes of a scrape that began after this call did, or of the one that was waited for.
    fn shared(&self, wanted: Negotiated) -> Made {
        let mut turn = lock(&self.turn);
        if turn.is_busy {
            let waited_for = turn.begun;
            while turn.is_busy && turn.begun == waited_for {
                turn = self.done.wait(turn).unwrap_or_else(PoisonError::into_inner);
            }
            let is_ours = turn.last >= waited_for;
            let made = turn.made.as_ref().filter(|(other, _)| is_ours && *other == wanted);
            if let Some((_, made)) = made {
                return made.clone();
            }
            // It was made in another format: then this one makes its own, in its turn.
            while turn.is_busy {
                turn = self.done.wait(turn).unwrap_or_else(PoisonError::into_inner);
            }
        }
        turn.is_busy = true;
        turn.begun += 1;
        let number = turn.begun;
        drop(turn);
        let busy = Busy(self);
        let made = self.make(wanted);
        let mut turn = lock(&self.turn);
        turn.last = number;
        turn.made = Some((wanted, made.clone()));
        drop(turn);
        drop(busy);
        made
    }

    fn make(&self, wanted: Negotiated) -> Made {
        DURATION.init(); // not before: a scraper may be made before its process has a slot
        let start = Instant::now();
        let mut reader = lock(&self.reader);
        let reader = match &mut *reader {
            Some(reader) => reader,
            none => none.insert(Reader::open(&self.run_dir).map_err(failed)?),
        };
        reader.read().map_err(failed)?;
        if reader.bad().iter().any(|bad| matches!(bad.why, WhyBad::Format { .. })) {
            return Err((
                503,
                "the server was upgraded to files that this process cannot read\n".to_owned(),
            ));
        }
        let families = reader.families();
        self.warn_of_conflicts(families);
        let body = exposition::text(families, wanted.format);
        DURATION.observe(start.elapsed().as_secs_f64());
        compressed(body, wanted.encoding)
    }

    /// Writes one warning a family into the slot of this process (F56).
    fn warn_of_conflicts(&self, families: &Families) {
        let mut warned = lock(&self.warned);
        for conflict in families.conflicts() {
            let Some(slot) = crate::metrics::attached() else { return };
            if warned.contains(&conflict.family) {
                continue;
            }
            warned.push(conflict.family.clone());
            slot.records().event(&Event {
                wall_ns: wall_ns(),
                level: Level::Warn,
                target: "saola::metrics",
                message: "two slots define a metric differently; the series of one are left out",
                trace: TraceId::NONE,
                span: SpanId::NONE,
                request_id: "",
                fields: &[
                    ("metric", Value::Str(&conflict.family)),
                    ("kept", Value::Str(&conflict.kept)),
                    ("left_out", Value::Str(&conflict.left_out)),
                ],
            });
        }
    }
}

fn failed(error: impl std::error::Error) -> Failed {
    (500, format!("{error}\n"))
}

/// Ends a turn, also when making the answer panics: else all later scrapes would wait for ever.
struct Busy<'s>(&'s Scraper);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(&self.0.turn).is_busy = false;
        self.0.done.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this build can do of what was agreed on.
fn agreed(wanted: Negotiated) -> Negotiated {
    if cfg!(feature = "gzip") {
        wanted
    } else {
        Negotiated { encoding: Encoding::Identity, ..wanted }
    }
}

#[cfg(feature = "gzip")]
fn compressed(body: Vec<u8>, encoding: Encoding) -> Made {
    if encoding == Encoding::Identity || body.len() < Negotiated::GZIP_FROM_BYTES {
        return Ok(body.into());
    }
    exposition::gzip(&body).map(Arc::from).map_err(failed)
}

#[cfg(not(feature = "gzip"))]
#[expect(clippy::unnecessary_wraps, reason = "with gzip it may fail")]
fn compressed(body: Vec<u8>, _: Encoding) -> Made {
    Ok(body.into())
}

fn found(wanted: Negotiated, body: Arc<[u8]>) -> Answer {
    let mut headers =
        vec![("content-type", wanted.format.content_type()), ("vary", "Accept, Accept-Encoding")];
    // The first bytes of a gzip member: a short body was left as it is.
    if body.starts_with(&[0x1f, 0x8b]) {
        headers.push(("content-encoding", "gzip"));
    }
    Answer { status: 200, headers, length: body.len(), body }
}

fn plain(status: u16, text: &str) -> Answer {
    let headers = vec![("content-type", "text/plain; charset=utf-8")];
    Answer { status, headers, length: text.len(), body: Arc::from(text.as_bytes()) }
}

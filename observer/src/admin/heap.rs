//! `/debug/pprof/heap`: a worker is asked by a word in its slot, writes a file beside it, and never waits for anybody.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use saola_observability::clock;
use saola_observability::closed::Role;
use saola_observability::rings::heap_file;
use tokio::time::sleep;

use super::pprof::attachment;
use super::{Admin, Answer, query, text};
use crate::profile::{Heap, Pprof, gzip};

/// A question that is taken back when its answer is there, and when nobody waits for it any more.
struct Question {
    admin: Rc<Admin>,
    worker: u32,
    file: PathBuf,
}

impl Question {
    /// Asks a worker; why not, if that is not possible.
    fn ask(admin: Rc<Admin>, worker: u32) -> Result<Self, (StatusCode, String)> {
        if admin.is_heap_asked.replace(true) {
            let busy = "a heap profile is being written\n".to_owned();
            return Err((StatusCode::SERVICE_UNAVAILABLE, busy));
        }
        // One that was born since the last look may be asked too.
        admin.reader.borrow_mut().rings.refresh_now();
        let file = heap_file(&admin.run_dir, worker);
        // A worker that was too late has left one.
        let _ = std::fs::remove_file(&file);
        let question = Self { admin, worker, file };
        match question.put(clock::monotonic_ns()) {
            Ok(()) => Ok(question),
            Err(why) => Err((StatusCode::NOT_FOUND, why)),
        }
    }

    /// Fails if there is no such worker, or it is of another program image: its addresses mean nothing here.
    fn put(&self, number: u64) -> Result<(), String> {
        let worker = self.worker;
        let mut reader = self.admin.reader.borrow_mut();
        let image = reader.profiles.image();
        let mut slots = reader.rings.slots().iter();
        let slot = slots
            .find(|slot| (slot.role(), slot.number()) == (Role::Worker, worker) && slot.is_live())
            .ok_or_else(|| format!("no worker {worker}\n"))?;
        if slot.seen().image != image {
            return Err(format!(
                "worker {worker} is of another program than the observer, which is so while an upgrade lasts: ask again \
                 after it\n"
            ));
        }
        slot.ask_heap(number);
        Ok(())
    }

    /// What the worker has written.
    async fn answered(&self) -> Option<io::Result<String>> {
        let by = Instant::now() + MAY_TAKE;
        while Instant::now() < by {
            if self.file.exists() {
                return Some(std::fs::read_to_string(&self.file));
            }
            sleep(LOOK_EVERY).await;
        }
        None
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        // Nobody is left to take it back from if the worker is gone.
        let _ = self.put(0);
        // It is not there if the worker was too slow, and goes with the server if this does not succeed.
        let _ = std::fs::remove_file(&self.file);
        self.admin.is_heap_asked.set(false);
    }
}

impl Admin {
    /// `/debug/pprof/heap`: of the first worker, or of the one that is named.
    pub(super) async fn heap(self: Rc<Self>, query: String) -> Answer {
        if let Some(reason) = &self.no_heap_profiles {
            return text(StatusCode::NOT_IMPLEMENTED, format!("{reason}\n"));
        }
        let worker = match named_worker(&query) {
            Ok(worker) => worker.unwrap_or(0),
            Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
        };
        let question = match Question::ask(Rc::clone(&self), worker) {
            Ok(question) => question,
            Err((status, reason)) => return text(status, reason),
        };
        let dump = match question.answered().await {
            Some(Ok(dump)) => dump,
            Some(Err(error)) => return failed(&error.to_string()),
            None => {
                let late = format!("worker {worker} did not deliver its heap in 10 s\n");
                return text(StatusCode::GATEWAY_TIMEOUT, late);
            }
        };
        drop(question);
        let symbols = Arc::clone(&self.symbols);
        let made = tokio::task::spawn_blocking(move || {
            let heap = Heap::parse(&dump).ok_or(io::ErrorKind::InvalidData)?;
            let mut symbols = symbols.lock().unwrap_or_else(PoisonError::into_inner);
            gzip(&Pprof::encode_heap(&heap, &mut symbols))
        });
        match made.await {
            Ok(Ok(bytes)) => attachment("heap.pb.gz", bytes),
            Ok(Err(error)) => failed(&error.to_string()),
            Err(error) => failed(&error.to_string()),
        }
    }
}

fn failed(error: &str) -> Answer {
    text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the profile: {error}\n"))
}

fn named_worker(query: &str) -> Result<Option<u32>, &'static str> {
    let worker = query::pairs(query)?.into_iter().find(|(key, _)| *key == "worker");
    worker.map(|(_, value)| query::worker(value)).transpose()
}

/// The dump itself takes milliseconds; a worker looks for questions ten times a second.
const MAY_TAKE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

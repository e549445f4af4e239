//! Clients that ask again and again, and keep the books: what was sent, what was answered, what failed and how.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::output::thread;
use crate::wait;
use crate::wire::{Failure, Wire};

/// A load that runs until it is stopped.
pub(crate) struct Load {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Tally>>,
}

/// How clients use connections.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Connections {
    Kept,
    Fresh,
}

/// The books of all clients: each request by its id.
#[derive(Clone, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) answered: BTreeMap<String, u16>,
    pub(crate) failed: BTreeMap<String, Failure>,
    /// Connections that were refused: nothing was sent on them.
    pub(crate) refused: u64,
}

impl Tally {
    pub(crate) fn sent(&self) -> u64 {
        u64::try_from(self.answered.len() + self.failed.len()).unwrap()
    }

    /// Fails if a request was sent and not answered with 200.
    pub(crate) fn expect_no_loss(&self) {
        assert!(self.failed.is_empty(), "lost: {:?}", self.failed);
        let bad: Vec<_> = self.answered.iter().filter(|(_, status)| **status != 200).collect();
        assert!(bad.is_empty(), "not 200: {bad:?}");
        assert!(self.sent() > 0, "the load has sent nothing");
    }
}

impl Load {
    pub(crate) fn start(
        address: &str,
        clients: usize,
        connections: Connections,
        path: &'static str,
    ) -> Self {
        let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..clients).map(|number| {
            let client = Client {
                address: address.to_owned(),
                name: format!("{connections:?}-{number}").to_lowercase(),
                connections,
                path,
                is_over: Arc::clone(&is_over),
                answered: Arc::clone(&answered),
                tally: Tally::default(),
            };
            thread(move || client.run())
        });
        let clients = clients.collect();
        Self { is_over, answered, clients }
    }

    /// Waits until so many more requests are answered.
    pub(crate) fn until_more(&self, count: u64) {
        let goal = self.answered.load(Relaxed) + count;
        wait::until("the load goes on", || self.answered.load(Relaxed) >= goal);
    }

    /// Requests answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Lets no client ask again, and waits for none: said before a server ends, whose port may be another's next.
    pub(crate) fn ask_no_more(&self) {
        self.is_over.store(true, Relaxed);
    }

    /// Lets every client finish its request, and adds up their books.
    pub(crate) fn stop(mut self) -> Tally {
        self.ask_no_more();
        let mut all = Tally::default();
        for client in self.clients.drain(..) {
            let tally = client.join().unwrap();
            all.answered.extend(tally.answered);
            all.failed.extend(tally.failed);
            all.refused += tally.refused;
        }
        all
    }
}

/// A load that nobody stopped would knock on its server's port for ever, whoever listens there.
impl Drop for Load {
    fn drop(&mut self) {
        self.ask_no_more();
    }
}

struct Client {
    address: String,
    name: String,
    connections: Connections,
    path: &'static str,
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tally: Tally,
}

impl Client {
    fn run(mut self) -> Tally {
        let mut wire = None;
        let mut number = 0;
        while !self.is_over.load(Relaxed) {
            number += 1;
            let id = format!("{}-{number}", self.name);
            wire = self.ask(wire, id);
            wait::pause(Duration::from_millis(1));
        }
        self.tally
    }

    /// One request; gives back the connection if it may be used again.
    fn ask(&mut self, wire: Option<Wire>, id: String) -> Option<Wire> {
        let Ok(mut wire) = wire.map_or_else(|| Wire::connect(&self.address), Ok) else {
            self.tally.refused += 1;
            return None;
        };
        match wire.get(self.path, &id) {
            Ok(reply) => {
                self.tally.answered.insert(id, reply.status);
                self.answered.fetch_add(1, Relaxed);
                (self.connections == Connections::Kept && !reply.closes()).then_some(wire)
            }
            Err(failure) => {
                self.tally.failed.insert(id, failure);
                None
            }
        }
    }
}

//! The acceptor thread: waits for a connection while it is armed, takes one, and hands it over.
//!
//! Armed means that the listeners are in its epoll. The loop arms it, the thread disarms itself with each connection: so it
//! sleeps once for each, and goes to the tail of the wake list each time, which is what spreads connections evenly.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use saola_observability::Slot;
use tokio::sync::mpsc;

use super::super::reserve::Reserve;
use super::super::{Listener, Speech, Taken, take};
use crate::heartbeat::Beat;

/// What the loop and the thread tell each other.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) listeners: Arc<Vec<Listener>>,
    /// The bell is always in it; the listeners while the thread is armed.
    epoll: Epoll,
    /// Ends a wait in epoll.
    bell: EventFd,
}

#[derive(Copy, Clone, Debug)]
struct State {
    wish: Wish,
    /// The loop has a permit for one connection.
    is_granted: bool,
    is_armed: bool,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Wish {
    Accept,
    Pause,
    End,
}

impl Shared {
    /// An error of kind `InvalidInput` means that the kernel does not know `EPOLLEXCLUSIVE`.
    pub(super) fn new(listeners: Arc<Vec<Listener>>) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = EventFd::from_value_and_flags(0, flags)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        let state = State { wish: Wish::Accept, is_granted: false, is_armed: false };
        let shared = Self { state: Mutex::new(state), listeners, epoll, bell };
        // Tried once, so that a kernel that refuses is noticed before the worker is ready.
        shared.arm(&mut shared.lock())?;
        shared.disarm(&mut shared.lock());
        Ok(shared)
    }

    /// Lets the thread take one connection.
    pub(super) fn grant(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.is_granted = true;
        if state.wish == Wish::Accept { self.arm(&mut state) } else { Ok(()) }
    }

    pub(super) fn wish(&self, wish: Wish) {
        let mut state = self.lock();
        if state.wish != Wish::End {
            state.wish = wish;
        }
        // A full counter rings as well.
        let _ = self.bell.write(1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the listeners into the epoll, also while the thread waits in it.
    fn arm(&self, state: &mut State) -> io::Result<()> {
        if !state.is_armed {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
            for (number, listener) in (0..).zip(self.listeners.iter()) {
                self.epoll.add(&listener.fd, EpollEvent::new(flags, number))?;
            }
            state.is_armed = true;
        }
        Ok(())
    }

    /// Takes them out: a worker that will not accept must not stay in the wake list, or wake-ups meant for others end here.
    fn disarm(&self, state: &mut State) {
        if std::mem::take(&mut state.is_armed) {
            for listener in self.listeners.iter() {
                // It was added; a failure means that the descriptor is gone, and its registration with it.
                let _ = self.epoll.delete(&listener.fd);
            }
        }
    }
}

/// The thread and what is its own.
pub(super) struct Acceptor {
    shared: Arc<Shared>,
    hand: mpsc::Sender<io::Result<(OwnedFd, Speech)>>,
    beat: Beat,
    reserve: Reserve,
    /// Without descriptors the listeners are left alone until then.
    pause: Option<Instant>,
}

/// How often a thread that waits looks whether the loop lives.
const LOOK: Duration = Duration::from_millis(100);
const BELL: u64 = u64::MAX;

impl Acceptor {
    pub(super) fn new(
        shared: Arc<Shared>,
        hand: mpsc::Sender<io::Result<(OwnedFd, Speech)>>,
        beat: Beat,
        slot: &'static Slot,
    ) -> Self {
        Self { shared, hand, beat, reserve: Reserve::new(slot), pause: None }
    }

    #[expect(clippy::disallowed_methods, reason = "a worker forks nothing")]
    pub(super) fn start(self) -> io::Result<()> {
        std::thread::Builder::new().name("accept".to_owned()).spawn(move || self.run())?;
        Ok(())
    }

    fn run(mut self) {
        loop {
            match self.settle().and_then(|goes_on| if goes_on { self.once() } else { Ok(false) }) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    // The receiver is gone only when the worker is.
                    let _ = self.hand.blocking_send(Err(error));
                    return;
                }
            }
        }
    }

    /// Is armed when it should be, and only then; `false` when it is to end.
    fn settle(&mut self) -> io::Result<bool> {
        self.pause.take_if(|end| *end <= Instant::now());
        let mut state = self.shared.lock();
        let accepts = state.wish == Wish::Accept && state.is_granted && self.pause.is_none();
        if accepts && self.beat.is_live() {
            self.shared.arm(&mut state)?;
        } else {
            self.shared.disarm(&mut state);
        }
        Ok(state.wish != Wish::End)
    }

    /// One wait and at most one accept.
    fn once(&mut self) -> io::Result<bool> {
        let mut events = [EpollEvent::empty()];
        let rest = self.pause.map(|end| end.saturating_duration_since(Instant::now()));
        let wait = rest.map_or(LOOK, |rest| rest.min(LOOK));
        let wait = EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::ZERO);
        match self.shared.epoll.wait(&mut events, wait) {
            Ok(1) => {}
            Ok(_) | Err(Errno::EINTR) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
        let [event] = events;
        let shared = Arc::clone(&self.shared);
        let number = usize::try_from(event.data()).unwrap_or(usize::MAX);
        let Some(listener) = shared.listeners.get(number) else {
            // Only that it rings matters.
            let _ = shared.bell.read();
            return Ok(true);
        };
        match take(&listener.fd) {
            Taken::Socket(fd) => {
                self.reserve.eases();
                let mut state = shared.lock();
                shared.disarm(&mut state);
                state.is_granted = false;
                drop(state);
                // There is room: the loop granted one connection. A receiver that is gone drops it, as the worker ends.
                let _ = self.hand.blocking_send(Ok((fd, listener.speech)));
            }
            Taken::Nothing | Taken::Next => {}
            // A level-triggered listener would spin, so it is left alone for a while.
            Taken::Exhausted => {
                let pause = self.reserve.exhausted(&listener.fd, listener.speech);
                self.pause = Some(Instant::now() + pause);
            }
            Taken::Broken(errno) => return Err(errno.into()),
        }
        Ok(true)
    }
}

//! The acceptor thread: waits for a grant, then for a connection, and hands it over.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    changed: Condvar,
    /// Ends a wait in epoll.
    bell: EventFd,
}

#[derive(Copy, Clone, Debug)]
struct State {
    wish: Wish,
    is_granted: bool,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Wish {
    Accept,
    Pause,
    End,
}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        let bell =
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let state = Mutex::new(State { wish: Wish::Accept, is_granted: false });
        Ok(Self { state, changed: Condvar::new(), bell })
    }

    /// Lets the thread take one connection.
    pub(super) fn grant(&self) {
        self.lock().is_granted = true;
        self.changed.notify_one();
    }

    pub(super) fn wish(&self, wish: Wish) {
        let mut state = self.lock();
        if state.wish != Wish::End {
            state.wish = wish;
        }
        self.changed.notify_one();
        // A full counter rings as well.
        let _ = self.bell.write(1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, at most a while.
    fn wait(&self, is_enough: impl Fn(State) -> bool) -> State {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, LOOK, |state| !is_enough(*state));
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The thread and what is its own.
pub(super) struct Acceptor {
    listeners: Arc<Vec<Listener>>,
    shared: Arc<Shared>,
    hand: mpsc::Sender<io::Result<(OwnedFd, Speech)>>,
    beat: Beat,
    epoll: Epoll,
    is_registered: bool,
    accepted: u32,
    reserve: Reserve,
}

/// How often a thread that waits looks whether the loop lives.
const LOOK: Duration = Duration::from_millis(100);
/// A listener is taken out and put back after so many accepts, which puts this worker at the tail of the wake list.
const READD: u32 = 16;
const BELL: u64 = u64::MAX;

impl Acceptor {
    pub(super) fn new(
        listeners: Arc<Vec<Listener>>,
        shared: Arc<Shared>,
        hand: mpsc::Sender<io::Result<(OwnedFd, Speech)>>,
        beat: Beat,
        slot: &'static Slot,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&shared.bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        let mut acceptor = Self {
            listeners,
            shared,
            hand,
            beat,
            epoll,
            is_registered: false,
            accepted: 0,
            reserve: Reserve::new(slot),
        };
        // Here rather than in the thread, so that a kernel that refuses is noticed before the worker is ready.
        acceptor.register()?;
        Ok(acceptor)
    }

    #[expect(clippy::disallowed_methods, reason = "a worker forks nothing")]
    pub(super) fn start(self) -> io::Result<()> {
        std::thread::Builder::new().name("accept".to_owned()).spawn(move || self.run())?;
        Ok(())
    }

    fn run(mut self) {
        loop {
            let state = self.shared.wait(|state| state.wish == Wish::End || state.is_granted);
            match state.wish {
                Wish::End => return,
                Wish::Accept if state.is_granted && self.beat.is_live() => {}
                // A worker that will not accept must not stay registered, or wake-ups meant for others end here.
                Wish::Accept | Wish::Pause => {
                    self.unregister();
                    if state.is_granted {
                        self.shared.wait(|state| state.wish == Wish::End);
                    }
                    continue;
                }
            }
            if let Err(error) = self.register().and_then(|()| self.once()) {
                // The receiver is gone only when the worker is.
                let _ = self.hand.blocking_send(Err(error));
                return;
            }
        }
    }

    /// One wait and at most one accept.
    fn once(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty()];
        match self.epoll.wait(&mut events, EpollTimeout::from(100_u8)) {
            Ok(1) => {}
            Ok(_) | Err(Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        let [event] = events;
        let number = event.data();
        if number == BELL {
            // Only its ringing matters.
            let _ = self.shared.bell.read();
            return Ok(());
        }
        let listeners = Arc::clone(&self.listeners);
        let Some(listener) = usize::try_from(number).ok().and_then(|number| listeners.get(number))
        else {
            return Ok(());
        };
        match take(&listener.fd) {
            Taken::Socket(fd) => {
                self.reserve.eases();
                self.shared.lock().is_granted = false;
                // There is room: the loop granted one connection. A receiver that is gone drops it, as the worker ends.
                let _ = self.hand.blocking_send(Ok((fd, listener.speech)));
                self.accepted += 1;
                if self.accepted.is_multiple_of(READD) {
                    self.epoll.delete(&listener.fd)?;
                    self.add(listener, number)?;
                }
            }
            Taken::Nothing | Taken::Next => {}
            Taken::Exhausted => self.back_off(listener),
            Taken::Broken(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// No descriptor left: a level-triggered listener would spin, so it is left alone for a while.
    fn back_off(&mut self, listener: &Listener) {
        self.unregister();
        let pause = self.reserve.exhausted(&listener.fd, listener.speech);
        let end = std::time::Instant::now() + pause;
        while std::time::Instant::now() < end
            && self.shared.wait(|state| state.wish == Wish::End).wish != Wish::End
        {}
    }

    fn register(&mut self) -> io::Result<()> {
        if !self.is_registered {
            for (number, listener) in (0..).zip(self.listeners.iter()) {
                self.add(listener, number)?;
            }
            self.is_registered = true;
        }
        Ok(())
    }

    fn add(&self, listener: &Listener, number: u64) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        Ok(self.epoll.add(&listener.fd, EpollEvent::new(flags, number))?)
    }

    fn unregister(&mut self) {
        if self.is_registered {
            for listener in self.listeners.iter() {
                // It was added; a failure means that the descriptor is gone, and its registration with it.
                let _ = self.epoll.delete(&listener.fd);
            }
            self.is_registered = false;
        }
    }
}

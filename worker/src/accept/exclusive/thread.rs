//! The acceptor thread: waits for a connection while it is armed, takes one, and lays it down for the loop.
//!
//! Armed means that the listeners are in its epoll. The thread disarms itself with each connection, and is armed anew by the
//! loop that picks it up: so it sleeps once for each, and goes to the tail of the wake list each time, which is what spreads
//! connections evenly. While the loop is idle, and those that were laid down have said nothing, it arms itself.
//!
//! What wakes the other side is done without the lock: on one processor the other may run at once, and would find it taken.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timer::TimerSetTimeFlags;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags};
use saola_observability::Slot;
use tokio::sync::mpsc;

use super::super::balance::{Counted, HOLD, MOST_HOLDS, Part};
use super::super::reserve::Reserve;
use super::super::{Listener, Speech, Taken, take};
use crate::heartbeat::Beat;

/// What the loop and the thread tell each other.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) listeners: Arc<Vec<Listener>>,
    /// What the other workers see of this one; none where each has a queue of its own.
    part: Option<Part>,
    /// The bell is always in it; the listeners while the thread is armed.
    epoll: Epoll,
    /// Ends a wait in epoll.
    bell: EventFd,
    /// The loop waits for this one: a silent connection that was laid down is in it, with a timer for it, and the knock.
    pub(super) table: Epoll,
    patience: TimerFd,
    /// Rings for a connection that has spoken already.
    knock: EventFd,
}

#[derive(Debug)]
struct State {
    wish: Wish,
    /// For so many connections more the loop has permits.
    granted: usize,
    arms: Arms,
    handed: VecDeque<Handed>,
    /// The loop was called for them.
    is_called: bool,
    /// The timer runs for them.
    is_timed: bool,
}

/// A connection that was laid down.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) fd: OwnedFd,
    pub(super) speech: Speech,
    pub(super) at: Instant,
    pub(super) counted: Option<Counted>,
    /// It is in the table.
    is_silent: bool,
}

/// Whether the listeners are in the epoll.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Arms {
    /// They are, or the loop is about to put them in.
    Up,
    /// Not until the loop has looked, or the thread finds it idle.
    Down,
    /// Not for a moment, whatever the loop has to say.
    Held,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Wish {
    Accept,
    Pause,
    End,
}

impl Shared {
    /// An error of kind `InvalidInput` means that the kernel does not know `EPOLLEXCLUSIVE`.
    pub(super) fn new(listeners: Arc<Vec<Listener>>, part: Option<Part>) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = EventFd::from_value_and_flags(0, flags)?;
        let knock = EventFd::from_value_and_flags(0, flags)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        let table = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let patience = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        for signal in [patience.as_fd(), knock.as_fd()] {
            table.add(signal, EpollEvent::new(ONCE, 0))?;
        }
        let state = Mutex::new(State {
            wish: Wish::Accept,
            granted: 0,
            arms: Arms::Down,
            handed: VecDeque::new(),
            is_called: false,
            is_timed: false,
        });
        let shared = Self { state, listeners, part, epoll, bell, table, patience, knock };
        // Tried once, so that a kernel that refuses is noticed before the worker is ready.
        shared.arm()?;
        shared.disarm();
        Ok(shared)
    }

    /// Lets the thread take connections for which there are so many permits. While some lie there it is not armed here.
    pub(super) fn grant(&self, permits: usize) -> io::Result<()> {
        let arms = {
            let mut state = self.lock();
            state.granted = permits.saturating_sub(state.handed.len());
            let arms =
                state.wish == Wish::Accept && state.handed.is_empty() && state.arms == Arms::Down;
            if arms {
                state.arms = Arms::Up;
            }
            arms
        };
        if arms { self.arm() } else { Ok(()) }
    }

    /// What has lain there for longest.
    pub(super) fn pick_up(&self) -> Option<Handed> {
        let (handed, is_over) = {
            let mut state = self.lock();
            let handed = state.handed.pop_front()?;
            state.is_called &= !state.handed.is_empty();
            let is_over = state.handed.is_empty() && std::mem::take(&mut state.is_timed);
            (handed, is_over)
        };
        // Neither can fail for what was added; a timer that goes off all the same wakes a loop that finds nothing.
        if handed.is_silent {
            let _ = self.table.delete(&handed.fd);
        }
        if is_over {
            let _ = self.patience.unset();
        }
        Some(handed)
    }

    /// Lays a connection down for the loop. Its first bytes make the table ready, or the end of our patience.
    fn lay_down(&self, fd: OwnedFd, speech: Speech, counted: Option<Counted>, is_held: bool) {
        let is_silent = is_silent(&fd);
        let calls = {
            let mut state = self.lock();
            state.arms = if is_held { Arms::Held } else { Arms::Down };
            state.granted = state.granted.saturating_sub(1);
            // The loop alone can grant more.
            let calls = !is_silent || state.granted == 0;
            if is_silent {
                // Without room for it there is still the timer.
                let _ = self.table.add(&fd, EpollEvent::new(ONCE, 0));
            }
            state.is_called |= calls;
            let at = Instant::now();
            state.handed.push_back(Handed { fd, speech, at, counted, is_silent });
            calls
        };
        if calls {
            // It is full after 2⁶⁴ connections.
            let _ = self.knock.write(1);
        }
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
    fn arm(&self) -> io::Result<()> {
        self.waits(true);
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        for (number, listener) in (0..).zip(self.listeners.iter()) {
            match self.epoll.add(&listener.fd, EpollEvent::new(flags, number)) {
                // A thread that found the loop slow has disarmed itself before the loop had armed it.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Says whether the thread may take one; if not it is disarmed. While the loop was arming it for one listener, another may
    /// have brought a connection already: the loop picks that one up next, arms again, and finds who waits here.
    fn may_take(&self) -> bool {
        let is_granted = self.lock().granted > 0;
        if !is_granted {
            self.disarm();
        }
        is_granted
    }

    /// Takes them out: a worker that will not accept must not stay in the wake list, or wake-ups meant for others end here.
    fn disarm(&self) {
        self.waits(false);
        for listener in self.listeners.iter() {
            // It was added, or is about to be; else the descriptor is gone, and its registration with it.
            let _ = self.epoll.delete(&listener.fd);
        }
    }

    fn waits(&self, waits: bool) {
        if let Some(part) = &self.part {
            part.waits(waits);
        }
    }
}

/// Says whether a client has neither sent anything nor gone.
fn is_silent(fd: &OwnedFd) -> bool {
    // An error is found again, and told, by who reads.
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(0)
}

const ONCE: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);

/// The thread and what is its own.
pub(super) struct Acceptor {
    shared: Arc<Shared>,
    ended: mpsc::Sender<io::Error>,
    beat: Beat,
    reserve: Reserve,
    /// The listeners are left alone until then: there are no descriptors, or others have fewer connections.
    pause: Option<Instant>,
    /// How often they were left to the others since it took a connection.
    holds: u32,
}

/// How often a thread that waits looks whether the loop lives.
const LOOK: Duration = Duration::from_millis(100);
const BELL: u64 = u64::MAX;
const ALMOST_MS: Duration = Duration::from_micros(999);
/// How long the loop is left alone while a client has connected and said nothing: longer than a request takes that follows its
/// connection at once, and so short that silent clients hold up none that waits behind them.
const PATIENCE: Duration = Duration::from_micros(250);
/// And how long while the thread goes on taking others: clients that connect in a crowd have asked by then.
const IDLE_PATIENCE: Duration = Duration::from_millis(10);

impl Acceptor {
    pub(super) fn new(
        shared: Arc<Shared>,
        ended: mpsc::Sender<io::Error>,
        beat: Beat,
        slot: &'static Slot,
    ) -> Self {
        Self { shared, ended, beat, reserve: Reserve::new(slot), pause: None, holds: 0 }
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
                    let _ = self.ended.try_send(error);
                    return;
                }
            }
        }
    }

    /// Is armed when it should be, and only then; `false` when it is to end.
    fn settle(&mut self) -> io::Result<bool> {
        if self.pause.take_if(|end| *end <= Instant::now()).is_some() {
            self.hold();
        }
        // Under the lock: what was granted after this look is not taken back.
        let mut state = self.shared.lock();
        // A loop that is idle serves any of them as soon as it speaks; one that is busy holds one at most.
        let are_silent = !state.handed.is_empty() && !state.is_called;
        let is_free = state.handed.is_empty() || (are_silent && self.beat.is_idle());
        let accepts = state.wish == Wish::Accept && state.granted > 0 && is_free;
        let accepts = accepts && self.pause.is_none() && self.beat.is_live();
        if are_silent {
            let patience = if accepts { IDLE_PATIENCE } else { PATIENCE };
            let expiration = Expiration::OneShot(TimeSpec::from_duration(patience));
            self.shared.patience.set(expiration, TimerSetTimeFlags::empty())?;
            state.is_timed = true;
        }
        let arms = match (accepts, self.pause) {
            (true, _) => Arms::Up,
            (false, Some(_)) => Arms::Held,
            (false, None) => Arms::Down,
        };
        match (arms, std::mem::replace(&mut state.arms, arms)) {
            (Arms::Up, Arms::Up) => self.shared.waits(true),
            (Arms::Up, _) => self.shared.arm()?,
            (_, Arms::Up) => self.shared.disarm(),
            (_, _) => {}
        }
        Ok(state.wish != Wish::End)
    }

    /// Leaves the listeners to the others, if it is ahead of one of them and has not done so for long enough.
    fn hold(&mut self) {
        if self.holds < MOST_HOLDS && self.shared.part.as_ref().is_some_and(Part::is_ahead) {
            self.holds += 1;
            self.pause = Some(Instant::now() + HOLD);
        }
    }

    /// One wait and at most one accept.
    fn once(&mut self) -> io::Result<bool> {
        let mut events = [EpollEvent::empty()];
        let rest = self.pause.map(|end| end.saturating_duration_since(Instant::now()));
        // In whole milliseconds: rounded down the last one would be spent looking.
        let wait = rest.map_or(LOOK, |rest| (rest + ALMOST_MS).min(LOOK));
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
        if !shared.may_take() {
            return Ok(true);
        }
        match take(&listener.fd) {
            Taken::Socket(fd) => {
                self.reserve.eases();
                // Before it is laid down: from then on the loop may grant the next one, and arm.
                shared.disarm();
                let counted = shared.part.as_ref().map(Part::count);
                self.holds = 0;
                self.hold();
                shared.lay_down(fd, listener.speech, counted, self.pause.is_some());
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::accept::Balance;

    fn thread(beat: &Beat) -> (Acceptor, std::net::SocketAddr) {
        thread_of(None, beat)
    }

    fn thread_of(part: Option<Part>, beat: &Beat) -> (Acceptor, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (text, speech) = (address.to_string(), Speech::default());
        let listener = Listener { fd: listener.into(), address: text, speech, backlog: None };
        let shared = Arc::new(Shared::new(Arc::new(vec![listener]), part).unwrap());
        let (ended, _receiver) = mpsc::channel(1);
        (Acceptor::new(shared, ended, beat.clone(), Slot::in_memory()), address)
    }

    /// How many connections a thread with three permits takes before the loop looks.
    fn taken_ahead(is_idle: bool, says: &[u8]) -> usize {
        let beat = Beat::new();
        beat.set_idle(is_idle);
        let (mut thread, address) = thread(&beat);
        let _clients = [(); 4].map(|()| {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(says).unwrap();
            client
        });
        thread.shared.grant(3).unwrap();
        for _ in 0..4 {
            assert!(thread.settle().unwrap());
            assert!(thread.once().unwrap());
        }
        std::iter::from_fn(|| thread.shared.pick_up()).count()
    }

    #[test]
    fn a_thread_takes_silent_clients_ahead_of_an_idle_loop_and_else_one() {
        assert_eq!(taken_ahead(true, b""), 3, "as many as it has permits for");
        assert_eq!(taken_ahead(false, b""), 1, "the loop is busy");
        assert_eq!(taken_ahead(true, b"GET"), 1, "the loop is called, and was idle until now");
        assert_eq!(taken_ahead(false, b"GET"), 1);
    }

    #[test]
    fn a_thread_that_is_ahead_leaves_the_next_client_to_others_for_a_moment() {
        let balance = Balance::new().unwrap();
        let [own, other] = [0, 1].map(|slot| balance.part(slot).unwrap());
        let (mut thread, address) = thread_of(Some(own), &Beat::new());
        let shared = Arc::clone(&thread.shared);
        let _clients = [(); 5].map(|()| TcpStream::connect(address).unwrap());
        let arms = || shared.lock().arms;
        other.waits(true);
        let mut taken = Vec::new();
        for expected in [Arms::Down, Arms::Down, Arms::Down, Arms::Held] {
            shared.grant(1).unwrap();
            assert!(thread.once().unwrap());
            assert_eq!(arms(), expected);
            taken.extend(shared.pick_up());
        }
        shared.grant(1).unwrap();
        assert_eq!(arms(), Arms::Held, "the loop does not arm it");
        while arms() == Arms::Held {
            assert!(thread.settle().unwrap());
        }
        assert!(thread.once().unwrap());
        taken.extend(shared.pick_up());
        assert_eq!(taken.len(), 5, "nobody else took it");
    }

    #[test]
    fn a_client_that_says_nothing_calls_the_loop_after_a_while() {
        for is_idle in [true, false] {
            let beat = Beat::new();
            beat.set_idle(is_idle);
            let (mut thread, address) = thread(&beat);
            let _silent = TcpStream::connect(address).unwrap();
            thread.shared.grant(2).unwrap();
            assert!(thread.once().unwrap());
            assert!(thread.settle().unwrap());
            let called = thread.shared.table.wait(&mut [EpollEvent::empty()], 10_000_u16);
            assert_eq!(called, Ok(1), "idle: {is_idle}");
        }
    }

    #[test]
    fn a_thread_that_is_armed_late_for_a_second_listener_takes_nothing() {
        let (mut thread, address) = thread(&Beat::new());
        let shared = Arc::clone(&thread.shared);
        let clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        let picked_up = || TcpStream::from(shared.pick_up()?.fd).peer_addr().ok();
        shared.grant(1).unwrap();
        assert!(thread.once().unwrap());
        shared.arm().unwrap(); // what the loop had not got to when the first connection came
        assert!(thread.once().unwrap());
        assert_eq!(picked_up(), clients[0].local_addr().ok(), "the second did not take its place");
        shared.grant(1).unwrap();
        assert!(thread.once().unwrap());
        assert_eq!(picked_up(), clients[1].local_addr().ok());
    }
}

//! The channel between the supervisor and one worker (S12): text datagrams over a SEQPACKET socket pair.
//! Unknown verbs are told as such: an old worker may live under a new supervisor.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, send, sendmsg, socketpair,
};

use crate::lifecycle::cause::Cause;

pub use crate::lifecycle::cause::Stage;

/// The worker's end. Orders arrive on [`Channel::orders`]; the end of the file means that the supervisor has died.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

impl Channel {
    /// Says that the service is built and that this worker can serve. Said once.
    pub fn ready(&self) {
        self.say("ready 1");
    }

    /// Says why this worker is about to exit before it could serve. The first 3,000 bytes are kept.
    pub fn failed(&self, stage: Stage, text: &str) {
        let stage = match stage {
            Stage::Boot => "boot",
            Stage::Load => "load",
        };
        let end = text.floor_char_boundary(3_000);
        self.say(&format!("failed {stage} {}", text.get(..end).unwrap_or_default()));
    }

    /// Says that the listeners are drained and closed.
    pub fn stopped(&self) {
        self.say("stopped");
    }

    /// Says that all connections have ended, `forced` of them cut at the deadline. The worker exits next.
    pub fn drained(&self, forced: u64) {
        self.say(&format!("drained forced={forced}"));
    }

    /// Asks to be replaced: `max_requests` are served. The worker serves on meanwhile.
    pub fn wants_recycle(&self) {
        self.say("recycle requests");
    }

    /// A descriptor on which orders arrive, one in each datagram: see [`Channel::parse`].
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn orders(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Reads one datagram; none is an order that this version does not know.
    pub fn parse(datagram: &[u8]) -> Option<Order> {
        let text = std::str::from_utf8(datagram).ok()?;
        let mut words = text.split(' ');
        let verb = words.next()?;
        let mut number = || words.next()?.parse::<u64>().ok().map(Duration::from_millis);
        match verb {
            "stop" => Some(Order::Stop { deadline: number()?, idle: number()? }),
            "drain" => Some(Order::Drain { deadline: number()?, idle: number()? }),
            "pause" => Some(Order::Pause),
            "resume" => Some(Order::Resume),
            "quit" => Some(Order::Quit),
            _ => None,
        }
    }

    /// A supervisor that is gone hears nothing, which the worker learns by the end of the file.
    fn say(&self, words: &str) {
        let _gone = post(self.fd.as_fd(), words);
    }
}

/// What the supervisor tells a worker.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Order {
    /// The whole server stops: serve what waits in the accept queue too, then as [`Order::Drain`].
    Stop {
        /// When the worker exits, whatever still runs.
        deadline: Duration,
        /// How long a connection may idle before it is closed.
        idle: Duration,
    },
    /// Lame duck: accept no more, answer what comes, close what idles for `idle`, be gone at `deadline`.
    Drain {
        /// When the worker exits, whatever still runs.
        deadline: Duration,
        /// How long a connection may idle before it is closed.
        idle: Duration,
    },
    /// Stop accepting; open connections go on.
    Pause,
    /// Accept again.
    Resume,
    /// Exit at once.
    Quit,
}

impl Order {
    fn text(self) -> String {
        match self {
            Self::Stop { deadline, idle } => {
                format!("stop {} {}", deadline.as_millis(), idle.as_millis())
            }
            Self::Drain { deadline, idle } => {
                format!("drain {} {}", deadline.as_millis(), idle.as_millis())
            }
            Self::Pause => "pause".to_owned(),
            Self::Resume => "resume".to_owned(),
            Self::Quit => "quit".to_owned(),
        }
    }
}

/// What a worker tells the supervisor.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum Word {
    Ready,
    Failed(Stage, String),
    Stopped,
    Drained(u64),
    /// It asks to be replaced, for its requests or for its age.
    Recycle(Cause),
    /// The answer to a dump: addresses of the thread that the loop runs on.
    Stack(String),
    /// Of another version; the verb.
    Unknown(String),
}

/// The supervisor's end.
#[derive(Debug)]
pub(crate) struct Line {
    fd: OwnedFd,
}

impl Line {
    pub(crate) fn pair() -> nix::Result<(Self, Channel)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self { fd: ours }, Channel { fd: theirs }))
    }

    /// One that another image has made.
    pub(crate) fn adopt(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// A worker that does not read its orders has them waiting; one that is dead needs none.
    pub(crate) fn order(&self, order: Order) {
        let _dead_or_deaf = post(self.fd.as_fd(), &order.text());
    }

    /// Has the worker serve what waits in the accept queue of a socket that nobody else accepts from, and then close it.
    pub(crate) fn hand_over(&self, socket: &OwnedFd) -> nix::Result<()> {
        let words = [IoSlice::new(b"empty")];
        let sockets = [socket.as_raw_fd()];
        let with = [ControlMessage::ScmRights(&sockets)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.fd.as_raw_fd(), &words, &with, flags, None).map(drop)
    }

    /// All words that arrived, and whether the worker has hung up.
    pub(crate) fn read(&self) -> (Vec<Word>, HungUp) {
        let mut words = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return (words, HungUp::Yes),
                Ok(len) => words.push(word(buffer.get(..len).unwrap_or_default())),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return (words, HungUp::No),
                Err(_broken) => return (words, HungUp::Yes),
            }
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether the other end is closed.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum HungUp {
    Yes,
    No,
}

fn post(fd: BorrowedFd<'_>, words: &str) -> nix::Result<usize> {
    send(fd.as_raw_fd(), words.as_bytes(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
}

fn word(datagram: &[u8]) -> Word {
    let text = String::from_utf8_lossy(datagram);
    let (verb, rest) = text.split_once(' ').unwrap_or((&text, ""));
    match verb {
        "ready" => Word::Ready,
        "stopped" => Word::Stopped,
        "recycle" if rest == "lifetime" => Word::Recycle(Cause::Lifetime),
        "recycle" => Word::Recycle(Cause::Requests),
        "stack" => Word::Stack(rest.to_owned()),
        "drained" => Word::Drained(
            rest.strip_prefix("forced=").and_then(|n| n.parse().ok()).unwrap_or_default(),
        ),
        "failed" => match rest.split_once(' ') {
            Some(("load", text)) => Word::Failed(Stage::Load, text.to_owned()),
            Some((_, text)) => Word::Failed(Stage::Boot, text.to_owned()),
            None => Word::Failed(Stage::Boot, rest.to_owned()),
        },
        _ => Word::Unknown(verb.chars().take(40).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_orders_arrive_whole_and_in_order() {
        let (line, channel) = Line::pair().expect("a socket pair");
        channel.failed(Stage::Load, "no database at db:5432");
        channel.ready();
        channel.stopped();
        channel.drained(3);
        channel.wants_recycle();
        channel.say("dance slowly");
        let expected = [
            Word::Failed(Stage::Load, "no database at db:5432".into()),
            Word::Ready,
            Word::Stopped,
            Word::Drained(3),
            Word::Recycle(Cause::Requests),
            Word::Unknown("dance".into()),
        ];
        assert_eq!(line.read(), (expected.to_vec(), HungUp::No));
        let order =
            Order::Drain { deadline: Duration::from_secs(30), idle: Duration::from_millis(300) };
        line.order(order);
        let mut buffer = [0; 64];
        let orders = channel.orders().expect("a descriptor");
        let len = recv(orders.as_raw_fd(), &mut buffer, MsgFlags::empty()).expect("an order");
        assert_eq!(Channel::parse(&buffer[..len]), Some(order));
        drop((channel, orders));
        assert_eq!(line.read(), (Vec::new(), HungUp::Yes));
    }

    #[test]
    fn foreign_bytes_are_no_order_and_no_panic() {
        for bytes in [&b""[..], b"drain", b"drain x y", b"drain 1", b"\xff\xfe", b"dance"] {
            assert_eq!(Channel::parse(bytes), None);
        }
        assert_eq!(word(b"\xff"), Word::Unknown("\u{fffd}".into()));
        assert_eq!(word(b"failed"), Word::Failed(Stage::Boot, String::new()));
    }

    #[test]
    fn a_long_reason_is_cut_inside_no_character() {
        let (line, channel) = Line::pair().expect("a socket pair");
        channel.failed(Stage::Boot, &"é".repeat(4_000));
        let (words, _) = line.read();
        let Some(Word::Failed(Stage::Boot, text)) = words.first() else { panic!("{words:?}") };
        assert_eq!(text.len(), 3_000);
    }
}

//! The sockets of one address: one that all workers share, or with `reuse_port` one for each accept queue.
//!
//! The kernel deals connections to all sockets that listen on the address, whoever accepts from them. So one begins to
//! listen with its first worker, and is turned away from before it is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockaddrLike as _, SockaddrStorage, bind, getsockname, getsockopt, setsockopt,
    sockopt,
};

use super::{closing, open, queue};
use crate::descriptors::copy_descriptor;
use crate::lifecycle::event::QueueNumber;
use crate::upgrade::{Inherited, state};

#[derive(Debug)]
pub(super) enum Sockets {
    /// One queue for all.
    Shared(OwnedFd),
    /// All bound to one address, with `SO_REUSEPORT`. Never empty.
    Own { by_queue: BTreeMap<QueueNumber, OwnedFd>, backlog: u32 },
}

impl Sockets {
    /// Makes the first of many of a socket that is alone on its address: no second server could have joined it.
    pub(super) fn own(first: OwnedFd, backlog: u32) -> nix::Result<Self> {
        setsockopt(&first, sockopt::ReusePort, &true)?;
        Ok(Self::Own { by_queue: BTreeMap::from([(QueueNumber(0), first)]), backlog })
    }

    /// All that are open.
    pub(super) fn all(&self) -> Box<dyn Iterator<Item = &OwnedFd> + '_> {
        match self {
            Self::Shared(socket) => Box::new(std::iter::once(socket)),
            Self::Own { by_queue, .. } => Box::new(by_queue.values()),
        }
    }

    /// The one that a worker with this queue accepts from.
    pub(super) fn of(&self, queue: QueueNumber) -> Option<&OwnedFd> {
        match self {
            Self::Shared(socket) => Some(socket),
            Self::Own { by_queue, .. } => by_queue.get(&queue),
        }
    }

    /// How many connections may wait in a socket that its worker has to begin to listen on.
    pub(super) fn backlog(&self) -> Option<u32> {
        match self {
            Self::Shared(_) => None,
            Self::Own { backlog, .. } => Some(*backlog),
        }
    }

    /// The same, which is made if there is none.
    pub(super) fn ensure(&mut self, queue: QueueNumber) -> nix::Result<&OwnedFd> {
        match self {
            Self::Shared(socket) => Ok(socket),
            Self::Own { by_queue, .. } => {
                let example = by_queue.values().next().ok_or(Errno::EADDRNOTAVAIL)?;
                let fresh =
                    if by_queue.contains_key(&queue) { None } else { Some(beside(example)?) };
                by_queue.extend(fresh.map(|socket| (queue, socket)));
                by_queue.get(&queue).ok_or(Errno::EADDRNOTAVAIL)
            }
        }
    }

    /// Gives up all that nobody holds, but for the last. No handshake begins there any more; what waits is to be served.
    pub(super) fn give_up(&mut self, held: &BTreeSet<QueueNumber>) -> Vec<OwnedFd> {
        let Self::Own { by_queue, .. } = self else { return Vec::new() };
        if !by_queue.keys().any(|queue| held.contains(queue)) {
            return Vec::new();
        }
        let left = by_queue.extract_if(.., |queue, _| !held.contains(queue));
        let left: Vec<OwnedFd> = left.map(|(_, socket)| socket).collect();
        for socket in &left {
            // Without socket filters a client may meet the close.
            let _race_stays = closing::turn_away(socket);
        }
        left
    }

    /// For the next image.
    pub(super) fn hand_over<'a>(&'a self, open: &mut Inherited<'a>) -> state::Sockets {
        match self {
            Self::Shared(socket) => state::Sockets::Shared(open.keep(socket.as_fd())),
            Self::Own { by_queue, backlog } => state::Sockets::Own {
                by_queue: by_queue
                    .iter()
                    .map(|(&queue, socket)| (queue, open.keep(socket.as_fd())))
                    .collect(),
                backlog: *backlog,
            },
        }
    }

    /// Those of another image.
    pub(super) fn adopt(sockets: &state::Sockets) -> nix::Result<Self> {
        match sockets {
            state::Sockets::Shared(socket) => copy_descriptor(*socket).map(Self::Shared),
            state::Sockets::Own { by_queue, backlog } => {
                let copy = |&(queue, socket)| Ok((queue, copy_descriptor(socket)?));
                let by_queue = by_queue.iter().map(copy).collect::<nix::Result<_>>()?;
                Ok(Self::Own { by_queue, backlog: *backlog })
            }
        }
    }

    /// Who waits in all of them together, and how many may.
    pub(super) fn queue(&self) -> Option<queue::Queue> {
        self.all().filter_map(queue::of).reduce(|a, b| queue::Queue {
            waiting: a.waiting.saturating_add(b.waiting),
            limit: a.limit.saturating_add(b.limit),
        })
    }
}

/// A socket on the same address, which does not listen yet and so gets no connection.
fn beside(example: &OwnedFd) -> nix::Result<OwnedFd> {
    let address: SockaddrStorage = getsockname(example.as_raw_fd())?;
    let family = address.family().unwrap_or(AddressFamily::Inet);
    let socket = open(family)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    if family == AddressFamily::Inet6 {
        setsockopt(
            &socket,
            sockopt::Ipv6V6Only,
            &getsockopt(&example.as_fd(), sockopt::Ipv6V6Only)?,
        )?;
    }
    bind(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::sys::socket::{Backlog, listen};

    use super::*;

    fn waiting(socket: &OwnedFd) -> u32 {
        queue::of(socket).expect("a TCP socket").waiting
    }

    #[test]
    fn a_queue_gets_connections_from_when_it_listens_until_it_is_given_up() {
        let first = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = first.local_addr().expect("an address");
        let mut sockets = Sockets::own(first.into(), 128).expect("a kernel with SO_REUSEPORT");
        let (one, two) = (QueueNumber(0), QueueNumber(1));
        sockets.ensure(two).expect("a second socket on the port");
        let connect = |count: usize| -> Vec<TcpStream> {
            (0..count).map(|_| TcpStream::connect(address).expect("a connection")).collect()
        };
        let _before = connect(16);
        assert_eq!(sockets.of(one).map(waiting), Some(16), "the second does not listen");
        listen(sockets.of(two).expect("it is open"), Backlog::new(128).expect("a backlog"))
            .expect("it listens");
        // That none of 64 is dealt to it has a chance of 2^-64.
        let _between = connect(64);
        let dealt = sockets.of(two).map(waiting).expect("it is open");
        assert!(dealt > 0, "the kernel deals to both");
        assert_eq!(sockets.queue().map(|queue| queue.waiting), Some(80));
        let left = sockets.give_up(&BTreeSet::from([one]));
        assert_eq!(left.iter().map(waiting).collect::<Vec<_>>(), [dealt], "what waits is kept");
        assert!(sockets.of(two).is_none());
        assert!(sockets.give_up(&BTreeSet::new()).is_empty(), "the last one stays");
    }

    #[test]
    fn a_second_server_is_refused_though_the_port_is_shared() {
        let first = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = first.local_addr().expect("an address");
        let _sockets = Sockets::own(first.into(), 128).expect("a kernel with SO_REUSEPORT");
        assert!(TcpListener::bind(address).is_err());
    }
}

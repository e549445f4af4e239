//! What a worker is told from outside: signals, and datagrams of its supervisor.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, getsockname, recvmsg};

use crate::accept::{Listener, Speech};
use crate::config::Config;
use crate::drain::{Order, Orders};
use crate::readiness::watch;

/// Blocks every signal that means something to a Saola process, so that it is read and not suffered.
///
/// Threads made later inherit this; a child process that the application starts gets an empty mask from the standard library.
pub(crate) fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGQUIT,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
    ] {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// Turns signals into orders, for as long as the worker lives.
pub(crate) async fn obey_signals(signals: SignalFd, orders: Orders) -> io::Result<()> {
    let readiness = watch(signals.as_fd().try_clone_to_owned()?)?;
    loop {
        let mut ready = readiness.readable().await?;
        match signals.read_signal()? {
            None => ready.clear_ready(),
            Some(info) => {
                let signal = i32::try_from(info.ssi_signo).ok();
                // The whole process group gets the others; only the supervisor acts on them.
                if signal.and_then(|number| Signal::try_from(number).ok()) == Some(Signal::SIGQUIT)
                {
                    orders.give(Order::Quit);
                }
            }
        }
    }
}

/// Turns TERM into an order to stop: its handler rings this bell.
pub(crate) async fn obey_term(bell: EventFd, orders: Orders, config: &Config) -> io::Result<()> {
    let bell = watch(bell.as_fd().try_clone_to_owned()?)?;
    // Once is enough: nothing follows a stop.
    let _ready = bell.readable().await?;
    orders.give(Order::Stop { deadline: config.graceful_timeout });
    std::future::pending().await
}

/// Turns the supervisor's datagrams into orders. Its end of the channel closed means that it has died.
pub(crate) async fn obey_supervisor(
    control: OwnedFd,
    parse: fn(&[u8]) -> Option<Order>,
    orders: Orders,
    config: &Config,
    speech: &Speeches,
) -> io::Result<()> {
    let control = watch(control)?;
    let mut datagram = [0; 4096];
    loop {
        let mut readiness = control.readable().await?;
        match receive(control.get_ref(), &mut datagram) {
            Err(Errno::EAGAIN) => readiness.clear_ready(),
            Err(Errno::EINTR) => {}
            Ok((0, _)) | Err(_) => {
                orders.give(Order::Stop { deadline: config.graceful_timeout });
                return Ok(());
            }
            Ok((_, Some(socket))) => orders.empty(speech.listener(socket)),
            Ok((length, None)) => {
                if let Some(order) = datagram.get(..length).and_then(parse) {
                    orders.give(order);
                }
            }
        }
    }
}

/// What is spoken at which address, for sockets that come later.
pub(crate) struct Speeches(Vec<(SockaddrStorage, String, Speech)>);

impl Speeches {
    /// A socket is known by the name that the kernel gives it: one address can be written in several ways.
    pub(crate) fn of(listeners: &[Listener]) -> Self {
        let known = listeners.iter().filter_map(|listener| {
            let name = getsockname(listener.fd.as_raw_fd()).ok()?;
            Some((name, listener.address.clone(), listener.speech))
        });
        Self(known.collect())
    }

    fn listener(&self, fd: OwnedFd) -> Listener {
        let name = getsockname(fd.as_raw_fd()).ok();
        let known = self.0.iter().find(|(of, ..)| Some(of) == name.as_ref());
        let (address, speech) = match known {
            Some((_, address, speech)) => (address.clone(), *speech),
            None => (name.as_ref().map(ToString::to_string).unwrap_or_default(), Speech::default()),
        };
        Listener { fd, address, speech, backlog: None }
    }
}

/// One datagram, and the socket that may come with it.
fn receive(control: &OwnedFd, datagram: &mut [u8]) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut room = nix::cmsg_space!(RawFd);
    let mut parts = [IoSliceMut::new(datagram)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(control.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
    let mut socket = None;
    for with in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = with {
            socket = numbers.first().copied().map(adopt);
        }
    }
    Ok((message.bytes, socket))
}

#[expect(unsafe_code, reason = "nix gives a socket that came with a datagram as a number")]
#[expect(clippy::disallowed_methods, reason = "where such a socket gets its owner")]
fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: the descriptor must be open and owned by nobody else. recvmsg has just made it, and only this call has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::ProxyProtocol;

    #[test]
    fn a_socket_that_comes_later_speaks_as_its_address_does() {
        let speech = Speech { proxy: ProxyProtocol::default(), tls: true };
        let [own, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let again = own.try_clone().unwrap();
        // As an address with a zone is written, which the kernel's name for it leaves out.
        let address = "127.0.0.1%lo:0".to_owned();
        let known = Listener { fd: own.into(), address: address.clone(), speech, backlog: None };
        let speeches = Speeches::of(&[known]);
        let again = speeches.listener(again.into());
        assert_eq!((again.address, again.speech), (address, speech));
        assert_eq!(speeches.listener(other.into()).speech, Speech::default());
    }
}

//! Sockets that whoever started us has opened: `fd://3`, and those of `LISTEN_FDS` (section 10).

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{SockType, SockaddrStorage, getsockname, getsockopt, sockopt};

use super::ListenError;
use crate::descriptors::copy_descriptor;

/// Takes a copy of an inherited descriptor, if it is a listening stream socket. It is not unlinked, chmod-ed or
/// listened on anew.
pub(super) fn adopt(number: RawFd) -> Result<(OwnedFd, String), ListenError> {
    let refuse = || ListenError::Inherited { number };
    let fd = copy_descriptor(number).map_err(|_| refuse())?;
    let is_stream = getsockopt(&fd, sockopt::SockType).is_ok_and(|kind| kind == SockType::Stream);
    let listens = getsockopt(&fd, sockopt::AcceptConn).unwrap_or_default();
    if !is_stream || !listens {
        return Err(refuse());
    }
    let name: SockaddrStorage = getsockname(fd.as_raw_fd()).map_err(|_| refuse())?;
    let flags = fcntl(&fd, FcntlArg::F_GETFL).map_err(|_| refuse())?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(&fd, FcntlArg::F_SETFL(flags)).map_err(|_| refuse())?;
    Ok((fd, text_of(&name, number)))
}

fn text_of(name: &SockaddrStorage, number: RawFd) -> String {
    if let Some(name) = name.as_sockaddr_in() {
        return name.to_string();
    }
    if let Some(name) = name.as_sockaddr_in6() {
        return std::net::SocketAddrV6::from(*name).to_string();
    }
    let path = name.as_unix_addr().and_then(|name| name.path());
    path.map_or_else(|| format!("fd://{number}"), |path| format!("unix:{}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn only_listening_stream_sockets_are_adopted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_adopted, address) = adopt(listener.as_raw_fd()).unwrap();
        assert_eq!(address, listener.local_addr().unwrap().to_string());
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in [udp.as_raw_fd(), 9_999, -1] {
            let error = adopt(number).unwrap_err().to_string();
            assert!(error.contains("is not a listening socket"), "{error}");
        }
    }
}

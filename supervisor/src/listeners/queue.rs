//! How full a listening socket is: `TCP_INFO` says it for TCP; for unix sockets nobody does.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::libc;

/// The accept queue of one socket.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Queue {
    pub(crate) waiting: u32,
    pub(crate) limit: u32,
}

/// Of a listener, `tcpi_unacked` is the length of the queue and `tcpi_sacked` its limit.
pub(crate) fn of(socket: &OwnedFd) -> Option<Queue> {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut size = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    let descriptor = socket.as_raw_fd();
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    #[expect(unsafe_code, reason = "nix has no TCP_INFO")]
    // SAFETY: getsockopt(2) writes at most `size` bytes to a place of that size on this stack.
    let result = unsafe {
        libc::getsockopt(descriptor, level, name, info.as_mut_ptr().cast(), &raw mut size)
    };
    if result != 0 {
        return None;
    }
    #[expect(unsafe_code, reason = "as above")]
    // SAFETY: assume_init wants a valid value: all zeros are one for a struct of integers, whatever was written over them.
    let info = unsafe { info.assume_init() };
    Some(Queue { waiting: info.tcpi_unacked, limit: info.tcpi_sacked })
}

/// Connections that found a full queue, in this network namespace, since the machine started.
pub(crate) fn overflows() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/net/netstat").ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|name| name == "ListenOverflows")?;
    values.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_queue_counts_who_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = OwnedFd::from(listener);
        assert_eq!(of(&socket).map(|queue| queue.waiting), Some(0));
        let _clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        assert_eq!(of(&socket).map(|queue| queue.waiting), Some(2));
        assert!(overflows().is_some());
    }
}

//! How a TCP socket stops listening without a reset: first no new handshake begins, then the queue is emptied, then it closes.
//!
//! Between the last accept and the close a handshake could complete, and its client would see a reset for a request that it
//! has sent. A filter that drops SYN leaves nothing to race with: whoever comes later is refused once the socket is closed,
//! when its SYN is sent again, and a refused connection may be retried safely.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// Drops what asks for a new connection; what completes one that has begun still passes.
///
/// # Errors
///
/// The socket is no TCP socket, or the kernel has no socket filters: then the race stays.
pub(crate) fn turn_away(socket: impl AsFd) -> nix::Result<()> {
    let mut program = DROP_SYN;
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let size =
        libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).map_err(|_| Errno::EINVAL)?;
    let descriptor = socket.as_fd().as_raw_fd();
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    #[expect(unsafe_code, reason = "nix has no socket filters")]
    // SAFETY: setsockopt(2) reads a sock_fprog of `size` bytes, which is on this stack, and through it `len` instructions,
    // which are too; it copies both before it returns.
    let result =
        unsafe { libc::setsockopt(descriptor, level, name, (&raw const filter).cast(), size) };
    Errno::result(result).map(drop)
}

/// Classic BPF over the TCP header: SYN without ACK is dropped, all else is kept whole.
const DROP_SYN: [libc::sock_filter; 5] = [
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 13), // the flags
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, 0x12), // SYN and ACK of them
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 0x02), // SYN alone?
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
];

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "opcodes are 16 bits wide; libc types them wider"
)]
const fn instruction(code: u32, jump_true: u8, jump_false: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: jump_true, jf: jump_false, k }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn nobody_new_comes_in_and_whoever_is_in_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let early = TcpStream::connect(address).unwrap();
        turn_away(&listener).unwrap();
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(50));
        assert_eq!(late.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(accepted.peer_addr().unwrap(), early.local_addr().unwrap());
        drop(listener);
        assert_eq!(
            TcpStream::connect(address).unwrap_err().kind(),
            std::io::ErrorKind::ConnectionRefused
        );
    }
}

//! Starts a program to which the kernel refuses space as it does to a user who has used up a quota. Path and arguments are its
//! own arguments.
#![expect(clippy::unwrap_used, reason = "a program for tests")]

#[path = "../../observability/tests/calls/filter.rs"]
mod filter;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;

fn main() -> io::Result<()> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().unwrap();
    let refused = libc::SECCOMP_RET_ERRNO | libc::EDQUOT.cast_unsigned();
    filter::filter(&[libc::SYS_fallocate], refused, libc::SECCOMP_RET_ALLOW);
    Err(Command::new(program).args(words).exec())
}

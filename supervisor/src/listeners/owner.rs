//! Who holds an address: found by the socket's inode, as far as this user may see.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// `nginx (pid 812)`, or that it cannot be seen.
pub(super) fn of_tcp(address: SocketAddr) -> String {
    let inodes = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .flat_map(|table| listening_on(table, address));
    describe(inodes)
}

pub(super) fn of_unix(name: &str) -> String {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let inodes: Vec<u64> = table
        .lines()
        .filter(|line| line.rsplit(' ').next() == Some(name))
        .filter_map(|line| line.split_ascii_whitespace().nth(6)?.parse().ok())
        .collect();
    describe(inodes)
}

/// Inodes of sockets in state LISTEN on the port, at this address or at all.
fn listening_on(table: &str, address: SocketAddr) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let text = fs::read_to_string(table).unwrap_or_default();
    let wanted = hex(address.ip());
    let lines = text.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (ip, port) = columns.next()?.split_once(':')?;
        let state = columns.nth(1)?;
        let inode = columns.nth(5)?.parse().ok()?;
        let is_all = ip.chars().all(|digit| digit == '0') || address.ip().is_unspecified();
        let is_here = is_all || ip == wanted;
        (state == LISTEN && is_here && u16::from_str_radix(port, 16) == Ok(address.port()))
            .then_some(inode)
    });
    lines.collect()
}

/// As the kernel prints it: words of 32 bits in the machine's order.
fn hex(ip: IpAddr) -> String {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words =
        bytes.chunks_exact(4).filter_map(|word| word.try_into().ok()).map(u32::from_ne_bytes);
    words.fold(String::new(), |text, word| format!("{text}{word:08X}"))
}

fn describe(inodes: impl IntoIterator<Item = u64>) -> String {
    let wanted: Vec<String> = inodes.into_iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter(|_| !wanted.is_empty()) {
        let path = process.path();
        let name = process.file_name();
        // `self` and `thread-self` are somebody's number as well.
        let is_process = name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
        if !is_process || !holds(&path, &wanted) {
            continue;
        }
        let program = fs::read_to_string(path.join("comm")).unwrap_or_default();
        return format!("{} (pid {})", program.trim_end(), name.to_string_lossy());
    }
    "another process (not visible to this user)".to_owned()
}

fn holds(process: &Path, wanted: &[String]) -> bool {
    let fds = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|target| wanted.iter().any(|wanted| target.as_os_str() == wanted.as_str()))
}

//! What `--bind` may say.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

/// An address to listen on.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Bind {
    /// `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000`; `:8000` is every IPv4 address. Port 0 lets the system choose.
    Tcp {
        /// An address without brackets, or a name that is resolved once, at boot.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:/run/x.sock`.
    UnixPath(PathBuf),
    /// `unix:@name`, without a file.
    UnixAbstract(String),
    /// `fd://3`: a listening descriptor that was inherited.
    Inherited(i32),
    /// `systemd`: all sockets of `LISTEN_FDS`.
    Systemd,
    /// `systemd:NAME`: those of that name.
    SystemdNamed(String),
}

impl Bind {
    /// It takes `port` on IPv4.
    pub(super) fn is_ipv4_on(&self, wanted: u16) -> bool {
        match self {
            Self::Tcp { host, port } => {
                *port == wanted && host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4())
            }
            Self::UnixPath(_)
            | Self::UnixAbstract(_)
            | Self::Inherited(_)
            | Self::Systemd
            | Self::SystemdNamed(_) => false,
        }
    }
}

/// A text that names no address.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is no address: {why}")]
pub struct BindError {
    text: String,
    why: &'static str,
}

impl FromStr for Bind {
    type Err = BindError;

    fn from_str(text: &str) -> Result<Self, BindError> {
        let fail = |why| BindError { text: text.to_owned(), why };
        if text == "systemd" {
            return Ok(Self::Systemd);
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            return match name {
                "" => Err(fail("a socket of systemd has a name")),
                name => Ok(Self::SystemdNamed(name.to_owned())),
            };
        }
        if let Some(number) = text.strip_prefix("fd://") {
            let number = number.parse().ok().filter(|number| *number > 2);
            return number
                .map(Self::Inherited)
                .ok_or_else(|| fail("a descriptor is a number from 3 on"));
        }
        if let Some(name) = text.strip_prefix("unix:") {
            return match name.strip_prefix('@') {
                Some(name) if !name.is_empty() && name.len() <= LONGEST_UNIX => {
                    Ok(Self::UnixAbstract(name.to_owned()))
                }
                // Room for `.new`, under which the socket is bound before it is renamed.
                None if !name.is_empty() && name.len() + ".new".len() <= LONGEST_UNIX => {
                    Ok(Self::UnixPath(PathBuf::from(name)))
                }
                Some(_) | None => Err(fail("a unix socket has a name of 1 to 103 bytes")),
            };
        }
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| fail("write it as host:port or unix:/path"))?;
        let port = port.parse().map_err(|_| fail("a port is a number from 0 to 65535"))?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner.to_owned(),
            Some(_) => return Err(fail("brackets hold an IPv6 address")),
            None if host.is_empty() => Ipv4Addr::UNSPECIFIED.to_string(),
            None if host.contains(':') => return Err(fail("an IPv6 address stands in brackets")),
            None if host.contains(|c: char| c.is_whitespace() || "/[]@".contains(c)) => {
                return Err(fail("a host has no such characters"));
            }
            None => host.to_owned(),
        };
        Ok(Self::Tcp { host, port })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::UnixPath(path) => write!(f, "unix:{}", path.display()),
            Self::UnixAbstract(name) => write!(f, "unix:@{name}"),
            Self::Inherited(number) => write!(f, "fd://{number}"),
            Self::Systemd => f.write_str("systemd"),
            Self::SystemdNamed(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// `sun_path` has 108 bytes, one of which ends it.
const LONGEST_UNIX: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_they_are_read() {
        for text in [
            "127.0.0.1:8000",
            "[::1]:8000",
            "localhost:0",
            "unix:/run/x.sock",
            "unix:@name",
            "fd://3",
            "systemd",
            "systemd:web",
        ] {
            assert_eq!(text.parse::<Bind>().expect(text).to_string(), text);
        }
        assert_eq!(":8000".parse::<Bind>().expect("a port").to_string(), "0.0.0.0:8000");
    }

    #[test]
    fn what_is_no_address_says_why() {
        for text in [
            "",
            "8000",
            "localhost",
            "localhost:http",
            "::1:80",
            "[x]:1",
            "h:70000",
            "unix:",
            "unix:@",
            "systemd:",
            "a b:1",
            "fd://x",
            "fd://2",
        ] {
            let error = text.parse::<Bind>().expect_err(text).to_string();
            assert!(error.contains("is no address: "), "{error}");
        }
        assert!(format!("unix:/{}", "x".repeat(120)).parse::<Bind>().is_err());
    }
}

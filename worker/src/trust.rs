//! Whose word about a client is believed: the addresses of our own proxies.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// The proxies that may name the client they speak for. Default: this machine, `127.0.0.1,::1`.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Trusted {
    /// Whoever connects: for a server that only its proxy can reach.
    Everyone,
    /// Those with an address in one of these networks.
    Networks(Vec<IpNet>),
}

/// A text that is neither an address nor a network.
#[derive(Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[error("{0:?} is neither an address nor a network like 10.0.0.0/8")]
pub struct NoNetwork(String);

impl Trusted {
    /// Says whether the other end is trusted. `None` is a unix socket, which the file system guards.
    pub fn includes(&self, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::Everyone, _) | (_, None) => true,
            (Self::Networks(networks), Some(address)) => {
                let address = address.to_canonical();
                networks.iter().any(|network| network.contains(&address))
            }
        }
    }
}

impl Default for Trusted {
    fn default() -> Self {
        let here = [IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
        Self::Networks(here.map(IpNet::from).to_vec())
    }
}

impl FromStr for Trusted {
    type Err = NoNetwork;

    /// Reads `*`, or addresses and networks with commas between them. Nothing at all is nobody.
    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        if text.trim() == "*" {
            return Ok(Self::Everyone);
        }
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let networks = parts.map(|part| {
            let address = part.parse().map(|address: IpAddr| IpNet::from(address.to_canonical()));
            address.or_else(|_| part.parse()).map_err(|_| NoNetwork(part.to_owned()))
        });
        networks.collect::<Result<_, _>>().map(Self::Networks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let ip = |text: &str| Some(text.parse().unwrap());
        let trusted: Trusted = "10.0.0.0/8, ::1,192.168.1.7".parse().unwrap();
        for (address, is_trusted) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("::1", true),
            ("192.168.1.7", true),
            ("192.168.1.8", false),
            ("11.0.0.1", false),
        ] {
            assert_eq!(trusted.includes(ip(address)), is_trusted, "{address}");
        }
        assert!(trusted.includes(None), "a unix socket");
        assert!("*".parse::<Trusted>().unwrap().includes(ip("8.8.8.8")));
        assert!(!"".parse::<Trusted>().unwrap().includes(ip("127.0.0.1")));
        assert!(Trusted::default().includes(ip("127.0.0.1")));
        assert!("10.0.0.0/33".parse::<Trusted>().is_err());
    }
}

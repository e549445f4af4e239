//! What clients of a listener begin with: TLS and PROXY headers, and whose word about the client is believed.

use std::path::PathBuf;

use saola_worker::{
    ClientAuth, Pair, ProxyProtocol, Speech, TlsError, TlsSettings, TlsVersion, Trusted, chain,
};

use crate::settings::mistake::Mistake;
use crate::settings::value::Values;

/// Which listener speaks what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listening {
    /// Empty: all that are no unix sockets.
    tls: Vec<String>,
    /// For those that are named, and for the rest.
    proxy: Vec<(Option<String>, ProxyProtocol)>,
}

impl Listening {
    pub(crate) fn read(values: &mut Values<'_>) -> Self {
        let tls = values.sources.of("tls_bind").texts;
        if !tls.is_empty() && values.text("certfile").is_none() {
            values.refuse("tls_bind", "means nothing without certfile");
        }
        let found = values.sources.of("proxy_protocol");
        let mut proxy = Vec::new();
        for text in &found.texts {
            let (address, mode) = match text.rsplit_once('=') {
                Some((address, mode)) => (Some(address.to_owned()), mode),
                None => (None, text.as_str()),
            };
            if let Some(version) = version(mode) {
                proxy.push((address, version));
            } else {
                let what = "is not one of off, v1, v2, auto, or ADDR= before one of these";
                values.mistakes.push(Mistake::new("proxy_protocol", text, &found.source, what));
            }
        }
        Self { tls, proxy }
    }

    /// Of the listener at this address, as the supervisor writes it.
    pub(crate) fn speech(&self, address: &str) -> Speech {
        let is_unix = address.starts_with("unix:");
        let named =
            self.proxy.iter().find(|(of, _)| of.as_deref().is_some_and(|of| is(address, of)));
        let rest = || self.proxy.iter().find(|(of, _)| of.is_none());
        Speech {
            proxy: named.or_else(rest).map_or(ProxyProtocol::Off, |(_, version)| *version),
            tls: if self.tls.is_empty() {
                !is_unix
            } else {
                self.tls.iter().any(|of| is(address, of))
            },
        }
    }
}

/// Whether a listener's address is the one that was written: whole, or as `:port`.
fn is(address: &str, written: &str) -> bool {
    address == written || (written.starts_with(':') && address.ends_with(written))
}

fn version(text: &str) -> Option<ProxyProtocol> {
    match text {
        "off" => Some(ProxyProtocol::Off),
        "v1" => Some(ProxyProtocol::V1),
        "v2" => Some(ProxyProtocol::V2),
        "auto" => Some(ProxyProtocol::Auto),
        _ => None,
    }
}

/// Certificates and what is asked of clients; `None` without a certificate.
pub(crate) fn tls(values: &mut Values<'_>) -> Option<TlsSettings> {
    let client_auth =
        values.parsed("client_auth", "one of off, optional, required", ClientAuth::Off, |text| {
            match text {
                "off" => Some(ClientAuth::Off),
                "optional" => Some(ClientAuth::Optional),
                "required" => Some(ClientAuth::Required),
                _ => None,
            }
        });
    let oldest = values.parsed("tls_min", "one of 1.2, 1.3", TlsVersion::V1_2, |text| match text {
        "1.2" => Some(TlsVersion::V1_2),
        "1.3" => Some(TlsVersion::V1_3),
        _ => None,
    });
    let files = |name| -> Vec<PathBuf> {
        values.sources.of(name).texts.into_iter().map(PathBuf::from).collect()
    };
    let (certificates, mut keys) = (files("certfile"), files("keyfile"));
    let client_ca = values.text("client_ca").map(PathBuf::from);
    if keys.is_empty() {
        keys.clone_from(&certificates);
    }
    if keys.len() != certificates.len() {
        values.refuse("keyfile", "needs a certfile for each, in the same order");
    }
    if client_auth != ClientAuth::Off && client_ca.is_none() {
        values.refuse("client_auth", "needs client_ca");
    }
    let pairs = certificates.into_iter().zip(keys);
    let pairs: Vec<_> = pairs.map(|(certificate, key)| Pair { certificate, key }).collect();
    (!pairs.is_empty()).then_some(TlsSettings { pairs, client_ca, client_auth, oldest })
}

/// Networks of proxies.
pub(crate) fn trusted(values: &mut Values<'_>, name: &str) -> Trusted {
    let text = values.sources.of(name).texts.join(",");
    text.parse().unwrap_or_else(|error| {
        values.refuse(name, &format!("is no list of networks: {error}"));
        Trusted::default()
    })
}

/// What is wrong with the files of certificates, as a mistake in the settings.
pub(crate) fn check(settings: Option<&TlsSettings>) -> Result<(), Mistake> {
    settings.map_or(Ok(()), TlsSettings::check).map_err(|error| {
        let (setting, file) = match &error {
            TlsError::File { path, .. } | TlsError::Unusable { path, .. } => {
                ("certfile", path.as_path())
            }
            TlsError::Mismatch { key, .. } => ("keyfile", key.as_path()),
            _ => ("client_ca", std::path::Path::new("")),
        };
        let what = format!("is of no use: {}", chain(&error));
        Mistake::new(setting, &file.to_string_lossy(), &"its file", &what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::source::{Environment, Sources};

    fn listening(variables: &[(&str, &str)]) -> (Listening, usize) {
        let sources = Sources::gather(None, &Environment::of(variables), &mut Vec::new());
        let mut values = Values { sources: &sources, mistakes: Vec::new() };
        (Listening::read(&mut values), values.mistakes.len())
    }

    #[test]
    fn each_listener_speaks_what_is_said_of_it() {
        let (listening, mistakes) = listening(&[
            ("SAOLA_CERTFILE", "x"),
            ("SAOLA_TLS_BIND", ":443,unix:/x"),
            ("SAOLA_PROXY_PROTOCOL", "[::1]:80=v2,auto"),
        ]);
        assert_eq!(mistakes, 0);
        let speech = |address| {
            let speech = listening.speech(address);
            (speech.tls, speech.proxy)
        };
        assert_eq!(speech("0.0.0.0:443"), (true, ProxyProtocol::Auto));
        assert_eq!(speech("[::1]:80"), (false, ProxyProtocol::V2));
        assert_eq!(speech("unix:/x"), (true, ProxyProtocol::Auto));
        assert_eq!(speech("unix:/y"), (false, ProxyProtocol::Auto));
    }

    #[test]
    fn without_a_word_tcp_speaks_tls_and_nobody_sends_proxy_headers() {
        let (listening, _) = listening(&[]);
        let tls = |tls| Speech { tls, proxy: ProxyProtocol::Off };
        assert_eq!(listening.speech("0.0.0.0:443"), tls(true));
        assert_eq!(listening.speech("unix:@x"), tls(false));
    }

    #[test]
    fn what_makes_no_sense_is_a_mistake() {
        assert_eq!(listening(&[("SAOLA_TLS_BIND", ":443")]).1, 1);
        assert_eq!(listening(&[("SAOLA_PROXY_PROTOCOL", "v3,:1=v4,v1")]).1, 2);
    }
}

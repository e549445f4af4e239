//! Where a collector is and how it is spoken to, as the environment says: gRPC or HTTP, in the clear or over TLS.

use std::fmt;

use http::Uri;

use crate::environment::{Env, without_user};

/// What is spoken with the collector.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Protocol {
    /// `grpc`.
    Grpc,
    /// `http/protobuf`.
    Http,
}

/// What an `https` endpoint is checked with, and what it is shown: PEM.
#[derive(Clone, Eq, PartialEq, Default)]
pub struct Certificates {
    /// Who may have signed the collector's certificate; `None` is whoever the system trusts.
    pub authorities: Option<Vec<u8>>,
    /// The client's certificate and its key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("authorities", &self.authorities.is_some())
            .field("client", &self.client.is_some())
            .finish()
    }
}

impl Env<'_> {
    pub(super) fn protocol(&mut self) -> Protocol {
        match self.find("PROTOCOL") {
            None => Protocol::Grpc,
            Some((_, value)) if value == "grpc" => Protocol::Grpc,
            Some((_, value)) if value == "http/protobuf" => Protocol::Http,
            Some((variable, value)) => {
                self.refuse(&variable, &value, "grpc or http/protobuf");
                Protocol::Grpc
            }
        }
    }

    pub(super) fn endpoint(&mut self, protocol: Protocol) -> String {
        let is_insecure = self
            .find("INSECURE")
            .is_some_and(|(variable, value)| self.read_boolean(&variable, &value));
        let Some((variable, given)) = self.find("ENDPOINT") else {
            return match protocol {
                Protocol::Grpc => "http://localhost:4317".to_owned(),
                Protocol::Http => format!("http://localhost:4318{PATH}"),
            };
        };
        let scheme = match given.contains("://") {
            true => "",
            false if is_insecure => "http://",
            false => "https://",
        };
        let endpoint = format!("{scheme}{given}");
        let uri = endpoint
            .parse::<Uri>()
            .ok()
            .filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        let shown = without_user(&given);
        match uri.as_ref().and_then(Uri::scheme_str) {
            Some("http") => {}
            Some("https") if cfg!(feature = "tls") => {}
            Some("https") if scheme.is_empty() => self.refuse(&variable, &shown, NO_TLS),
            Some("https") => self.refuse(&variable, &shown, NO_SCHEME),
            _ => self.refuse(&variable, &shown, "a URL such as http://localhost:4317"),
        }
        // The variable for all signals names the collector, the one for traces the place for traces.
        if protocol == Protocol::Http && variable == "OTEL_EXPORTER_OTLP_ENDPOINT" {
            return format!("{}{PATH}", endpoint.trim_end_matches('/'));
        }
        endpoint
    }

    pub(super) fn certificates(&mut self) -> Certificates {
        let authorities = self.pem("CERTIFICATE", Holds::Certificates);
        let certificate = self.pem("CLIENT_CERTIFICATE", Holds::Certificates);
        let key = self.pem("CLIENT_KEY", Holds::Key);
        let client = match (self.find("CLIENT_CERTIFICATE"), self.find("CLIENT_KEY")) {
            (Some((variable, value)), None) => {
                self.refuse(&variable, &value, "needs OTEL_EXPORTER_OTLP_CLIENT_KEY too");
                None
            }
            (None, Some((variable, value))) => {
                self.refuse(&variable, &value, "needs OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE too");
                None
            }
            _ => certificate.zip(key),
        };
        Certificates { authorities, client }
    }

    /// The content of the file that a variable names.
    #[cfg(not(feature = "tls"))]
    fn pem(&mut self, suffix: &str, _: Holds) -> Option<Vec<u8>> {
        let (variable, path) = self.find(suffix)?;
        self.refuse(&variable, &path, NO_TLS);
        None
    }

    /// The content of the file that a variable names.
    #[cfg(feature = "tls")]
    fn pem(&mut self, suffix: &str, holds: Holds) -> Option<Vec<u8>> {
        let (variable, path) = self.find(suffix)?;
        match std::fs::read(&path) {
            Ok(pem) if holds.is_in(&pem) => return Some(pem),
            Ok(_) => self.refuse(&variable, &path, holds.wanted()),
            Err(error) => {
                self.refuse(&variable, &path, &format!("a file that can be read: {error}"));
            }
        }
        None
    }
}

/// What is to be in a PEM file.
#[derive(Copy, Clone)]
enum Holds {
    Certificates,
    Key,
}

#[cfg(feature = "tls")]
impl Holds {
    fn is_in(self, pem: &[u8]) -> bool {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        match self {
            Self::Certificates => {
                let mut found = CertificateDer::pem_slice_iter(pem).peekable();
                found.peek().is_some() && found.all(|certificate| certificate.is_ok())
            }
            Self::Key => PrivateKeyDer::from_pem_slice(pem).is_ok(),
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Certificates => "a file with certificates as PEM",
            Self::Key => "a file with a private key as PEM",
        }
    }
}

const PATH: &str = "/v1/traces";
/// Why `https` is refused by a build that cannot speak it.
pub(crate) const NO_TLS: &str = "needs TLS, which this build is without: its cargo feature `tls` is off; use an http:// address";
const NO_SCHEME: &str = "without a scheme it means https, which needs the cargo feature `tls`, and this build is without; \
    write http:// in front, or set OTEL_EXPORTER_OTLP_INSECURE=true";

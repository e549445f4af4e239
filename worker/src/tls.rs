//! TLS of a worker: certificates by name, and their renewal while it runs. rustls with ring, named explicitly.

mod certificate;
mod renewal;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoClientAuth, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(crate) use renewal::renew;

/// What TLS is spoken with.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct TlsSettings {
    /// Certificates and their keys; the first one serves whoever asks for no name, or for one that none is for.
    pub pairs: Vec<Pair>,
    /// Whose certificates clients may have.
    pub client_ca: Option<PathBuf>,
    /// What is asked of a client. Default nothing.
    pub client_auth: ClientAuth,
    /// The oldest version that is spoken. Default 1.2.
    pub oldest: TlsVersion,
}

/// The files of a certificate, in PEM.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Pair {
    /// The certificate, then those that it is signed with, up to the root's.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What is asked of a client.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub enum ClientAuth {
    /// Nothing.
    #[default]
    Off,
    /// A certificate, if it has one.
    Optional,
    /// A certificate.
    Required,
}

/// A version of TLS.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// Why TLS cannot be spoken with these files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of the kind.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: pem::Error,
    },
    /// The key is for another certificate.
    #[error("the key {key} is not that of the certificate {certificate}")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A certificate or a key is of no use.
    #[error("cannot use {path}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// A renewed certificate has ended already.
    #[error("the certificate {path} has ended")]
    Ended {
        /// The certificate's file.
        path: PathBuf,
    },
    /// Client certificates are asked for, and nobody may sign them.
    #[error("client certificates need client_ca")]
    NoClientCa,
    /// The versions or the authorities do not go together.
    #[error("cannot set TLS up")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TlsSettings {
    /// Loads everything, to see that it can be.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file.
    pub fn check(&self) -> Result<(), TlsError> {
        let provider = Arc::new(ring::default_provider());
        self.keys(&provider)?;
        self.clients(&provider).map(drop)
    }

    fn keys(&self, provider: &CryptoProvider) -> Result<Vec<Arc<CertifiedKey>>, TlsError> {
        self.pairs.iter().map(|pair| pair.load(provider).map(Arc::new)).collect()
    }

    fn clients(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        if self.client_auth == ClientAuth::Off {
            return Ok(Arc::new(NoClientAuth));
        }
        let path = self.client_ca.as_ref().ok_or(TlsError::NoClientCa)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path)? {
            let added = roots.add(certificate);
            added.map_err(|source| TlsError::Unusable { path: path.clone(), source })?;
        }
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let builder = match self.client_auth {
            ClientAuth::Optional => builder.allow_unauthenticated(),
            ClientAuth::Off | ClientAuth::Required => builder,
        };
        let verifier = builder.build().map_err(|error| TlsError::Setup(error.into()))?;
        Ok(verifier)
    }
}

impl Pair {
    fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.certificate)?;
        let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|source| TlsError::File { path: self.key.clone(), source })?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { certificate: self.certificate.clone(), key: self.key.clone() }
            }
            source @ rustls::Error::InvalidCertificate(_) => {
                TlsError::Unusable { path: self.certificate.clone(), source }
            }
            source => TlsError::Unusable { path: self.key.clone(), source },
        })
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read
        .and_then(|found| if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) });
    found.map_err(|source| TlsError::File { path: path.clone(), source })
}

/// TLS as one worker speaks it.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    settings: TlsSettings,
    provider: Arc<CryptoProvider>,
    keys: Arc<Keys>,
    /// Handshakes are work; more than these wait, inside their deadline.
    turns: Semaphore,
}

const HANDSHAKES: usize = 64;

impl Tls {
    /// After the fork: the keys of session tickets are random.
    pub(crate) fn load(settings: &TlsSettings, speaks_http2: bool) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let keys = Arc::new(Keys(RwLock::new(Arc::new(settings.keys(&provider)?))));
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Keys>::clone(&keys);
        let versions: &[&SupportedProtocolVersion] = match settings.oldest {
            TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let setup = |error: rustls::Error| TlsError::Setup(error.into());
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(setup)?
            .with_client_cert_verifier(settings.clients(&provider)?)
            .with_cert_resolver(resolver);
        let protocols: &[&[u8]] = if speaks_http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.ticketer = ring::Ticketer::new().map_err(setup)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            settings: settings.clone(),
            provider,
            keys,
            turns: Semaphore::new(HANDSHAKES),
        })
    }

    pub(crate) async fn accept<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: I,
    ) -> io::Result<TlsStream<I>> {
        let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
        self.acceptor.accept(io).await
    }
}

/// The certificates that new handshakes use.
#[derive(Debug)]
struct Keys(RwLock<Arc<Vec<Arc<CertifiedKey>>>>);

impl Keys {
    fn present(&self) -> Arc<Vec<Arc<CertifiedKey>>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, keys: Vec<Arc<CertifiedKey>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }
}

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.present();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| keys.iter().find(|key| is_for(key, &name)));
        named.or(keys.first()).map(Arc::clone)
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = key.end_entity_cert().and_then(ParsedCertificate::try_from);
    certificate.is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}

//! An authority of the test's own, and a server's certificate, as files and as a server needs them.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, crypto};

pub(crate) struct Authority {
    folder: TempDir,
    server: Arc<ServerConfig>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(crypto::ring::default_provider());
        let server_key = key.serialize_pem();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let folder = TempDir::new().unwrap();
        for (name, text) in [
            ("ca.pem", issuer.pem()),
            ("server.pem", certificate.pem()),
            ("server.key", server_key),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder, server: Arc::new(server) }
    }

    /// The file with the authority's certificate.
    pub(crate) fn file(&self) -> String {
        self.folder.path().join("ca.pem").to_str().unwrap().to_owned()
    }

    /// The folder: `ca.pem`, and for `localhost` `server.pem` and `server.key`.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a server for `localhost` needs.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }
}

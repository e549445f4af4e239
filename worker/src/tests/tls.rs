//! TLS: protocols, names, clients' certificates, deadlines, and renewal while the worker runs; by a paused clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use saola_observability::Outcome;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Server, config, late, test_speaking};
use crate::connection::LocalExecutor;
use crate::{ClientAuth, Config, Pair, ProxyProtocol, Speech, TlsError, TlsSettings, TlsVersion};

const SPEECH: Speech = Speech { tls: true, proxy: ProxyProtocol::Off };

/// An authority, and a folder for what it signs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `<file>.crt` and `<file>.key` for a name.
    fn sign(&self, file: &str, name: &str, end: i32) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pair = Pair {
            certificate: self.path(&format!("{file}.crt")),
            key: self.path(&format!("{file}.key")),
        };
        std::fs::write(&pair.certificate, certificate.pem()).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }

    fn settings(&self, pairs: Vec<Pair>) -> TlsSettings {
        TlsSettings {
            pairs,
            client_ca: Some(self.path("ca.pem")),
            client_auth: ClientAuth::Off,
            oldest: TlsVersion::V1_2,
        }
    }

    /// A client that trusts this authority.
    fn client(&self, protocols: &[&str], own: Option<&Pair>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut client = match own {
            None => builder.with_no_client_auth(),
            Some(pair) => builder.with_client_auth_cert(chain(pair), key(pair)).unwrap(),
        };
        // A resumed session shows no certificate.
        client.resumption = Resumption::disabled();
        client.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(client))
    }
}

fn chain(pair: &Pair) -> Vec<CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::pem_file_iter(&pair.certificate).unwrap().map(Result::unwrap).collect()
}

fn key(pair: &Pair) -> PrivateKeyDer<'static> {
    use rustls::pki_types::pem::PemObject;
    PrivateKeyDer::from_pem_file(&pair.key).unwrap()
}

async fn connect(
    server: &Server,
    client: &TlsConnector,
    name: &'static str,
) -> std::io::Result<TlsStream<DuplexStream>> {
    client.connect(ServerName::try_from(name).unwrap(), server.connect().0).await
}

async fn get(stream: &mut TlsStream<DuplexStream>) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an orderly end, with its close_notify");
    answer
}

/// What the server shows to who asks for a name.
async fn shown(server: &Server, client: &TlsConnector, name: &'static str) -> Vec<u8> {
    let mut stream = connect(server, client, name).await.unwrap();
    assert!(get(&mut stream).await.ends_with("hello"));
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn with_tls(settings: TlsSettings) -> Config {
    Config { tls: Some(settings), ..config() }
}

#[test]
fn both_protocols_are_offered_and_no_choice_is_http1() {
    let authority = Authority::new();
    let pair = authority.sign("one", "one.test", 2100);
    test_speaking(SPEECH, with_tls(authority.settings(vec![pair])), |server| async move {
        for protocols in [&[][..], &["http/1.1"], &["http/1.1", "h2"]] {
            let client = authority.client(protocols, None);
            let mut stream = connect(&server, &client, "one.test").await.unwrap();
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                continue; // the server prefers it; see below
            }
            assert!(get(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
        }
        let stream = connect(&server, &authority.client(&["h2"], None), "one.test").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let handshake = hyper::client::conn::http2::handshake(LocalExecutor, TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        let driver = tokio::task::spawn_local(connection);
        let request = http::Request::get("https://one.test/").body(Empty::<bytes::Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.collect().await.unwrap().to_bytes(), "hello");
        drop((sender, driver));
        server.stop().await;
    });
}

#[test]
fn a_client_of_http1_cannot_begin_with_the_preface_of_http2() {
    let authority = Authority::new();
    let pair = authority.sign("one", "one.test", 2100);
    test_speaking(SPEECH, with_tls(authority.settings(vec![pair])), |server| async move {
        for (protocols, bytes, start) in [
            (&["http/1.1"][..], &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], "HTTP/1.1 505 "),
            (&["h2"], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""),
        ] {
            let client = authority.client(protocols, None);
            let mut stream = connect(&server, &client, "one.test").await.unwrap();
            stream.write_all(bytes).await.unwrap();
            let mut answer = Vec::new();
            // Cut without a goodbye where the client spoke another protocol than it had chosen.
            let _ = stream.read_to_end(&mut answer).await;
            assert!(answer.starts_with(start.as_bytes()) && answer.is_empty() == start.is_empty());
        }
        server.stop().await;
    });
}

#[test]
fn the_name_chooses_the_certificate_and_the_first_serves_the_rest() {
    let authority = Authority::new();
    let pairs: Vec<_> = ["one.test", "*.two.test"]
        .iter()
        .zip(["one", "two"])
        .map(|(name, file)| authority.sign(file, name, 2100))
        .collect();
    let (one, two) = (chain(&pairs[0]), chain(&pairs[1]));
    test_speaking(SPEECH, with_tls(authority.settings(pairs)), |server| async move {
        let client = authority.client(&[], None);
        assert_eq!(shown(&server, &client, "one.test").await, one[0].as_ref());
        assert_eq!(shown(&server, &client, "a.two.test").await, two[0].as_ref());
        let error = connect(&server, &client, "other.test").await.unwrap_err().to_string();
        assert!(error.contains("one.test"), "the first one was shown: {error}");
        server.stop().await;
    });
}

#[test]
fn clients_show_certificates_where_they_must() {
    let authority = Authority::new();
    let pair = authority.sign("one", "one.test", 2100);
    let own = authority.sign("client", "client", 2100);
    let other = Authority::new();
    let foreign = other.sign("client", "client", 2100);
    // TLS 1.3 clients learn of a refusal when they read.
    let is_served = async |server: &Server, own: Option<&Pair>| {
        let client = authority.client(&[], own);
        let Ok(mut stream) = connect(server, &client, "one.test").await else { return false };
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.is_ok()
            && stream.read_to_end(&mut Vec::new()).await.is_ok_and(|length| length > 0)
    };
    for (client_auth, anonymous) in [(ClientAuth::Optional, true), (ClientAuth::Required, false)] {
        let settings = TlsSettings { client_auth, ..authority.settings(vec![pair.clone()]) };
        let (own, foreign) = (&own, &foreign);
        test_speaking(SPEECH, with_tls(settings), async move |server| {
            assert!(is_served(&server, Some(own)).await);
            assert!(!is_served(&server, Some(foreign)).await);
            assert_eq!(is_served(&server, None).await, anonymous);
            server.stop().await;
        });
    }
}

#[test]
fn a_handshake_that_stops_is_cut_and_plain_text_gets_an_alert() {
    let authority = Authority::new();
    let pair = authority.sign("one", "one.test", 2100);
    test_speaking(SPEECH, with_tls(authority.settings(vec![pair])), |server| async move {
        for start in [&[][..], &[0x16, 0x03], &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]] {
            let (mut client, since) = (server.connect(), Instant::now());
            client.0.write_all(start).await.unwrap();
            assert_eq!(client.rest().await, b"");
            assert!(late(since, 10) < Duration::from_secs(1), "{:?}", since.elapsed());
        }
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let rest = client.rest().await;
        assert_eq!(rest.first(), Some(&0x15), "an alert, and no HTTP: {rest:?}");
        // The time for a head begins behind the handshake.
        let mut stream = {
            let client = authority.client(&[], None);
            let (ours, since) = (server.connect().0, Instant::now());
            let stream = async {
                sleep(Duration::from_secs(9)).await;
                client.connect(ServerName::try_from("one.test").unwrap(), ours).await.unwrap()
            };
            let stream = stream.await;
            assert!(since.elapsed() >= Duration::from_secs(9));
            stream
        };
        sleep(Duration::from_secs(9)).await;
        assert!(get(&mut stream).await.ends_with("hello"));
        assert_eq!(server.outcomes(), [(Some(200), Outcome::Ok)]);
        server.stop().await;
    });
}

#[test]
fn files_that_do_not_go_together_are_named() {
    let authority = Authority::new();
    let (one, two) =
        (authority.sign("one", "one.test", 2100), authority.sign("two", "two.test", 2100));
    let check = |certificate: &Path, key: &Path| {
        let pair = Pair { certificate: certificate.to_owned(), key: key.to_owned() };
        authority.settings(vec![pair]).check()
    };
    assert!(check(&one.certificate, &one.key).is_ok());
    let error = check(&one.certificate, &two.key).unwrap_err();
    assert!(matches!(error, TlsError::Mismatch { .. }), "{error}");
    assert!(error.to_string().contains("one.crt") && error.to_string().contains("two.key"));
    for (certificate, key) in [
        (&authority.path("none"), &one.key),
        (&one.certificate, &authority.path("none")),
        (&one.key, &one.key),
        (&one.certificate, &one.certificate),
    ] {
        assert!(matches!(check(certificate, key), Err(TlsError::File { .. })));
    }
    let mut settings = authority.settings(vec![one]);
    (settings.client_ca, settings.client_auth) = (None, ClientAuth::Required);
    assert!(matches!(settings.check(), Err(TlsError::NoClientCa)));
}

#[test]
fn renewed_certificates_are_taken_up_and_bad_ones_are_not() {
    let authority = Authority::new();
    let used = authority.sign("used", "one.test", 2100);
    let (first, second) = (authority.path("first"), authority.path("second"));
    // As Kubernetes mounts a secret: the files are links through a link that is swapped.
    for folder in [&first, &second] {
        std::fs::create_dir(folder).unwrap();
    }
    let data = authority.path("data");
    let mount = |target: &Path| {
        let fresh = authority.path("fresh");
        std::os::unix::fs::symlink(target, &fresh).unwrap();
        std::fs::rename(&fresh, &data).unwrap();
    };
    let fill = |folder: &Path, pair: &Pair| {
        std::fs::copy(&pair.certificate, folder.join("tls.crt")).unwrap();
        std::fs::copy(&pair.key, folder.join("tls.key")).unwrap();
        chain(pair)[0].to_vec()
    };
    let pair = Pair { certificate: data.join("tls.crt"), key: data.join("tls.key") };
    let old = fill(&first, &used);
    mount(&first);
    let settings = authority.settings(vec![pair.clone()]);
    test_speaking(SPEECH, with_tls(settings), async |server| {
        let client = authority.client(&[], None);
        assert_eq!(shown(&server, &client, "one.test").await, old);
        let mut open = connect(&server, &client, "one.test").await.unwrap();
        let bad = authority.sign("ended", "one.test", 2000);
        std::fs::copy(&used.certificate, &pair.certificate).unwrap();
        std::fs::copy(&bad.key, &pair.key).unwrap();
        sleep(Duration::from_secs(40)).await;
        assert_eq!(shown(&server, &client, "one.test").await, old, "the key is another's");
        fill(&data, &bad);
        sleep(Duration::from_secs(40)).await;
        assert_eq!(shown(&server, &client, "one.test").await, old, "the new one has ended");
        let by_link = fill(&second, &authority.sign("new", "one.test", 2100));
        mount(&second);
        sleep(Duration::from_secs(25)).await;
        assert_eq!(shown(&server, &client, "one.test").await, by_link);
        let newer = authority.sign("newer", "one.test", 2100);
        std::fs::rename(&newer.key, &pair.key).unwrap();
        let by_rename = chain(&newer)[0].to_vec();
        std::fs::rename(&newer.certificate, &pair.certificate).unwrap();
        sleep(Duration::from_secs(25)).await;
        assert_eq!(shown(&server, &client, "one.test").await, by_rename);
        // A kept-alive connection of before would be idle for too long by now; it is told so and not reset.
        assert_eq!(open.read(&mut [0]).await.unwrap(), 0);
        server.stop().await;
    });
}

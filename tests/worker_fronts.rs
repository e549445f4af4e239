//! What stands in front of HTTP: TLS, PROXY headers, and proxies that say whom they speak for.

use std::path::Path;
use std::sync::Arc;

use hyper::Request;
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::collector::{Collector, Mode};
use crate::server::Server;
use crate::setup::Setup;
use crate::wire::Wire;

/// Writes a certificate for `saola.test` and its key.
fn certificate(folder: &Path, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["saola.test".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let write = |extension, text: String| {
        let path = folder.join(format!("{name}.{extension}"));
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    (write("crt", certificate.pem()), write("key", key.serialize_pem()))
}

/// One request inside TLS, with the protocol that was agreed on.
fn get_tls(address: &str, certificate: &str, protocols: &[&str]) -> (String, Option<Vec<u8>>) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    crate::client::in_time(async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("saola.test")?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let mut answer = String::new();
        if protocol.as_deref() != Some(b"h2") {
            let request = b"GET / HTTP/1.1\r\nHost: saola.test\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await?;
            stream.read_to_string(&mut answer).await?;
        }
        Ok((answer, protocol))
    })
    .unwrap()
}

#[test]
fn tls_is_spoken_on_tcp_and_not_on_unix_sockets() {
    let setup = Setup::of_example("echo");
    let (certificate, key) = certificate(setup.folder(), "one");
    let unix = format!("unix:{}", setup.folder().join("x.sock").display());
    let files = ["--certfile", &certificate, "--keyfile", &key];
    let server = setup.args(files).args(["--bind", "127.0.0.1:0", "--bind", &unix]).start();
    let (answer, _) = get_tls(&server.address(), &certificate, &[]);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    let protocol = get_tls(&server.address(), &certificate, &["http/1.1", "h2"]).1;
    assert_eq!(protocol.as_deref(), Some(&b"h2"[..]), "the server prefers it");
    assert_eq!(crate::client::get(&unix, "/").expect_status(200).text(), "hello");
    let mut plain = Wire::connect(&server.address()).unwrap();
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(plain.answer().is_err(), "an alert, and no HTTP");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_span_says_by_which_scheme_and_name_its_server_was_asked() {
    let collector = Collector::start(Mode::Answer);
    let setup = Setup::of_example("echo");
    let (certificate, key) = certificate(setup.folder(), "one");
    let server = setup
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
        .args(["--certfile", &certificate, "--keyfile", &key])
        .start();
    get_tls(&server.address(), &certificate, &[]);
    assert_eq!(server.stop(), 0);
    let spans = collector.spans();
    let [span] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(
        (span.get("url.scheme"), span.get("server.address"), span.get("server.port")),
        ("https", "saola.test", "443")
    );
}

#[test]
fn check_names_a_key_that_is_not_the_certificates() {
    let setup = Setup::new();
    let (certificate_file, _) = certificate(setup.folder(), "one");
    let (_, other_key) = certificate(setup.folder(), "two");
    let args = ["check", "--certfile", &certificate_file, "--keyfile", &other_key];
    let ended = setup.args(args).run();
    assert_eq!(ended.code, 64);
    assert!(
        ended.stderr.contains("one.crt") && ended.stderr.contains("two.key"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_line_names_the_client_that_the_balancer_and_the_proxy_name() {
    let server = Server::start(["--proxy-protocol", "v1", "--forwarded-allow-ips", "10.0.0.0/8"]);
    let mut wire = Wire::connect(&server.address()).unwrap();
    wire.send("PROXY TCP4 10.1.1.1 10.0.0.1 4711 80\r\n");
    let id = wire.get("/", "balanced").unwrap();
    assert_eq!(id.status, 200);
    assert_eq!(server.access_line("balanced").get("client"), "10.1.1.1");
    wire.send(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: proxied\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n",
    );
    assert_eq!(wire.answer().unwrap().status, 200);
    assert_eq!(server.access_line("proxied").get("client"), "192.0.2.7");
    let mut bare = Wire::connect(&server.address()).unwrap();
    assert!(bare.get("/", "bare").is_err(), "the header is required");
    server.until("it is counted", |metrics| {
        metrics.value("http_server_requests_rejected_total", &[("reason", "proxy_header")]) == 1
    });
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_strangers_word_about_itself_is_not_believed() {
    let server = Server::start(["--forwarded-allow-ips", "10.0.0.0/8"]);
    let request = Request::get("/").header("x-forwarded-for", "192.0.2.7").body("").unwrap();
    let answer = server.send(request);
    assert_eq!(server.access_line(answer.request_id()).get("client"), "127.0.0.1");
    assert_eq!(server.stop(), 0);
}

#[test]
fn h2spec_finds_nothing_but_a_preface_that_may_be_http1() {
    let setup = Setup::of_example("misfit");
    let (certificate, key) = certificate(setup.folder(), "one");
    let plain = Setup::of_example("misfit").start();
    let secure = setup.args(["--certfile", &certificate, "--keyfile", &key]).start();
    for (server, more, allowed) in [(plain, &[][..], 1), (secure, &["-t", "-k"], 0)] {
        let address = server.address();
        let (host, port) = address.rsplit_once(':').unwrap();
        let run = std::process::Command::new("h2spec")
            // A path that reads bodies: what comes behind an early answer is not looked at.
            .args(["--strict", "-o", "5", "-P", "/any", "-h", host, "-p", port])
            .args(more)
            .output();
        let Ok(output) = run else {
            eprintln!("h2spec is not installed: its 146 tests were not tried");
            return;
        };
        let report = String::from_utf8_lossy(&output.stdout);
        // In cleartext the port speaks HTTP/1.1 too, and answers 400 to what is no preface: not the end that h2spec wants.
        let expected = format!("146 tests, {} passed, 0 skipped, {allowed} failed", 146 - allowed);
        assert!(report.contains(&expected), "{report}");
        assert_eq!(allowed == 1, report.contains("× 2: Sends invalid connection preface"));
        assert_eq!(server.stop(), 0);
    }
}

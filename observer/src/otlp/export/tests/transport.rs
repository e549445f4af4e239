//! The exporter against collectors that speak HTTP/protobuf, in the clear and over TLS, and against gRPC over TLS.

use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tonic::transport::ServerTlsConfig;
use tonic::transport::{Certificate, Identity};

use super::*;

/// What the receiver does with a request.
#[derive(Copy, Clone)]
enum Does {
    Take,
    RefusePart(i64),
    Status(u16),
    Hang,
    /// Closes the connection without an answer.
    Reset,
}

/// One that was taken: path, headers of interest, spans.
#[derive(Clone, Debug)]
struct Taken {
    path: String,
    tenant: String,
    encoding: String,
    content_type: String,
    spans: usize,
}

#[derive(Clone)]
struct HttpReceiver {
    does: Arc<Mutex<Does>>,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl HttpReceiver {
    fn new(does: Does) -> Self {
        Self { does: Arc::new(Mutex::new(does)), taken: Arc::default() }
    }

    async fn listen(&self, tls: Option<TlsAcceptor>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = self.clone();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Some(tls) = &tls else {
                    receiver.serve(stream);
                    continue;
                };
                // A client that does not trust us leaves here.
                if let Ok(stream) = tls.accept(stream).await {
                    receiver.serve(stream);
                }
            }
        });
        port
    }

    fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        let receiver = self.clone();
        spawn_local(async move {
            let service = service_fn(|request| receiver.answer(request));
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }

    async fn answer(
        &self,
        request: http::Request<Incoming>,
    ) -> Result<http::Response<Full<Bytes>>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let does = *self.does.lock().unwrap();
        let partial_success = match does {
            Does::Take => None,
            Does::RefusePart(rejected_spans) => {
                Some(ExportTracePartialSuccess { rejected_spans, error_message: "not so".into() })
            }
            Does::Status(status) => {
                let answer = http::Response::builder().status(status).header("retry-after", "0");
                return Ok(answer.body(Full::default()).unwrap());
            }
            Does::Hang => future::pending().await,
            Does::Reset => return Err(std::io::ErrorKind::ConnectionReset.into()),
        };
        let header = |name| {
            let value = head.headers.get(name);
            value.map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        let mut plain = Vec::new();
        if header("content-encoding") == "gzip" {
            let mut unzip = flate2::read::GzDecoder::new(body.as_ref());
            std::io::Read::read_to_end(&mut unzip, &mut plain).unwrap();
        } else {
            plain = body.to_vec();
        }
        let export = ExportTraceServiceRequest::decode(plain.as_slice()).unwrap();
        let scopes = export.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        self.taken.lock().unwrap().push(Taken {
            path: head.uri.path().to_owned(),
            tenant: header("x-tenant"),
            encoding: header("content-encoding"),
            content_type: header("content-type"),
            spans: scopes.map(|scope| scope.spans.len()).sum(),
        });
        let answer = ExportTraceServiceResponse { partial_success };
        Ok(http::Response::new(Full::from(answer.encode_to_vec())))
    }
}

const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");

#[test]
fn over_http_a_collector_gets_every_span_with_headers_and_gzip() {
    run(async {
        let receiver = HttpReceiver::new(Does::Take);
        let port = receiver.listen(None).await;
        let extra = [
            HTTP,
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ];
        let mut exporting = Exporting::start(&format!("http://127.0.0.1:{port}/"), &extra);
        exporting.produce(20);
        exporting.until("all are taken", |tally| tally.exported() == 20).await;
        exporting.stop(SOON).await;
        let taken = receiver.taken.lock().unwrap();
        assert_eq!(taken.iter().map(|taken| taken.spans).sum::<usize>(), 20);
        for one in taken.iter() {
            let facts = (one.path.as_str(), one.tenant.as_str(), one.encoding.as_str());
            assert_eq!(
                facts,
                ("/v1/traces", "blue", "gzip"),
                "the general endpoint has the path added"
            );
            assert_eq!(one.content_type, "application/x-protobuf");
        }
    });
}

#[test]
fn over_http_the_endpoint_for_traces_is_used_as_it_is() {
    run(async {
        let receiver = HttpReceiver::new(Does::Take);
        let port = receiver.listen(None).await;
        let own = format!("http://127.0.0.1:{port}/otlp/spans");
        let extra = [HTTP, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", own.as_str())];
        let mut exporting = Exporting::start("http://127.0.0.1:1", &extra);
        exporting.produce(1);
        exporting.until("it is taken", |tally| tally.exported() == 1).await;
        exporting.stop(SOON).await;
        assert_eq!(receiver.taken.lock().unwrap()[0].path, "/otlp/spans");
        assert_eq!(receiver.taken.lock().unwrap()[0].encoding, "");
    });
}

#[test]
fn over_http_what_is_final_is_not_sent_again_and_the_rest_is() {
    run(async {
        let receiver = HttpReceiver::new(Does::RefusePart(3));
        let port = receiver.listen(None).await;
        let mut exporting = Exporting::start(&format!("http://127.0.0.1:{port}"), &[HTTP]);
        exporting.produce(8);
        exporting.until("a part is refused", |tally| tally.dropped(LostSpans::Rejected) == 3).await;
        let mut rejected = 3;
        for status in [400, 401, 404, 413, 500] {
            *receiver.does.lock().unwrap() = Does::Status(status);
            exporting.produce(8);
            rejected += 8;
            let what = format!("{status} is final");
            exporting.until(&what, |tally| tally.dropped(LostSpans::Rejected) == rejected).await;
        }
        let mut exported = 5;
        let faults = [429, 502, 503, 504].map(Does::Status).into_iter();
        for fault in faults.chain([Does::Reset, Does::Hang]) {
            *receiver.does.lock().unwrap() = fault;
            exporting.produce(8);
            let dropped = exporting.traces.tally().dropped_in_all();
            exporting.traces.tally().remember_error(String::new());
            exporting.until("it fails", |tally| tally.last_error() != Some(String::new())).await;
            *receiver.does.lock().unwrap() = Does::Take;
            exported += 8;
            exporting.until("it is sent again", |tally| tally.exported() == exported).await;
            assert_eq!(exporting.traces.tally().dropped_in_all(), dropped);
        }
        exporting.stop(SOON).await;
    });
}

#[test]
fn a_name_that_nobody_knows_costs_spans_and_nothing_else() {
    run(async {
        for extra in [&[HTTP][..], &[]] {
            let mut exporting = Exporting::start("http://collector.invalid:4317", extra);
            exporting.produce(100);
            exporting.until("it fails", |tally| tally.last_error().is_some()).await;
            assert!(exporting.traces.queued() <= 64, "bounded");
            exporting.stop(SOON).await;
        }
    });
}

/// An authority of the test's own, a server's and a client's certificate, as files.
struct Authority {
    folder: TempDir,
    server: (String, String),
}

impl Authority {
    fn new() -> Self {
        crate::otlp::install_tls();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let signed = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        let (server, client) = (signed("localhost"), signed("client"));
        let folder = TempDir::new().unwrap();
        for (name, text) in [("ca", issuer.pem()), ("cert", client.0), ("key", client.1)] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder, server }
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Accepts only who shows a certificate of this authority.
    fn acceptor(&self) -> TlsAcceptor {
        let mut roots = rustls::RootCertStore::empty();
        let certificates = |pem: &str| -> Vec<CertificateDer<'static>> {
            CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
        };
        roots.add(certificates(&self.read("ca")).remove(0)).unwrap();
        let clients =
            rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.server.1.as_bytes()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(certificates(&self.server.0), key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    async fn listen_grpc(&self, receiver: &Receiver) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.server.0, &self.server.1))
            .client_ca_root(Certificate::from_pem(self.read("ca")));
        let serving = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(TraceServiceServer::new(receiver.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(async { serving.await.unwrap() });
        port
    }
}

#[test]
fn over_tls_both_sides_show_certificates() {
    run(async {
        let authority = Authority::new();
        let [ca, cert, key] = ["ca", "cert", "key"].map(|name| authority.path(name));
        let files = [
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.as_str()),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", cert.as_str()),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", key.as_str()),
        ];
        let receiver = HttpReceiver::new(Does::Take);
        let port = receiver.listen(Some(authority.acceptor())).await;
        let extra = [&files[..], &[HTTP]].concat();
        let mut exporting = Exporting::start(&format!("https://localhost:{port}"), &extra);
        exporting.produce(10);
        exporting.until("taken over HTTPS", |tally| tally.exported() == 10).await;
        exporting.stop(SOON).await;

        let receiver = Receiver::new(Mode::Answer);
        let port = authority.listen_grpc(&receiver).await;
        // Without a scheme it is https.
        let mut exporting = Exporting::start(&format!("localhost:{port}"), &files);
        exporting.produce(10);
        exporting.until("taken over gRPC with TLS", |tally| tally.exported() == 10).await;
        exporting.stop(SOON).await;
    });
}

#[test]
fn who_is_not_trusted_gets_no_span_and_it_is_said() {
    run(async {
        let (authority, other) = (Authority::new(), Authority::new());
        let (http, grpc) = (HttpReceiver::new(Does::Take), Receiver::new(Mode::Answer));
        let http_port = http.listen(Some(authority.acceptor())).await;
        let grpc_port = authority.listen_grpc(&grpc).await;
        let [ca, foreign] = [authority.path("ca"), other.path("ca")];
        for (port, protocol) in [(http_port, "http/protobuf"), (grpc_port, "grpc")] {
            // A foreign authority; the right one without a certificate of ours; and whoever the system trusts.
            for ca in [Some(&foreign), Some(&ca), None] {
                let mut extra = vec![("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)];
                extra.extend(ca.map(|ca| ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.as_str())));
                let mut exporting = Exporting::start(&format!("https://localhost:{port}"), &extra);
                exporting.produce(5);
                exporting.until("it fails", |tally| tally.last_error().is_some()).await;
                let said = exporting.stop(SOON).await;
                assert!(said.borrow()[0].contains("trace export failed"), "{said:?}");
            }
        }
        assert!(http.taken.lock().unwrap().is_empty() && grpc.spans().is_empty());
    });
}

#[test]
fn files_that_are_no_certificates_are_mistakes_of_the_settings() {
    let authority = Authority::new();
    let [ca, cert, key] = ["ca", "cert", "key"].map(|name| authority.path(name));
    let mistakes = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        let lookup =
            |name: &str| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned());
        let errors = OtlpSettings::from_env(&lookup).err().unwrap_or_default();
        errors.into_iter().map(|error| (error.variable, error.allowed)).collect()
    };
    let [of_ca, of_cert, of_key] = ["CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"]
        .map(|of| format!("OTEL_EXPORTER_OTLP_{of}"));
    assert_eq!(mistakes(&[(&of_ca, &ca), (&of_cert, &cert), (&of_key, &key)]), []);
    for (pairs, expected) in [
        (vec![(of_ca.as_str(), "/nowhere/ca.pem")], "a file that can be read"),
        (vec![(of_ca.as_str(), key.as_str())], "certificates as PEM"),
        (vec![(of_cert.as_str(), cert.as_str())], "CLIENT_KEY too"),
        (vec![(of_key.as_str(), key.as_str())], "CLIENT_CERTIFICATE too"),
        (
            vec![(of_cert.as_str(), cert.as_str()), (of_key.as_str(), ca.as_str())],
            "private key as PEM",
        ),
    ] {
        let found = mistakes(&pairs);
        assert_eq!(found.len(), 1, "{pairs:?}: {found:?}");
        assert!(found[0].1.contains(expected), "{found:?}");
    }
}

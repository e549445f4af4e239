//! The exporter against a real OTLP receiver: answering, refusing, failing, hanging, away and back.

#[cfg(feature = "tls")]
mod transport;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::profile::Profiles;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use saola_observability::closed::{Outcome, Sampling};
use saola_observability::ids::SpanId;
use saola_observability::record::{Record, RequestRecord};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use super::*;
use crate::logfmt::tests::request;
use crate::otlp::{Resource, Traces};

#[derive(Copy, Clone)]
enum Mode {
    Answer,
    RefusePart(i64),
    Fail(Code),
    Hang,
}

#[derive(Clone)]
struct Receiver {
    mode: Arc<Mutex<Mode>>,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    tenants: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let tenant =
            request.metadata().get("x-tenant").map(|value| value.to_str().unwrap().to_owned());
        let mode = *self.mode.lock().unwrap();
        let partial_success = match mode {
            Mode::Answer => None,
            Mode::RefusePart(rejected_spans) => {
                Some(ExportTracePartialSuccess { rejected_spans, error_message: "no".into() })
            }
            Mode::Fail(code) => return Err(Status::new(code, "as told")),
            Mode::Hang => future::pending().await,
        };
        self.tenants.lock().unwrap().extend(tenant);
        self.requests.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

impl Receiver {
    fn new(mode: Mode) -> Self {
        Self { mode: Arc::new(Mutex::new(mode)), requests: Arc::default(), tenants: Arc::default() }
    }

    async fn listen(&self) -> (SocketAddr, JoinHandle<()>) {
        self.listen_at("127.0.0.1:0".parse().unwrap()).await
    }

    async fn listen_at(&self, address: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(self.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        let serving =
            Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
        (address, tokio::spawn(async { serving.await.unwrap() }))
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources
            .flat_map(|resource| &resource.scope_spans)
            .flat_map(|scope| scope.spans.clone())
            .collect()
    }
}

/// The exporter under test, in the runtime of the test.
struct Exporting {
    traces: Traces,
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
    said: Rc<RefCell<Vec<String>>>,
    produced: u64,
}

impl Exporting {
    fn start(endpoint: &str, extra: &[(&str, &str)]) -> Self {
        let given =
            |name: &str| extra.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned());
        let lookup = |name: &str| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.to_owned()),
            "OTEL_BSP_SCHEDULE_DELAY" => Some("10".to_owned()),
            "OTEL_BSP_EXPORT_TIMEOUT" => Some("400".to_owned()),
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE" => Some("8".to_owned()),
            "OTEL_BSP_MAX_QUEUE_SIZE" => Some("64".to_owned()),
            _ => given(name),
        };
        crate::otlp::install_tls();
        let settings = OtlpSettings::from_env(&lookup).unwrap().unwrap();
        let resource = Resource {
            name: "shop".into(),
            version: "1.2".into(),
            instance: "host:80".into(),
            host: "host".into(),
            attributes: vec![("deployment.environment.name".into(), "test".into())],
        };
        let said = Rc::new(RefCell::new(Vec::new()));
        let heard = Rc::clone(&said);
        let voice = Voice::new(move |level, message, fields| {
            heard.borrow_mut().push(format!("{} {message} {fields:?}", level.as_str()));
        });
        let (stop, stopped) = watch::channel(None);
        let traces = Traces::new(settings);
        let mut exporter = traces.exporter(&resource, voice, stopped).unwrap();
        exporter.pause = Duration::from_millis(20);
        let task = spawn_local(exporter.run());
        Self { traces, stop, task, said, produced: 0 }
    }

    fn produce(&mut self, count: u64) {
        for _ in 0..count {
            self.produced += 1;
            let span = SpanId(self.produced.to_be_bytes());
            let record = Record::Request(RequestRecord { span, ..request() });
            self.traces.record(Some(1), record, &mut Profiles::new(0, None));
        }
    }

    async fn until(&self, what: &str, mut condition: impl FnMut(&Tally) -> bool) {
        let wait = async {
            while !condition(self.traces.tally()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let tally = self.traces.tally();
        timeout(Duration::from_secs(10), wait)
            .await
            .unwrap_or_else(|_| panic!("{what}: {tally:?}"));
    }

    /// Orders the stop, and checks that every span went one way and that the deadline was kept.
    async fn stop(self, within: Duration) -> Rc<RefCell<Vec<String>>> {
        let ordered = Instant::now();
        self.stop.send(Some(ordered + within)).unwrap();
        timeout(Duration::from_secs(10), self.task).await.expect("it stops").unwrap();
        assert!(ordered.elapsed() < within + Duration::from_millis(300), "{:?}", ordered.elapsed());
        let tally = self.traces.tally();
        assert_eq!(tally.exported() + tally.dropped_in_all(), self.produced, "{tally:?}");
        self.said
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

const SOON: Duration = Duration::from_millis(500);

#[test]
fn a_collector_gets_every_span_with_all_it_carries() {
    run(async {
        let receiver = Receiver::new(Mode::Answer);
        let (address, _serving) = receiver.listen().await;
        let extra = [
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ];
        let mut exporting = Exporting::start(&url(address), &extra);
        exporting.produce(20);
        let lost = RequestRecord {
            outcome: Outcome::Lost,
            status: None,
            sampling: Sampling::Dropped,
            parent: SpanId([9; 8]),
            remote_parent: true,
            tracestate: "a=1".into(),
            ..request()
        };
        exporting.traces.lost(3, &lost, &mut Profiles::new(0, None));
        exporting.produced += 1;
        let dropped = RequestRecord { sampling: Sampling::Dropped, ..request() };
        let dropped = Record::Request(dropped);
        exporting.traces.record(Some(1), dropped, &mut Profiles::new(0, None));
        exporting.until("21 are exported", |tally| tally.exported() == 21).await;
        let said = exporting.stop(SOON).await;
        assert!(said.borrow().is_empty(), "{said:?}");

        let spans = receiver.spans();
        assert_eq!(spans.len(), 21);
        assert_eq!(spans[0].name, "GET /items/{id}");
        assert_eq!(spans[0].kind(), SpanKind::Server);
        assert_eq!(spans[0].trace_id, request().trace.0);
        assert_eq!(spans[0].span_id, 1_u64.to_be_bytes());
        assert!(spans[0].parent_span_id.is_empty());
        assert_eq!(spans[0].flags & 1, 1, "sampled");
        assert_eq!(spans[0].end_time_unix_nano - spans[0].start_time_unix_nano, 3_210_000);
        let died = &spans[20];
        assert_eq!(died.status.as_ref().unwrap().code(), StatusCode::Error);
        assert_eq!(died.parent_span_id, [9; 8]);
        assert_eq!(died.flags & 0x300, 0x300, "remote parent");
        assert_eq!(died.trace_state, "a=1");
        assert!(receiver.tenants.lock().unwrap().iter().all(|tenant| tenant == "blue"));
        let taken = receiver.requests.lock().unwrap();
        assert!(taken.len() >= 3, "batches of 8");
        let resource = format!("{:?}", taken[0].resource_spans[0].resource);
        for part in ["service.name", "shop", "deployment.environment.name", "saola", "host:80"] {
            assert!(resource.contains(part), "{part} in {resource}");
        }
        assert_eq!(taken[0].resource_spans[0].scope_spans[0].scope.as_ref().unwrap().name, "saola");
    });
}

#[test]
fn what_a_collector_refuses_is_not_sent_again() {
    run(async {
        let receiver = Receiver::new(Mode::RefusePart(3));
        let (address, _serving) = receiver.listen().await;
        let mut exporting = Exporting::start(&url(address), &[]);
        exporting.produce(8);
        exporting.until("a part is refused", |tally| tally.dropped(LostSpans::Rejected) == 3).await;
        let why = crate::bridge::news(Instant::now());
        assert!(why.iter().any(|message| message.text == "no"), "told in its words: {why:?}");
        assert_eq!(exporting.traces.tally().exported(), 5);
        *receiver.mode.lock().unwrap() = Mode::Fail(Code::InvalidArgument);
        exporting.produce(8);
        exporting.until("all are refused", |tally| tally.dropped(LostSpans::Rejected) == 11).await;
        *receiver.mode.lock().unwrap() = Mode::Answer;
        exporting.produce(8);
        exporting.until("the next are taken", |tally| tally.exported() == 13).await;
        let said = exporting.stop(SOON).await;
        let said = said.borrow();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].starts_with("warn trace export failed") && said[0].contains("InvalidArgument")
        );
        assert!(said[1].starts_with("info trace export works again") && said[1].contains("U64(8)"));
    });
}

#[test]
fn a_collector_that_hangs_is_given_up_and_found_again() {
    run(async {
        let receiver = Receiver::new(Mode::Hang);
        let (address, _serving) = receiver.listen().await;
        let mut exporting = Exporting::start(&url(address), &[]);
        exporting.produce(200);
        exporting.until("the call is given up", |tally| tally.last_error().is_some()).await;
        assert!(exporting.traces.queued() <= 64, "bounded");
        assert!(exporting.traces.tally().dropped(LostSpans::Queue) >= 136);
        *receiver.mode.lock().unwrap() = Mode::Answer;
        exporting.until("it works again", |tally| tally.exported() == 64).await;
        let said = exporting.stop(SOON).await;
        assert_eq!(said.borrow().len(), 2, "one line when it fails, one when it works: {said:?}");
    });
}

#[test]
fn a_collector_that_is_away_gets_its_spans_when_it_comes_back() {
    run(async {
        let receiver = Receiver::new(Mode::Answer);
        let (address, serving) = receiver.listen().await;
        serving.abort();
        let _ = serving.await;
        let mut exporting = Exporting::start(&url(address), &[]);
        exporting.produce(10);
        exporting.until("it is away", |tally| tally.last_error().is_some()).await;
        let (_, _serving) = receiver.listen_at(address).await;
        exporting.until("it is back", |tally| tally.exported() == 10).await;
        assert_eq!(exporting.traces.tally().dropped_in_all(), 0);
        exporting.stop(SOON).await;
        let mut ids: Vec<_> = receiver.spans().into_iter().map(|span| span.span_id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 10);
    });
}

#[test]
fn an_overloaded_collector_is_asked_again() {
    run(async {
        let receiver = Receiver::new(Mode::Fail(Code::Unavailable));
        let (address, _serving) = receiver.listen().await;
        let mut exporting = Exporting::start(&url(address), &[]);
        exporting.produce(8);
        exporting.until("it fails", |tally| tally.last_error().is_some()).await;
        *receiver.mode.lock().unwrap() = Mode::Answer;
        exporting.until("it is asked again", |tally| tally.exported() == 8).await;
        exporting.stop(SOON).await;
    });
}

#[test]
fn a_stop_is_not_delayed_by_a_collector_that_hangs() {
    run(async {
        let receiver = Receiver::new(Mode::Hang);
        let (address, _serving) = receiver.listen().await;
        let extra = [("OTEL_BSP_SCHEDULE_DELAY", "10")];
        let mut exporting = Exporting::start(&url(address), &extra);
        exporting.produce(20);
        let traces = exporting.traces.clone();
        exporting.stop(Duration::from_millis(100)).await;
        assert_eq!(traces.tally().dropped(LostSpans::Shutdown), 20);
    });
}

#[test]
fn a_stop_sends_what_is_left() {
    run(async {
        let receiver = Receiver::new(Mode::Answer);
        let (address, _serving) = receiver.listen().await;
        let mut exporting = Exporting::start(&url(address), &[]);
        exporting.produce(50);
        exporting.stop(SOON).await;
        assert_eq!(receiver.spans().len(), 50);
    });
}

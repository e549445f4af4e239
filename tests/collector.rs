//! A trace collector of the test's own: gRPC on a free port, which can refuse, hang or answer with an error.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use crate::output::thread;
use crate::wait;

pub(crate) struct Collector {
    state: Arc<Mutex<State>>,
    address: String,
    listen: Option<oneshot::Sender<()>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the collector does with an export.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Mode {
    Answer,
    Hang,
    Fail(Code),
}

struct State {
    mode: Mode,
    calls: u64,
    spans: Vec<Got>,
}

/// A span as it was received.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) span: Span,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) scope: String,
}

impl Got {
    pub(crate) fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub(crate) fn span_id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub(crate) fn parent_id(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    /// The attribute as text; empty when there is none.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

impl Collector {
    pub(crate) fn start(mode: Mode) -> Self {
        let mut collector = Self::refusing();
        collector.set(mode);
        collector.listen();
        collector
    }

    /// Holds a port on which nobody listens: every connection is refused until [`Collector::listen`].
    pub(crate) fn refusing() -> Self {
        let state = Arc::new(Mutex::new(State { mode: Mode::Answer, calls: 0, spans: Vec::new() }));
        let (said, address) = std::sync::mpsc::channel();
        let (listen, wanted) = oneshot::channel();
        let (stop, ended) = oneshot::channel();
        let service = Service(Arc::clone(&state));
        let thread = thread(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
                said.send(socket.local_addr().unwrap().to_string()).unwrap();
                // Dropped without a word: the test is over.
                if wanted.await.is_ok() {
                    serve(socket, service, ended).await;
                }
            });
        });
        let address = address.recv().unwrap();
        Self { state, address, listen: Some(listen), stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn listen(&mut self) {
        self.listen.take().expect("it listens once").send(()).unwrap();
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Exports that were attempted.
    pub(crate) fn calls(&self) -> u64 {
        self.state.lock().unwrap().calls
    }

    /// Every span received and acknowledged.
    pub(crate) fn spans(&self) -> Vec<Got> {
        self.state.lock().unwrap().spans.clone()
    }

    /// Waits until what was received says so.
    pub(crate) fn until(&self, what: &str, mut condition: impl FnMut(&[Got]) -> bool) {
        let names =
            || format!("{:?}", self.spans().iter().map(|got| &got.span.name).collect::<Vec<_>>());
        wait::until_or(what, || condition(&self.spans()), names);
    }

    /// Waits for the span of a request.
    pub(crate) fn span_of(&self, request_id: &str) -> Got {
        let find = || self.spans().into_iter().find(|got| got.get("request.id") == request_id);
        wait::until_some(&format!("the span of request {request_id}"), find)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.listen.take();
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic of it has shown in the test already.
            let _panicked = thread.join();
        }
    }
}

async fn serve(socket: TcpSocket, service: Service, ended: oneshot::Receiver<()>) {
    let incoming = TcpIncoming::from(socket.listen(64).unwrap());
    let service = TraceServiceServer::new(service).accept_compressed(CompressionEncoding::Gzip);
    let server =
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
    tokio::select! {
        result = server => result.unwrap(),
        _ = ended => {}
    }
}

struct Service(Arc<Mutex<State>>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mode = {
            let mut state = self.0.lock().unwrap();
            state.calls += 1;
            state.mode
        };
        match mode {
            Mode::Answer => {
                self.0.lock().unwrap().spans.extend(flat(request.into_inner()));
                Ok(Response::new(ExportTraceServiceResponse::default()))
            }
            Mode::Hang => std::future::pending().await,
            Mode::Fail(code) => Err(Status::new(code, "as the test wants it")),
        }
    }
}

/// Each span of an export, with what it belongs to.
pub(crate) fn flat(request: ExportTraceServiceRequest) -> Vec<Got> {
    let mut all = Vec::new();
    for group in request.resource_spans {
        let resource = attributes(&group.resource.unwrap_or_default().attributes);
        for scoped in group.scope_spans {
            let scope = scoped.scope.unwrap_or_default().name;
            for span in scoped.spans {
                let attributes = attributes(&span.attributes);
                all.push(Got {
                    span,
                    attributes,
                    resource: resource.clone(),
                    scope: scope.clone(),
                });
            }
        }
    }
    all
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let count = pairs.len();
    let map: BTreeMap<_, _> = pairs.iter().map(|pair| (pair.key.clone(), text(pair))).collect();
    assert_eq!(map.len(), count, "an attribute stands twice: {pairs:?}");
    map
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

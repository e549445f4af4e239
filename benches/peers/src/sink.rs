//! A collector that takes every span and counts them, and one that hangs.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// The running collector; it ends with the program.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    /// Whose connections nobody accepts.
    hanging: TcpListener,
    spans: Arc<AtomicU64>,
}

impl Sink {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let spans = Arc::new(AtomicU64::new(0));
        let counter = Counter(Arc::clone(&spans));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(serve(listener, counter)))
        });
        Ok(Self { address, hanging: TcpListener::bind("127.0.0.1:0")?, spans })
    }

    /// The address of a collector that never answers.
    pub(crate) fn hanging(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.hanging.local_addr()?)
    }

    /// Spans received so far.
    pub(crate) fn spans(&self) -> u64 {
        self.spans.load(Relaxed)
    }
}

async fn serve(listener: TcpListener, counter: Counter) -> anyhow::Result<()> {
    let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?);
    let service = TraceServiceServer::new(counter);
    tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?;
    Ok(())
}

struct Counter(Arc<AtomicU64>);

#[tonic::async_trait]
impl TraceService for Counter {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.get_ref().resource_spans.iter().flat_map(|group| &group.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(u64::try_from(spans).unwrap_or(0), Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
